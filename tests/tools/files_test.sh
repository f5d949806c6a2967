#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Files at the edges: empty tensors through every verb and preset, tensors of other dtypes beside the one that is asked
# for, golden cases by hand.
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
# header TEXT: the eight bytes of its length and the text itself, the start of a .safetensors file
header() { printf "\\x$(printf %02x $((${#1} & 255)))\\x$(printf %02x $((${#1} >> 8)))\0\0\0\0\0\0%s" "$1"; }
shape() { grep -ao '"shape":\[[0-9,]*\]' "$1" | tail -1; }
# empty NAME ROWS COLS: a dense tensor without elements
empty() { header "{\"data\":{\"dtype\":\"F32\",\"shape\":[$2,$3],\"data_offsets\":[0,0]}}" >"$1"; }

empty e0.safetensors 0 16
empty e1.safetensors 16 0
empty e2.safetensors 0 0
presets=$("$nvfp4" info --conventions | cut -d' ' -f1)
[ "$(wc -w <<<"$presets")" -ge 20 ] || say "info --conventions lists: $presets"
"$nvfp4" info --conventions --match torchao015 --json >out.txt
grep -qF '"versions": "torchao 0.15 to 0.16' out.txt || say "info --conventions --json without versions: $(cat out.txt)"
for file in e0 e1 e2; do
  for preset in $presets; do
    for axis in row col; do
      good quantize $file.safetensors -o q.safetensors --convention $preset --axis $axis --stats
      good dequantize q.safetensors -o back.safetensors
      cmp -s <(shape back.safetensors) <(shape $file.safetensors) ||
        say "shape of $file after $preset, axis $axis: $(shape back.safetensors)"
      good check --quantized q.safetensors --source $file.safetensors
      grep -q "next to nothing" out.txt || say "$file under $preset compares as if it held something: $(head -1 out.txt)"
    done
  done
  good convert $file.safetensors -o c.safetensors --cvt cvt.rn.satfinite.e4m3x2.f32
  good quantize $file.safetensors -o q.safetensors --convention te --scale-layout 128x4
done
unit=sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16
for file in e0 e1; do
  good quantize $file.safetensors -o q.safetensors --convention te
  good gemm q.safetensors q.safetensors -o d.npy --unit $unit
  good check --a q.safetensors --b q.safetensors --d d.npy --unit $unit
done

# an F4 and an F6 tensor beside the one that is asked for
{
  header '{"w":{"dtype":"F32","shape":[1,16],"data_offsets":[0,64]},"x":{"dtype":"F4","shape":[1,16],"data_offsets":[64,72]},"y":{"dtype":"F6_E2M3","shape":[1,16],"data_offsets":[72,84]},"z":{"dtype":"FUTURE","shape":[1],"data_offsets":[84,88]}}'
  for i in {1..16}; do printf '\0\0\x80\x3f'; done
  printf '\x10\x32\x54\x76\x98\xba\xdc\xfe'
  printf '%016d' 0
} >several.safetensors
good quantize several.safetensors --tensor w -o w.safetensors --convention te
good quantize several.safetensors --tensor x -o x.safetensors --convention mxfp4
good dequantize x.safetensors -o x.npy
[ "$(tail -c 64 x.npy | od -An -tx4 -w64 | tr -s ' ')" = " 00000000 3f000000 3f800000 3fc00000 40000000 40400000 40800000 40c00000 80000000 bf000000 bf800000 bfc00000 c0000000 c0400000 c0800000 c0c00000" ] ||
  say "the codes of an F4 tensor: $(tail -c 64 x.npy | od -An -tx4 -w64)"
bad "F6_E2M3" quantize several.safetensors --tensor y -o y.safetensors --convention te
bad "'z'" quantize several.safetensors --tensor z -o z.safetensors --convention te

# golden cases by hand: a given amax, a key that nobody reads, nothing at all
# case_file NAME CASES: one input of zeros whose codes and scales are zero as well
case_file() {
  {
    header "{\"__metadata__\":{\"kind\":\"quantize\",\"subject\":\"te\",\"provenance\":\"model\"$2},\"n.input\":{\"dtype\":\"F32\",\"shape\":[1,16],\"data_offsets\":[0,64]},\"n.k.codes\":{\"dtype\":\"U8\",\"shape\":[1,8],\"data_offsets\":[64,72]},\"n.k.block_scales\":{\"dtype\":\"U8\",\"shape\":[1,1],\"data_offsets\":[72,73]},\"n.k.global_amax\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[73,77]}}"
    head -c 73 /dev/zero
    printf '\0\0\x20\x41' # 10
  } >"$1"
}
options='\"axis\":\"row\",\"block_rows\":1,\"rounding\":\"rne\",\"hadamard\":false,\"sign_mask\":0,\"scale_layout\":\"linear\",\"source_dtype\":\"f32\"'
case_file amax.safetensors ",\"case.n.k\":\"{$options,\\\"global_amax\\\":\\\"41200000\\\"}\""
good golden verify amax.safetensors
case_file none.safetensors ",\"case.n.k\":\"{$options}\""
"$nvfp4" golden verify none.safetensors >out.txt 2>err.txt
[ $? -eq 1 ] || say "a golden case without its amax must differ: $(cat out.txt err.txt)"
case_file typo.safetensors ",\"case.n.k\":\"{$options,\\\"globl_amax\\\":\\\"41200000\\\"}\""
bad "unknown key 'globl_amax'" golden verify typo.safetensors
case_file nothing.safetensors ""
bad "holds no cases" golden verify nothing.safetensors

finish "all checks of files passed"
