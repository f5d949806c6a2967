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
good() { "$nvfp4" "$@" >out.txt 2>err.txt || say "exit $? of: nvfp4 $*: $(head -1 err.txt)"; }
# refused PATTERN ARGS...: within $limit seconds exit code 2 and one line on stderr that contains the pattern
refused() {
  local pattern=$1
  shift
  timeout "${limit:-120}" "$nvfp4" "$@" >out.txt 2>err.txt
  local code=$?
  [ $code -eq 2 ] || say "exit $code instead of 2: nvfp4 $*"
  [ "$(wc -l <err.txt)" -eq 1 ] || say "$(wc -l <err.txt) lines on stderr: nvfp4 $*: $(head -3 err.txt)"
  grep -qF -- "$pattern" err.txt || say "no '$pattern' in: $(cut -c-400 err.txt): nvfp4 $*"
}
bad() { refused "$@"; }
# finish WORDS: says them if nothing failed
finish() {
  [ $failures -eq 0 ] && echo "$*"
  exit $((failures > 0))
}
