#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# python_test.sh NVFP4 BUILD: runs tests/python against the wheel that tools/test installed in BUILD/venv. Without that
# environment there is nothing to test: exit code 77.
set -euo pipefail
nvfp4=$(realpath "$1") build=$(realpath "$2")
python=$build/venv/bin/python
[ -x "$python" ] || { echo "$build/venv is not there: tools/test makes it"; exit 77; }
cd "$(dirname "$0")/../python"
NVFP4_PROGRAM=$nvfp4 NVFP4_WHEEL=$(ls "$build"/wheel/nvfp4-*.whl) exec "$python" -m pytest -q -ra -p no:cacheprovider .
