#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The program as a user meets it: every verb on good input, and bad input that must give one line, exit code 2 and no
# output file. Needs only a shell; tensors are written as .npy by hand.
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
# shellcheck source=tests/tools/instruction_sets.sh
. "$here/instruction_sets.sh"

# npy NAME ROWS COLS DESCR BYTES...: a .npy whose data are the given printf bytes, repeated to fill it
npy() {
  local name=$1 rows=$2 cols=$3 descr=$4 data=$5 width=$6
  local header="{'descr': '$descr', 'fortran_order': False, 'shape': ($rows, $cols), }"
  while [ $(((10 + ${#header} + 1) % 64)) -ne 0 ]; do header="$header "; done
  printf '\x93NUMPY\x01\x00' >"$name"
  printf "\\x$(printf %02x $(((${#header} + 1) & 255)))\\x$(printf %02x $(((${#header} + 1) >> 8)))" >>"$name"
  printf '%s\n' "$header" >>"$name"
  local want=$((rows * cols * width)) chunk
  chunk=$(mktemp)
  printf "$data" >"$chunk"
  while [ "$(stat -c %s "$chunk")" -lt "$want" ]; do cat "$chunk" "$chunk" >"$chunk.2" && mv "$chunk.2" "$chunk"; done
  head -c "$want" "$chunk" >>"$name"
  rm -f "$chunk"
}

# good ARGS...: must exit 0
# bad PATTERN ARGS...: must exit 2 with one line on stderr that contains the pattern, and leave no out.*
bad() {
  rm -f out.safetensors out.npy
  refused "$@"
  [ ! -e out.safetensors ] && [ ! -e out.npy ] || say "left an output file: nvfp4 $*"
  [ -z "$(find . -name '.nvfp4-*')" ] || say "left a temporary file: nvfp4 $*"
}

unit=sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16
npy x.npy 32 128 '<f4' '\x00\x00\x80\x3f\x00\x00\x00\xc0\x00\x00\x40\x3f\x00\x00\x00\x00\xcd\xcc\x4c\x3e' 4
npy w.npy 16 128 '<f4' '\x00\x00\x00\x3f\x00\x00\x80\xbf\x00\x00\x40\x40' 4
npy c.npy 32 16 '<f4' '\x00\x00\x80\x3f' 4
npy h.npy 32 64 '<f2' '\x00\x3c\x00\xc0\x00\x38' 2

good info
good info --units --match sm_120 --json
grep -q '"unit": "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"' out.txt || say "info --units --json lacks the NVFP4 unit"
good info --conventions
good info --conversions
for convention in te te213 paper torchao modelopt compressed-tensors flashinfer-exact ggml fouroversix fouroversix-mae row-scaled mxfp4 mxfp8-e4m3; do
  good quantize x.npy -o q.safetensors --convention $convention
  good dequantize q.safetensors -o y.npy
done
for rounding in sr-carry8 sr-te sr-exact; do
  good quantize x.npy -o a.safetensors --convention te --rounding $rounding --seed 7 --offset 2
  OMP_NUM_THREADS=1 good quantize x.npy -o b.safetensors --convention te --rounding $rounding --seed 7 --offset 2
  cmp -s a.safetensors b.safetensors || say "$rounding differs between runs or thread counts"
done
good quantize x.npy -o x.safetensors --convention te --scale-layout 128x4
good quantize w.npy -o w.safetensors --convention te --block 16x16
good gemm x.safetensors w.safetensors -o d.npy --unit $unit
good gemm x.safetensors w.safetensors -o e.npy --unit $unit --exact
cmp -s d.npy e.npy || say "gemm --exact gives other bits"
good gemm x.safetensors w.safetensors -o e.npy --unit $unit --threads 1
cmp -s d.npy e.npy || say "gemm with one thread gives other bits"
for isa in scalar avx2 avx512 neon neon_dot; do
  rm -f e.npy
  under $isa err.txt "$nvfp4" gemm x.safetensors w.safetensors -o e.npy --unit $unit >out.txt
  case $? in
    0) cmp -s d.npy e.npy || say "gemm with NVFP4_ISA=$isa gives other bits" ;;
    77) tail -n 1 out.txt ;;
    *) say "gemm: $(cat out.txt)" ;;
  esac
done
good gemm x.safetensors w.safetensors -o d.safetensors --unit $unit --out bf16 --alpha 2 --beta 0.5 --c c.npy
grep -q " engine on .*; [0-9]* of 512 outputs by the definition" out.txt || say "gemm does not say which engine ran: $(cat out.txt)"
npy bias.npy 1 16 '<f4' '\x00\x00\x80\x3f\x00\x00\x00\xc0' 4
npy rows.npy 32 1 '<f4' '\x00\x00\x80\x3f\x00\x00\x00\x3f' 4
good gemm x.safetensors w.safetensors -o e.npy --unit $unit --bias bias.npy --row-factors rows.npy --column-factors bias.npy
good gemm x.safetensors w.safetensors -o e.npy --unit $unit --accumulate c.npy --json
grep -q '"engine":"definition"' out.txt || say "FP4 with --accumulate must run the definition: $(cat out.txt)"
good gemm x.safetensors w.safetensors -o e.npy --unit $unit --groups 20,12
good gemm x.safetensors w.safetensors -o s1.npy --unit $unit --alpha-rule sdec_product --column-scales 0:5=0.5,5:16=0.5
good gemm x.safetensors w.safetensors -o s2.npy --unit $unit --alpha-rule sdec_product --column-scales 0:16=0.5
cmp -s s1.npy s2.npy || say "equal scales by ranges of columns give other bits than one scale"
bad "starts at 5" gemm x.safetensors w.safetensors -o out.npy --unit $unit --column-scales 0:5=0.5,6:16=0.5
bad "FIRST:LAST=SCALE" gemm x.safetensors w.safetensors -o out.npy --unit $unit --row-scales 0:5
bad "divide evenly" gemm x.safetensors w.safetensors -o out.npy --unit $unit --groups 1,1,30
bad "bias must have shape" gemm x.safetensors w.safetensors -o out.npy --unit $unit --bias x.npy
bad "accumulators must have shape" gemm x.safetensors w.safetensors -o out.npy --unit $unit --accumulate x.npy
bad "which are applied after" gemm x.safetensors w.safetensors -o out.npy --unit $unit --beta 1 --c c.npy --row-factors rows.npy
good gemm x.npy w.npy -o d.npy --unit sm_90:wgmma.k16.f32.bf16
good gemm h.npy h.npy -o d.safetensors --unit sm_90:mma.m16n8k16.f16.f16 --out f16
good quantize x.npy -o x.col.safetensors --convention te --axis col --hadamard
good dequantize x.col.safetensors -o y.safetensors --dtype bf16
for model in mmasim nadpe exact tcgen05-model; do good gemm x.safetensors w.safetensors -o d.npy --unit $unit --accumulation $model; done

bad "unknown unit" gemm x.safetensors w.safetensors -o out.npy --unit sm_120:nothing
bad "nothing.npy: cannot open" quantize nothing.npy -o out.safetensors --convention te
bad "unknown quantization convention" quantize x.npy -o out.safetensors --convention tea
bad "--block" quantize x.npy -o out.safetensors --convention te --block 3x3
bad "needs --seed" quantize x.npy -o out.safetensors --convention te --rounding sr-te
bad "is dense" gemm x.npy w.npy -o out.npy --unit $unit
bad "takes no scales" gemm x.safetensors w.safetensors -o out.npy --unit sm_90:wgmma.k16.f32.bf16
bad "does not fit unit" gemm x.safetensors w.safetensors -o out.npy --unit sm_120:mma.m16n8k64.f32.mxf4.ue8m0.block32
bad "needs --c" gemm x.safetensors w.safetensors -o out.npy --unit $unit --beta 1
bad "C must have shape" gemm x.safetensors w.safetensors -o out.npy --unit $unit --beta 1 --c x.npy
bad "no type for BF16" gemm x.safetensors w.safetensors -o out.npy --unit $unit --out bf16
bad "unknown tensor" mma --unit $unit x.safetensors -o out.safetensors
bad "not a quantized tensor" dequantize x.npy -o out.npy
good quantize x.npy -o s.safetensors --convention te --rounding sr-te --seed 18446744073709551615
for seed in -1 18446744073709551616 1e3; do bad "--seed" quantize x.npy -o out.safetensors --convention te --rounding sr-te --seed=$seed; done
for scale in nan inf -1 1e60; do bad "--global-amax" quantize x.npy -o out.safetensors --convention te --global-amax=$scale; done
npy k48.npy 16 48 '<f4' '\x00\x00\x00\x3f\x00\x00\x80\xbf\x00\x00\x40\x40' 4
good quantize k48.npy -o k48.safetensors --convention te
bad "has K = 48" gemm x.safetensors k48.safetensors -o out.npy --unit $unit
good quantize x.npy -o h.safetensors --convention te --hadamard
bad "Hadamard-rotated" gemm h.safetensors w.safetensors -o out.npy --unit $unit
bad "without --beta" gemm x.safetensors w.safetensors -o out.npy --unit $unit --c c.npy
bad "--alpha: expected a finite number in decimal" gemm x.safetensors w.safetensors -o out.npy --unit $unit --alpha nan
bad "--threads" gemm x.safetensors w.safetensors -o out.npy --unit $unit --threads 100000
bad "leave out the name" gemm x.safetensors w.safetensors -o out.npy --unit $unit --a-tensor nope
bad "unknown unit" gemm x.safetensors w.safetensors -o out.npy --unit $'a\nb'
printf '\x50\x00\x00\x00\x00\x00\x00\x00%-80s' '{"x":{"dtype":"F32","shape":[4611686018427387904,0],"data_offsets":[0,0]}}' >void.safetensors
bad "has no elements" quantize void.safetensors -o out.safetensors --convention te
bad "has no elements" gemm void.safetensors w.npy -o out.npy --unit sm_90:wgmma.k16.f32.bf16
printf '# nvfp4 golden 1\n# kind: mma\n# unit: sm_90:wgmma.k8.f32.tf32\n# columns: class a b c d\n' >none.txt
bad "holds no cases" golden verify none.txt
bad "--provenance" golden verify --provenance hardwear
"$nvfp4" info --units >/dev/full 2>err.txt
[ $? -eq 2 ] && [ "$(wc -l <err.txt)" -eq 1 ] || say "a full disk on stdout: $(cat err.txt)"
head -c 100 x.safetensors >cut.safetensors
bad "cut.safetensors" dequantize cut.safetensors -o out.npy
printf '\xff\xff\xff\xff\xff\xff\xff\x7f{}' >lie.safetensors
bad "lie.safetensors" dequantize lie.safetensors -o out.npy
: >empty.npy
bad "empty.npy" quantize empty.npy -o out.safetensors --convention te
bad "missing/out.safetensors" quantize x.npy -o missing/out.safetensors --convention te
"$nvfp4" golden capture --out cap >out.txt 2>err.txt
[ $? -eq 3 ] || [ -e cap ] || say "golden capture without a GPU must exit with 3"
# 1 + 2^-24 and a little more: by way of FP64 it would be a tie, which goes to 1
for alpha in 1 1.00000005960464477539062500001 1.00000011920928955078125; do
  good gemm x.safetensors w.safetensors -o alpha-$alpha.safetensors --unit $unit --alpha $alpha
done
cmp -s alpha-1.0*1.safetensors alpha-1.0*125.safetensors || say "--alpha is rounded twice"
cmp -s alpha-1.safetensors alpha-1.0*125.safetensors && say "--alpha without effect"
# one conversion instruction: FP32 1.0, 448 and NaN (the last twice) into E4M3, saturating and not
npy numbers.npy 1 4 '<f4' '\x00\x00\x80\x3f\x00\x00\xe0\x43\x00\x00\xc0\x7f\x00\x00\xc0\x7f' 4
good convert numbers.npy -o codes.safetensors --cvt cvt.rn.satfinite.e4m3x2.f32 --json
grep -q '"nan_in":2' out.txt && grep -q '"nan_out":2' out.txt || say "convert counts: $(cat out.txt)"
[ "$(tail -c 4 codes.safetensors | od -An -tx1)" = " 38 7e 7f 7f" ] || say "convert to E4M3: $(tail -c 4 codes.safetensors | od -An -tx1)"
bad "reads f16" convert numbers.npy -o out.safetensors --cvt cvt.rn.satfinite.e4m3x2.f16x2
# an empty tensor goes through a preset with one scale per row, and back
npy empty.npy 0 16 '<f4' '\x00' 4
good quantize empty.npy -o empty.safetensors --convention row-scaled
good dequantize empty.safetensors -o back.npy
# a preset that makes NaN of zeros says so; one that does not is silent
npy zeros.npy 2 16 '<f4' '\x00' 4
good quantize zeros.npy -o z.safetensors --convention torchao --stats
grep -q "2 of 2 block scales NaN" err.txt || say "zeros under torchao: $(cat err.txt)"
good quantize zeros.npy -o z.safetensors --convention te
[ ! -s err.txt ] || say "zeros under te: $(cat err.txt)"

bad "no verb 'nonsense'" nonsense
finish "all program checks passed"
