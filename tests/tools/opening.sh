# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# How the tests of the program begin and end; sourced with the program as first argument. Leaves the test in an empty folder
# that is removed at the end, with the program as $nvfp4.
set -uo pipefail
nvfp4=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export OMP_WAIT_POLICY=passive # programs that run beside each other must not spin
failures=0
say() { echo "FAILED: $*"; failures=$((failures + 1)); }
# finish WORDS: says them if nothing failed
finish() {
  [ $failures -eq 0 ] && echo "$*"
  exit $((failures > 0))
}
