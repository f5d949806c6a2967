#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# instruction_sets_test.sh NVFP4: only the program's own "this CPU lacks it" is a reason to skip an instruction set; a
# crash, another exit code or another message is a failure.
set -uo pipefail
nvfp4=$(realpath "$1")
# shellcheck source=tests/tools/instruction_sets.sh
. "$(dirname "$(realpath "$0")")/instruction_sets.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
# expect CODE ISA COMMAND...
expect() {
  local want=$1 isa=$2 code=0
  shift 2
  { under "$isa" "$work/err" "$@" >"$work/out"; } 2>/dev/null || code=$? # the shell tells of crashes
  [ $code -eq "$want" ] || { echo "FAILED: $code instead of $want under $isa: $*: $(cat "$work/out" "$work/err")"; failures=$((failures + 1)); }
}
missing=neon
[ "$(uname -m)" = aarch64 ] && missing=avx512
x=$(dirname "$(realpath "$0")")/../../golden/vectors/hardware/rtx5080/o_proj_activation.safetensors
gemm=("$nvfp4" gemm "$x" "$x" -o "$work/d.npy" --unit sm_90:wgmma.k16.f32.bf16)
expect 0 scalar "${gemm[@]}"
expect 77 $missing "${gemm[@]}"
grep -q "skipped: this CPU lacks $missing" "$work/out" || { echo "FAILED: a skip that is not shown: $(cat "$work/out")"; failures=$((failures + 1)); }
expect 1 nonsense "${gemm[@]}"
expect 1 scalar bash -c 'kill -SEGV $$'
expect 1 scalar bash -c 'echo "instruction set scalar: this CPU lacks it" >&2; kill -ABRT $$'
expect 1 scalar bash -c 'echo "instruction set avx2: this CPU lacks it" >&2; exit 2'
expect 1 scalar bash -c 'echo "something else" >&2; exit 2'
expect 1 scalar bash -c 'exit 77'
[ $failures -eq 0 ] && echo "instruction sets are skipped only where the CPU lacks them"
exit $((failures > 0))
