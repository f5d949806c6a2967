#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nvfp4-gpu's command line, on a machine with or without a GPU: help, bad calls, and what happens without a device.
# Usage: program_test.sh PROGRAM
set -u
program=$1
failures=0

# expect CODE TEXT ARGUMENT...: the exit code, and a text in either output
expect() {
  local code=$1 text=$2
  shift 2
  local output status
  output=$("$program" "$@" 2>&1)
  status=$?
  if [ "$status" -ne "$code" ] || ! grep -qF -- "$text" <<<"$output"; then
    echo "nvfp4-gpu $*: expected exit code $code and '$text', got $status: $output"
    failures=$((failures + 1))
  fi
}

expect 0 "nvfp4-gpu all --quick" --help
for verb in all elements mma quantize gemm kernels linear training profile units hopper attention gla capture blackwell \
  speed "blackwell check" "blackwell simulate" "blackwell directed" "blackwell rbits" "blackwell capture" "speed twin" \
  "speed attention" "speed gla"; do
  # shellcheck disable=SC2086 # two words
  expect 0 "Options:" $verb --help
done
expect 2 "subcommand is required"
expect 2 "subcommand is required" blackwell
expect 2 "--tiles" mma --tiles 0
expect 2 "--largest" hopper --largest 0
expect 2 "sideways" speed attention sideways
expect 2 "--large" gemm --large --brief
expect 2 "nonsense" nonsense

if ! nvidia-smi --query-gpu=name --format=csv,noheader >/dev/null 2>&1; then
  for verb in "all --quick" mma training units hopper attention gla "blackwell check" "blackwell simulate" "speed twin" \
    "speed gla" "profile gla,tiny,bf16,1,64"; do
    # shellcheck disable=SC2086
    expect 3 "nvfp4-gpu: " $verb
  done
fi
[ "$failures" -eq 0 ] && echo "nvfp4-gpu: command line as expected"
exit $((failures != 0))
