#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# compare_test.sh NVFP4 ROOT: nvfp4 compare on quantized tensors, products, logs and bad input: verdict, place, exit code.
root=$(realpath "$2")
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
# expect CODE PATTERN ARGS...: exit code, and a first line that has the pattern
expect() {
  local code=$1 pattern=$2
  shift 2
  "$nvfp4" compare "$@" >out.txt 2>err.txt
  local got=$?
  [ $got -eq "$code" ] || say "exit $got instead of $code: compare $*: $(cat err.txt)"
  head -1 out.txt err.txt | grep -qE -- "$pattern" || say "no '$pattern' in: $(head -1 out.txt) $(cat err.txt)"
  if [ "$code" -eq 2 ]; then [ "$(wc -l <err.txt)" -eq 1 ] || say "$(wc -l <err.txt) lines on stderr: compare $*"; fi
}
x=$root/golden/vectors/hardware/rtx5080/o_proj_activation.safetensors
"$nvfp4" quantize "$x" -o te.safetensors --convention te
"$nvfp4" quantize "$x" -o tiled.safetensors --convention te --scale-layout 128x4
"$nvfp4" quantize "$x" -o vllm.safetensors --convention fouroversix
"$nvfp4" dequantize te.safetensors -o te.npy
expect 0 '^equal: all 135171 elements of 6 tensors$' te.safetensors te.safetensors
expect 0 '^equal: ' te.safetensors tiled.safetensors
grep -q 'scale_layout: "linear" against "128x4"' out.txt || say "metadata are not listed: $(cat out.txt)"
expect 1 "^differ: .*first at row [0-9]+, column [0-9]+ of 'codes': " te.safetensors vllm.safetensors
expect 0 '^equal: all 65536 elements$' te.safetensors te.npy
expect 0 '^equal: ' - te.npy <te.safetensors
cp te.npy changed.npy
printf '\x01' | dd of=changed.npy bs=1 seek=$((128 + 4 * (4096 * 3 + 7))) conv=notrunc 2>/dev/null
expect 1 "^differ: 1 of 65536 elements; first at row 3, column 7 of 'data': " te.npy changed.npy
"$nvfp4" compare te.npy changed.npy --json >out.txt
grep -q '"differing":1,.*"first":{"index":\[3,7\],' out.txt || say "--json lacks the place: $(cat out.txt)"
[ "$(wc -l <out.txt)" -eq 1 ] || say "--json is not one line"
printf '{"step":1,"loss":2.5}\n' >a.jsonl
printf '{"step":1,"loss":2.25}\n' >b.jsonl
expect 1 "^differ: 1 of 2 values, first in line 1, 'loss': 2.5 against 2.25$" a.jsonl b.jsonl
expect 2 'nothing.npy: cannot open' nothing.npy te.npy
expect 2 'expected two files of one kind' a.jsonl te.npy
expect 2 'is a folder' . te.npy
expect 2 "expected two files of one kind" a.jsonl /dev/null
printf '[%.0s' $(seq 80000) >deep.jsonl
expect 2 'got deeper ones' a.jsonl deep.jsonl
finish "compare finds what was planted"
