#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every option of every verb that takes a number, as the help lists them, refuses what is no number in decimal, with one
# line that names the option and what came, and exit code 2; and reads a good one.
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
options=0

# refused VERB... OPTION TEXT
refused() {
  local verb=("${@:1:$#-2}") option=${*: -2:1} text=${*: -1} err
  err=$("$nvfp4" "${verb[@]}" "$option=$text" 2>&1 >/dev/null </dev/null)
  local code=$?
  [ $code -eq 2 ] || say "exit $code instead of 2: ${verb[*]} $option=$text"
  [ "$(wc -l <<<"$err")" -eq 1 ] || say "not one line: ${verb[*]} $option=$text: $err"
  [[ $err == *"$option: expected "*"number"*"got '$text'"* ]] || say "${verb[*]} $option=$text: $err"
}
verbs_of() { "$nvfp4" "$@" --help | sed -n '/^Subcommands:/,$p' | sed -n 's/^  \([a-z][a-z0-9-]*\) .*/\1/p'; }

check_verb() {
  local sub line option
  for sub in $(verbs_of "$@"); do check_verb "$@" "$sub"; done
  while read -r option type; do
    options=$((options + 1))
    for text in x 010 -00 +5 1_000 0x10 ' 5' '5 ' nan inf; do refused "$@" "$option" "$text"; done
    case $type in
      INT*) for text in 1e3 1.0 9223372036854775808 -9223372036854775809; do refused "$@" "$option" $text; done ;;
      UINT*) for text in -1 1e3 1.0 18446744073709551616 99999999999999999999999; do refused "$@" "$option" $text; done ;;
      *) for text in 1e400 -1e400 1e-400 0x1p3; do refused "$@" "$option" $text; done ;;
    esac
  done < <("$nvfp4" "$@" --help | sed -nE 's/^  (-[a-z],)?(--[a-z0-9-]+)(,--[a-z0-9-]+)* (U?INT|FLOAT|FP32).*/\2 \4/p')
}
for verb in $(verbs_of); do check_verb "$verb"; done
[ $options -ge 60 ] || say "the help lists only $options options with numbers"

# what FP32 cannot hold; and the same threads everywhere
for number in 1e39 1e-60; do
  err=$("$nvfp4" gemm a b -o d --unit u --alpha $number 2>&1)
  [[ $? -eq 2 && $err == *"--alpha: expected a number that FP32 can hold, got '$number'"* ]] || say "--alpha $number: $err"
done
err=$("$nvfp4" quantize x -o y --convention te --global-amax=-1 2>&1)
[[ $? -eq 2 && $err == *"--global-amax: expected a number that FP32 can hold, at least 0, got '-1'"* ]] || say "--global-amax -1: $err"
for verb in gemm check "train --data task:copy --out x" eval forward record replay bench crosscheck "golden training"; do
  err=$("$nvfp4" $verb --threads 1025 2>&1 >/dev/null </dev/null)
  [[ $? -eq 2 && $err == *"--threads"*1024* && $err == *1025* ]] || say "$verb --threads 1025: $err"
  err=$("$nvfp4" $verb --threads 0 --nonsense 2>&1 >/dev/null)
  [[ $err == *"--threads"* ]] && say "$verb --threads 0: $err"
done
finish "numbers: all good, $options options"
