#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# checkpoint_test.sh NVFP4: inspect and export from the command line: exit codes, messages, nothing left of what failed.
set -uo pipefail
nvfp4=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0
say() { echo "FAILED: $*"; failures=$((failures + 1)); }
# ends CODE PATTERN ARGS...: the exit code, and a pattern in what it prints
ends() {
  local code=$1 pattern=$2
  shift 2
  "$nvfp4" "$@" >out.txt 2>err.txt
  local got=$?
  [ $got -eq "$code" ] || say "exit $got instead of $code: nvfp4 $*: $(head -1 err.txt)"
  grep -qF -- "$pattern" out.txt err.txt || say "no '$pattern' from nvfp4 $*: $(cat out.txt err.txt)"
  [ "$code" -ne 2 ] || [ "$(wc -l <err.txt)" -eq 1 ] || say "not one line from nvfp4 $*: $(cat err.txt)"
}
# header TEXT: the eight bytes of its length and the text itself, the start of a .safetensors file
header() { printf "\\x$(printf %02x $((${#1} & 255)))\\x$(printf %02x $((${#1} >> 8)))\0\0\0\0\0\0%s" "$1"; }

mkdir bf16
{
  header '{"a.q_proj.weight":{"dtype":"BF16","shape":[4,64],"data_offsets":[0,512]},"norm.weight":{"dtype":"BF16","shape":[2],"data_offsets":[512,516]}}'
  for i in {0..63}; do printf "$(printf '\\x%02x\\x3d\\x00\\xbf\\x%02x\\xbc\\0\\0' $((i * 3)) $((i * 2)))"; done
  printf '\x80\x3f\x80\x3f'
} >bf16/model.safetensors
echo '{"model_type":"qwen3"}' >bf16/config.json

ends 0 "nothing wrong found in 2 weights" inspect bf16
for to in modelopt compressed-tensors; do
  ends 0 "1 quantized" export bf16 -o $to --to $to --convention te
  ends 0 "bytes of te" inspect $to --against bf16 --convention te
  ends 0 '"wrong":0' inspect $to --json
  ends 1 "does not give its bytes" inspect $to --against bf16 --convention ggml
  ends 2 "exists already" export bf16 -o $to --to $to
done
ends 0 "1 weights carried" export modelopt -o m.gguf --to gguf
ends 0 "GGUF version 3" inspect m.gguf
ends 0 "1 weights carried" export m.gguf -o back --to modelopt
cmp -s back/model.safetensors modelopt/model.safetensors || say "modelopt, GGUF and back is another file"
ends 0 "1 dequantized" export compressed-tensors -o dense --to hf-bf16
ends 0 "SNR" inspect modelopt --against dense

# the global scale's reciprocal
python3 - <<'P' 2>/dev/null && ends 1 "its reciprocal would be plausible" inspect damaged.safetensors
import struct
file = bytearray(open("modelopt/model.safetensors", "rb").read())
at = 8 + struct.unpack("<Q", file[:8])[0] # the one F32 stands first
file[at:at + 4] = struct.pack("<f", 1 / struct.unpack("<f", file[at:at + 4])[0])
open("damaged.safetensors", "wb").write(file)
P
head -c 300 modelopt/model.safetensors >cut.safetensors
ends 2 "cut.safetensors" inspect cut.safetensors
head -c 100 m.gguf >cut.gguf
ends 2 "cut short or damaged" inspect cut.gguf
ends 2 "cannot open" inspect nothing
ends 2 "none of the 2 tensors" inspect bf16 --tensor 'x*'
ends 2 "needs --against" inspect bf16 --convention te
ends 2 "does not hold" export bf16 -o new --to modelopt --convention mxfp4
ends 2 "no matrix of numbers has such a name" export bf16 -o new --to modelopt --convention te --tensor 'zzz'
ends 2 "cannot write" export bf16 -o nowhere/new --to modelopt
[ ! -e new ] && [ -z "$(ls | grep partial)" ] || say "something is left of what failed: $(ls)"
[ $failures -eq 0 ] && echo "checkpoints: all as expected"
exit $((failures > 0))
