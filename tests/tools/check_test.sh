#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nvfp4 check as a user meets it: equal and wrong outputs, the named mistake, JSON, refusals. Kernel mistakes are made
# with the program itself: other options of quantize and gemm.
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"

# npy NAME ROWS COLS SEED: FP32 values of mixed magnitude from a linear congruence
npy() {
  local name=$1 rows=$2 cols=$3 state=$4
  local header="{'descr': '<f4', 'fortran_order': False, 'shape': ($rows, $cols), }" bytes="" i
  while [ $(((10 + ${#header} + 1) % 64)) -ne 0 ]; do header="$header "; done
  for ((i = 0; i < rows * cols; i++)); do
    state=$(((state * 1103515245 + 12345) & 0x7FFFFFFF))
    bytes+=$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $((state >> 8 & 255)) $((state >> 16 & 255)) $((state >> 4 & 127 | (state >> 29 & 1) << 7)) $((0x3C + (state >> 18 & 3) + (state >> 30) * 128)))
  done
  {
    printf '\x93NUMPY\x01\x00'
    printf "\\x$(printf %02x $(((${#header} + 1) & 255)))\\x$(printf %02x $(((${#header} + 1) >> 8)))"
    printf '%s\n' "$header"
    printf "$bytes"
  } >"$name"
}
good() { "$nvfp4" "$@" >out.txt 2>err.txt || say "exit $? of: nvfp4 $*: $(head -1 err.txt)"; }
# differs PATTERN ARGS...: check must exit 1 and print the pattern
differs() {
  local pattern=$1
  shift
  "$nvfp4" check "$@" >out.txt 2>err.txt
  local code=$?
  [ $code -eq 1 ] || say "exit $code instead of 1: nvfp4 check $*: $(head -1 err.txt)"
  grep -qF -- "$pattern" out.txt || say "no '$pattern' in the output of: nvfp4 check $*: $(head -c 600 out.txt)"
  # the sentence to act on comes before any table
  case " $* " in
    *" --json "*) grep -qE '^\{("equal":false,)?"verdict":"[^"]{10,}"' out.txt || say "JSON begins without a verdict: $(head -c 100 out.txt)" ;;
    *) head -1 out.txt | grep -vE '^(unit|convention|first|diagnosis|  )' | grep -qE '.{10,}' || say "no verdict first: $(head -3 out.txt)" ;;
  esac
}
# bad PATTERN ARGS...: check must exit 2 with one line
bad() { refused "$1" check "${@:2}"; }

unit=sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16
npy x.npy 16 128 1
npy w.npy 8 128 2
npy c.npy 16 8 3
good quantize x.npy -o x.safetensors --convention te --scale-layout 128x4
good quantize w.npy -o w.safetensors --convention te
ab="--a x.safetensors --b w.safetensors --unit $unit"

good gemm x.safetensors w.safetensors -o d.npy --unit $unit
good check $ab --d d.npy
grep -qF "equal: all 128 outputs" out.txt || say "no 'equal' in: $(cat out.txt)"
good check $ab --d d.npy --json
grep -qF '"equal":true' out.txt || say "no equal:true in: $(cat out.txt)"
good gemm x.safetensors w.safetensors -o d16.safetensors --unit $unit --out bf16 --alpha 2 --beta 0.5 --c c.npy
good check $ab --d d16.safetensors --alpha 2 --beta 0.5 --c c.npy

differs "alpha-omitted" $ab --d d.npy --alpha 3
differs "beta-c-omitted" $ab --d d.npy --beta 0.5 --c c.npy
differs "output-rounding-missing" $ab --d d.npy --out bf16
differs '"name":"alpha-omitted"' $ab --d d.npy --alpha 3 --json
differs '"first":{"i":0,"j":0' $ab --d d.npy --alpha 3 --json --trace
differs "lsb 2^" $ab --d d.npy --alpha 3 --trace
# a kernel that ran on another quantizer's operands
good quantize x.npy -o x46.safetensors --convention fouroversix
good gemm x46.safetensors w.safetensors -o d46.npy --unit $unit
differs "quantizer:fouroversix:a" $ab --d d46.npy --a-source x.npy
differs "nothing that was tried explains all outputs" $ab --d d46.npy
# unrelated output
differs "nothing that was tried explains all outputs" $ab --d c.npy
# dense operands: the output of an Ampere unit
good gemm x.npy w.npy -o dense.npy --unit sm_80:mma.m16n8k16.f32.bf16
differs "unit:sm_80:mma.m16n8k" --a x.npy --b w.npy --unit sm_90:wgmma.k16.f32.bf16 --d dense.npy
good check --a x.npy --b w.npy --unit sm_80:mma.m16n8k16.f32.bf16 --d dense.npy
for threads in 1 2; do "$nvfp4" check $ab --d d46.npy --threads $threads --json >t$threads.txt; done
cmp -s t1.txt t2.txt || say "the report depends on the number of threads"

bad "D must have shape [16, 8], got [16, 128]" $ab --d x.npy
good gemm w.safetensors x.safetensors -o dt.npy --unit $unit
bad "exchange --a and --b" $ab --d dt.npy
bad "--d is required" $ab
bad "nothing.npy: cannot open" $ab --d nothing.npy
bad "unknown unit" --a x.safetensors --b w.safetensors --d d.npy --unit sm_120:nothing
bad "without --beta" $ab --d d.npy --c c.npy
bad "needs --c" $ab --d d.npy --beta 1
bad "C must have shape" $ab --d d.npy --beta 1 --c x.npy
bad "unknown accumulation model" $ab --d d.npy --accumulation wrong
bad "was made from 16 x 128" $ab --d d.npy --a-source w.npy
bad "is dense" --a x.npy --b w.npy --unit sm_90:wgmma.k16.f32.bf16 --d dense.npy --a-source x.npy
bad "leave --out away" $ab --d d16.safetensors --out f16
"$nvfp4" check --help >out.txt || say "no --help"
grep -qF "Example: nvfp4 check" out.txt || say "--help has no example"

# a quantizer's bytes
good check --quantized w.safetensors --source w.npy
grep -qF "equal: all 1024 codes, all 64 scales" out.txt || say "no 'equal' in: $(cat out.txt)"
good quantize w.npy -o other.safetensors --convention modelopt
good check --quantized other.safetensors --source w.npy --json
grep -qF '"equal":true' out.txt || say "no equal in: $(cat out.txt)"
differs "amax-as-stored" --quantized w.safetensors --source w.npy --global-amax 0.001
bad "needs --source" --quantized w.safetensors
bad "expected one of" --quantized w.safetensors --source w.npy --convention nvfp5
bad "was made from" --quantized w.safetensors --source x.npy

finish "all checks of nvfp4 check passed"
