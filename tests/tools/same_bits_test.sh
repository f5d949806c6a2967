#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# same_bits_test.sh SOURCE_ROOT COMPILER FLAGS: builds the verbs it needs with another compiler or other flags and asks them
# for the stored results of every unit, convention and conversion, for a GEMM on every instruction set the CPU has, and for
# recorded training steps.
set -euo pipefail
# shellcheck source=tests/tools/instruction_sets.sh
. "$(dirname "$0")/instruction_sets.sh"
root=$1 compiler=$2 flags=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
type=Release # text and JSON at -O1, as releases have them
[[ $flags != *-O0* ]] || type=None
{
  cmake -S "$root" -B "$work/build" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=$type -DCMAKE_CXX_FLAGS="$flags" \
    -DCMAKE_CXX_FLAGS_RELEASE= -DNVFP4_TESTS=OFF -DNVFP4_CUDA=OFF -DCMAKE_UNITY_BUILD=ON
  cmake --build "$work/build" -j "$(nproc)" --target nvfp4_bits
} >"$work/log" 2>&1 || { tail -n 40 "$work/log"; exit 1; }
nvfp4=$work/build/nvfp4-bits
for kind in mma convert quantize; do
  "$nvfp4" golden verify --kind $kind --dir "$root/golden" >"$work/out" || { cat "$work/out"; exit 1; }
done
"$nvfp4" golden training --match "gla tiny chon" --dir "$root/golden" >"$work/out" || { cat "$work/out"; exit 1; }
x=$root/golden/vectors/hardware/rtx5080/o_proj_activation.safetensors
for rounding in rne "sr-te --seed 5" "sr-exact --seed 5"; do
  # shellcheck disable=SC2086
  "$nvfp4" quantize "$x" -o "$work/q.safetensors" --convention te --rounding $rounding
  sha256sum "$work/q.safetensors" | cut -c1-64
done >"$work/digests"
"$nvfp4" quantize "$x" -o "$work/q.safetensors" --convention te
for isa in scalar avx2 avx512 neon neon_dot; do
  for unit in sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16 sm_90:wgmma.k16.f32.bf16 sm_90:wgmma.k32.f32.e4m3; do
    operand=$x
    [[ $unit == sm_120* ]] && operand=$work/q.safetensors
    code=0
    rm -f "$work/d.npy"
    under $isa "$work/err" "$nvfp4" gemm "$operand" "$operand" -o "$work/d.npy" --unit $unit >"$work/out" || code=$?
    if [ $code -eq 77 ]; then
      tail -n 1 "$work/out"
      break
    fi
    [ $code -eq 0 ] || { cat "$work/out"; exit 1; }
    echo "$unit $(sha256sum "$work/d.npy" | cut -c1-64)" >>"$work/products"
  done
done
sort -u "$work/products" >>"$work/digests"
diff "$root/tests/tools/same_bits.txt" "$work/digests" && echo "same bits: $compiler $flags"
