#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the build into an empty folder, then builds and runs a user's project against that folder alone.
set -euo pipefail
build=$1 project=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/prefix" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
{ cmake -S "$project" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" && cmake --build "$work/build"; } >"$work/log" 2>&1 ||
  { cat "$work/log"; exit 1; }
"$work/build/consumer"
cd "$work" && "$work/prefix/bin/nvfp4" golden list --provenance hardware --json >"$work/list.json"
grep -q '"provenance": "hardware"' "$work/list.json"
