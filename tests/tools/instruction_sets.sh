# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# For tests that run the program under each instruction set: source it. Only a set that the CPU lacks may be skipped; a
# program that fails or crashes under one fails the test.

# under ISA ERR COMMAND...: runs the command under the instruction set, its stderr into the file ERR. Returns 0 when it
# ran, 77 when the program says that this CPU lacks the set (which is printed), 1 for anything else (also printed).
under() {
  local isa=$1 err=$2 code=0
  shift 2
  NVFP4_ISA=$isa "$@" 2>"$err" || code=$?
  [ $code -eq 0 ] && return 0
  if [ $code -eq 2 ] && [ "$(wc -l <"$err")" -eq 1 ] && grep -q "instruction set $isa: this CPU lacks it" "$err"; then
    echo "skipped: this CPU lacks $isa"
    return 77
  fi
  echo "exit $code under $isa: $(head -n 3 "$err")"
  return 1
}
