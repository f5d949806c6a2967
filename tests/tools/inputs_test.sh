#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What no verb may do with what it is given: write over it, crash on it, or start something that cannot end. Each case gives
# one line with the file or the option, exit code 2, within two seconds, and leaves every file as it was.
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
sums() { find . -type f ! -name '*.txt' -exec sha256sum {} + | sort; }
# bad PATTERN ARGS...
bad() {
  local before limit=20
  before=$(sums)
  refused "$@"
  grep -q 'json.exception\|filesystem error' err.txt && say "a library's message: $(cut -c-300 err.txt)"
  iconv -f UTF-8 -t UTF-8 err.txt >/dev/null 2>&1 || say "not UTF-8: nvfp4 $*"
  [ "$(sums)" = "$before" ] || say "changed a file: nvfp4 $*"
}

"$nvfp4" init -o c.safetensors >out.txt || say "init"
printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (16, 64), }" >x.npy
for i in $(seq 1 1024); do printf '\x00\x00\x80\x3f'; done >>x.npy
"$nvfp4" quantize x.npy -o q.safetensors --convention te || say "quantize"
printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 33), }" >t.npy
for i in $(seq 1 66); do printf "\\x$(printf %02x $((i * 37 % 256)))\\x00\\x00\\x00"; done >>t.npy
for i in $(seq 1 300); do echo "line $i says $((i * i % 97)) and $((i * 31337 % 1009))"; done >text
"$nvfp4" train --data text --steps 2 --batch 1 --sequence 16 --out run >out.txt 2>&1 || say "train: $(cat out.txt)"
ln -s c.safetensors link.safetensors
ln c.safetensors hard.safetensors
ln -s x.npy link.npy

# an output that is an input, by any name
for name in c.safetensors ./c.safetensors link.safetensors hard.safetensors "$PWD/c.safetensors"; do
  bad "would replace what --checkpoint reads" forward --checkpoint c.safetensors --tokens t.npy --dump "$name"
  bad "would replace what --checkpoint reads" record --checkpoint c.safetensors --data task:copy --step 1 -o "$name"
done
bad "would replace what --tokens reads" forward --checkpoint c.safetensors --tokens t.npy --dump t.npy
for name in x.npy link.npy; do
  bad "would replace what in reads" quantize x.npy -o $name --convention te
  bad "would replace what in reads" convert x.npy -o $name --cvt cvt.rn.satfinite.e4m3x2.f32
done
bad "would replace what in reads" dequantize q.safetensors -o q.safetensors
bad "would replace what b reads" gemm x.npy q.safetensors -o q.safetensors --unit sm_90:wgmma.k16.f32.bf16
bad "would replace what --c reads" gemm q.safetensors q.safetensors --c x.npy --beta 1 -o x.npy --unit sm_90:wgmma.k16.f32.bf16
bad "would replace what in reads" mma --unit sm_90:wgmma.k16.f32.bf16 q.safetensors -o q.safetensors
bad "would replace the data" record --checkpoint run/checkpoint.safetensors --step 3 -o text
for file in run.json log.jsonl checkpoint.safetensors diagnostics.jsonl; do
  bad "is a file of the run" report run -o run/$file
  bad "is a file of the run" log run --csv run/$file
done

# JSON nested deep, numbers beyond FP64, repeated keys, bytes that are no UTF-8: in every place where JSON is read
printf '[%.0s' $(seq 80000) >deep-list
printf '{"a":%.0s' $(seq 80000) >deep-object
echo '{"a": 1e400}' >large
echo '{"a": 1, "a": 2}' >twice
printf '{"a": "\xff"}' >bytes
for kind in deep-list deep-object large twice bytes; do
  cp $kind it.json
  case $kind in
    deep*) says="expected JSON of at most 64 objects and lists within each other" ;;
    large) says="expected numbers that FP64 can hold, got '1e400'" ;;
    twice) says="the key 'a' stands twice" ;;
    bytes) says="expected JSON" ;;
  esac
  bad "it.json: $says" train --recipe ./it.json --data task:copy --out new
  bad "it.json: $says" train --model ./it.json --data task:copy --out new
  bad "it.json: $says" init --model ./it.json -o new.safetensors
  bad "it.json: $says" experiment it.json
  bad "it.json: $says" bench --compare it.json
  for file in run.json log.jsonl; do
    rm -rf hurt
    cp -r run hurt
    cp $kind hurt/$file
    [ $file = log.jsonl ] && echo >>hurt/log.jsonl
    bad "$says" report hurt -o page.html
    bad "$says" train --resume --out hurt
  done
  rm -rf hurt golden
  mkdir -p golden/vectors
  cp $kind golden/manifest.json
  bad "manifest.json: $says" golden verify --dir golden
done
rm -f it.json

# sizes that no machine has, numbers of the command line's own JSON
bad "'layers' takes a whole number from 1 to 4096, got 2147483648" init --set layers=2147483648 -o new.safetensors
bad "at most 2^40 parameters" init --set hidden=2147483648 -o new.safetensors
bad "at most 2^40 parameters" init --set layers=4000,intermediate=2147483648 -o new.safetensors
bad "this machine has" init --set layers=4000,intermediate=500000 -o new.safetensors
bad "this machine has" train --data task:copy --batch 1048576 --sequence 1048576 --out new
bad "this machine has" train --data task:copy --batch 1048576 --accumulation 65536 --out new
bad "this machine has" eval --checkpoint c.safetensors --data task:copy --batch 1048576 --sequence 65536
bad "this machine has" record --checkpoint c.safetensors --data task:copy --batch 1048576 --sequence 65536 --step 1 -o new.safetensors
bad "--set 'layers=1e400'" init --set layers=1e400 -o new.safetensors
bad "--set 'layers=06'" init --set layers=06 -o new.safetensors
bad "length=N" train --data task:copy,length=010 --out new
bad "--batch" eval --checkpoint c.safetensors --data task:copy --batch 0
bad "--sequence" eval --checkpoint c.safetensors --data task:copy --sequence -5

# names that are not UTF-8, given or found
bad "expected names in UTF-8, got 'new\\xff.safetensors'" init -o $'new\xff.safetensors'
bad "expected names in UTF-8" train --data task:copy --out $'new\xff'
bad "expected names in UTF-8" quantize x.npy --tensor $'\xc3\x28' -o new.safetensors --convention te
mkdir many
cp -r run $'many/a\xff'
bad "many/a\\xff: expected a name in UTF-8" report many -o page.html
finish "inputs: all good"
