#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# front_end_test.sh NVFP4 ROOT: what a person meets before any arithmetic: misspelt names, completion, manual pages, version,
# colour, pipes, several tensors at once, recipes, import.
root=$(realpath "$2")
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
has() { grep -qE -- "$1" out.txt || say "no '$1' in: $(head -5 out.txt)"; }
same() { cmp -s "$1" "$2" || say "$1 and $2 differ"; }

x=$root/golden/vectors/hardware/rtx5080/o_proj_activation.safetensors
unit=sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16
good quantize "$x" -o x.safetensors --convention te

# misspelt
bad "there is no verb 'quantise' (did you mean 'quantize'" quantise
bad "there is no verb 'gmem' (did you mean 'gemm'?)" gmem
bad "there is no verb 'xyzzy' (see nvfp4 --help)" xyzzy
bad "golden: there is no verb 'verfy' (did you mean 'verify'?)" golden verfy
bad "quantize: there is no option '--conventon' (did you mean '--convention'?)" quantize x.safetensors -o y.safetensors --conventon te
bad "there is no option '--jsn' (did you mean '--json'?)" info --jsn
bad "rwo not in {row,col} (did you mean 'row'?)" quantize "$x" -o y.safetensors --convention te --axis rwo
bad "unknown quantization convention 'torcho' (did you mean 'torchao'" quantize "$x" -o y.safetensors --convention torcho
bad "unknown unit 'RTX509' (did you mean 'RTX 5090'" gemm x.safetensors x.safetensors -o d.npy --unit RTX509
bad "as in H100:bf16" gemm x.safetensors x.safetensors -o d.npy --unit H100
bad "unknown conversion 'cvt.rn.satfinite.e4m3x2.f23' (did you mean 'cvt.rn.satfinite.e4m3x2.f32'" convert "$x" -o y.safetensors --cvt cvt.rn.satfinite.e4m3x2.f23
bad "unknown recipe 'chn' (did you mean 'chon'?)" recipe show chn
bad "did you mean 'qwen3'" train --model qwen4 --size tiny --recipe nvfp4 --data task:copy --out run
bad "no unit has it in its name" info --units --match nothing
bad "no convention has it in its name" info --conventions --match nothing --json
bad "no conversion has it in its name" info --conversions --match nothing
bad "no golden file matches" golden list --dir "$root/golden" --match nothing

# products are units
good gemm x.safetensors x.safetensors -o d.npy --unit $unit
good gemm x.safetensors x.safetensors -o e.npy --unit "GeForce RTX 5090" --json
has "\"unit\":\"$unit\""
same d.npy e.npy
good info --products --match Spark
has '^DGX Spark +sm_121 +nvfp4, mxfp4'

# standard input and output
"$nvfp4" quantize - -o - --convention te <"$x" >y.safetensors || say "quantize - -o -"
same x.safetensors y.safetensors
"$nvfp4" quantize - -o - --convention te <"$x" | "$nvfp4" gemm - x.safetensors --unit $unit -o - >e.safetensors || say "a pipe of quantize and gemm"
good compare d.npy e.safetensors
"$nvfp4" dequantize - -o - <x.safetensors | "$nvfp4" compare - x.safetensors >out.txt || say "dequantize - -o -: $(cat out.txt)"
bad "standard output cannot carry the file and --json" quantize "$x" -o - --convention te --json

# recipes
good recipe list
[ "$(wc -l <out.txt)" -eq 39 ] || say "recipe list has $(wc -l <out.txt) lines"
good recipe list --json
for recipe in $("$nvfp4" recipe list | cut -d' ' -f1); do
  "$nvfp4" recipe show "$recipe" >mine || say "recipe show $recipe"
  good recipe check mine
  "$nvfp4" recipe show "$recipe" --full >full.json || say "recipe show $recipe --full"
  "$nvfp4" recipe show ./mine >again.json || say "recipe show of a file"
  same full.json again.json
done
has "fprop block-scaled x block-scaled"
"$nvfp4" recipe show mxfp8 --full >full.json || say "recipe show mxfp8"
good recipe check full.json
has "fprop mxfp8 x mxfp8"
sed 's/"te"/"tee"/' full.json | sed 's/mxfp8-e4m3"/mxfp8-e4m4"/' >wrong.json
bad "unknown quantization convention 'mxfp8-e4m4'" recipe check wrong.json
bad "expected JSON" recipe check x.safetensors
bad "cannot open" recipe check chon

# several tensors, from a checkpoint whose words are then imported again
good train --model gla --size tiny --recipe bf16 --data task:copy --steps 1 --batch 1 --sequence 32 --out run
good quantize run/checkpoint.safetensors --tensor 'model.*.mlp.up_proj.weight' -o quantized/ --convention modelopt --json
[ "$(wc -l <out.txt)" -eq 4 ] || say "several tensors gave $(wc -l <out.txt) lines of JSON: $(cat err.txt)"
layer=model.layers.2.mlp.up_proj.weight
good quantize run/checkpoint.safetensors --tensor $layer -o one.safetensors --convention modelopt
same one.safetensors quantized/$layer.safetensors
good convert run/checkpoint.safetensors --tensor 'model.*.mlp.up_proj.weight' -o eights.safetensors --cvt cvt.rn.satfinite.e4m3x2.f32 --json
[ "$(wc -l <out.txt)" -eq 4 ] || say "convert of several tensors gave $(wc -l <out.txt) lines of JSON"
good convert run/checkpoint.safetensors --tensor $layer -o eight.safetensors --cvt cvt.rn.satfinite.e4m3x2.f32
good compare eight.safetensors eights.safetensors --b-tensor $layer
good dequantize quantized/*.safetensors -o values/ --json
[ "$(wc -l <out.txt)" -eq 4 ] || say "dequantize of several files gave $(wc -l <out.txt) lines of JSON"
good dequantize one.safetensors -o value.safetensors
same value.safetensors values/$layer.safetensors
mkdir -p other && cp one.safetensors other/
bad "two of the files given would be written to" dequantize one.safetensors other/one.safetensors -o twice/
[ ! -e twice/one.safetensors ] || say "dequantize wrote a file before it refused"
bad "is like '*.nothing'" quantize run/checkpoint.safetensors --tensor '*.nothing' -o none/ --convention te
bad "expected one '*'" quantize run/checkpoint.safetensors --tensor '*.*' -o none/ --convention te
bad "several tensors go into a folder" quantize run/checkpoint.safetensors --tensor '*.weight' -o one.safetensors --convention te

# import
good import one.safetensors --codes codes --scales block_scales --global global_decode_scale --global-is decode --convention modelopt -o i.safetensors --json
has '"rows":384,"k":128,"convention":"modelopt"'
"$nvfp4" compare one.safetensors i.safetensors >out.txt # the amax was not given, and is NaN
has "^differ: 1 of 6 tensors, 1 of .* of 'global_amax': "
good import one.safetensors --codes codes --scales block_scales --global global_amax --global-is amax --convention modelopt -o i.safetensors
good compare one.safetensors i.safetensors
good import x.safetensors --codes codes --scales block_scales --global 0.25 --global-is amax --convention te -o i.safetensors
good compare x.safetensors i.safetensors
good import x.safetensors --codes 'code*' --scales 'block_scale*' --global 0.25 --global-is amax --convention te -o imported/
good compare x.safetensors imported/s.safetensors
bad "decodes with amax" import x.safetensors --codes codes --scales block_scales --global 0.25 --global-is decode --convention te -o i.safetensors
bad "needs --global-is" import x.safetensors --codes codes --scales block_scales --global 0.25 --convention te -o i.safetensors
bad "has no tensor 'block_scale' (did you mean 'block_scales'?)" import x.safetensors --codes codes --scales block_scale --global 1 --global-is amax --convention te -o i.safetensors
bad "has no tensor 'scales'" import x.safetensors --codes codes --scales scales --global 1 --global-is amax --convention te -o i.safetensors
bad "are they linear?" import x.safetensors --codes codes --scales block_scales --scale-layout 128x4 --global 1 --global-is amax --convention te -o i.safetensors

# version, colour
good --version
has '^nvfp4 [0-9.]+ \(commit [0-9a-z-]+\)$'
has '^compiler: (gcc|clang) '
has '^instruction sets: scalar'
has '^CUDA: '
if command -v script >/dev/null; then
  script -qec "TERM=xterm '$nvfp4' compare x.safetensors i.safetensors" /dev/null </dev/null >out.txt
  grep -q $'\033\[32mequal: ' out.txt || say "no green on a terminal: $(cat -v out.txt)"
  NO_COLOR=1 script -qec "TERM=xterm '$nvfp4' compare x.safetensors i.safetensors" /dev/null </dev/null >out.txt
  ! grep -q $'\033' out.txt || say "colour in spite of NO_COLOR"
fi
good compare x.safetensors i.safetensors
! grep -q $'\033' out.txt || say "colour without a terminal"

# completion: what the scripts ask, and the one for bash itself
expect_words() { # EXPECTED WORDS...
  local expected=$1
  shift
  got=$("$nvfp4" completion words -- "$@" | tr '\n' ' ')
  [ "$got" = "$expected" ] || say "completion of '$*': '$got' instead of '$expected'"
}
expect_words "golden " go
expect_words "list verify generate capture training " golden ""
expect_words "--axis " quantize x --ax
expect_words "row col " quantize --axis ""
expect_words "te te213 te-4over6 te-4over6-mse tetrajet-v2 " quantize x --convention te
expect_words "H100:fp8 H100:fp8-e5m2 H100:bf16 H100:fp16 H100:tf32 H100:fp64 " gemm --unit H100:
expect_words "chon " recipe show ch
expect_words "chon " train --recipe ch
expect_words "" quantize x.n
for shell in bash zsh fish; do good completion $shell; done
"$nvfp4" completion bash >complete.bash
cat >ask.bash <<'ASK'
source ./complete.bash
ask() { COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=(); _nvfp4; printf '%s|' "${COMPREPLY[@]}"; echo; }
ask "nvfp4 gol"
ask "nvfp4 gemm --unit H100:b"
ask "nvfp4 gemm --unit sm_90:wgmma.k16.f32."
ask "nvfp4 mma --unit DGX"
ASK
mkdir -p bin && ln -sf "$nvfp4" bin/nvfp4
PATH=$work/bin:$PATH bash ask.bash >out.txt
printf 'golden|\nbf16|\nwgmma.k16.f32.f16|wgmma.k16.f32.bf16|\n' >want.txt
head -3 out.txt | cmp -s - want.txt || say "bash completes otherwise: $(cat out.txt)"
tail -1 out.txt | grep -qF 'DGX\ Spark|' || say "bash does not quote a blank: $(tail -1 out.txt)"
for shell in zsh fish; do
  command -v $shell >/dev/null || continue
  "$nvfp4" completion $shell >complete.$shell
  $shell -n complete.$shell || say "$shell does not read its script"
done

# manual pages: one for every verb, which groff reads without a warning
good man --out man
for verb in $("$nvfp4" completion words -- "" | tr '\n' ' '); do [ -s "man/nvfp4-$verb.1" ] || say "no manual page of $verb"; done
[ -s man/nvfp4-golden-verify.1 ] || say "no manual page of golden verify"
"$nvfp4" man golden verify | cmp -s - man/nvfp4-golden-verify.1 || say "man prints another page than it writes"
bad "has no verb 'nothing'" man nothing
if command -v groff >/dev/null; then
  for page in man/*.1; do
    warnings=$(groff -man -ww -Tutf8 -z "$page" 2>&1)
    [ -z "$warnings" ] || say "groff about $page: $warnings"
  done
  groff -man -Tascii man/nvfp4-quantize.1 | sed 's/\x1b\[[0-9;]*m//g; s/.\x08//g' >out.txt
  has '--convention TEXT'
  has 'One of row, col'
fi
# no option of --help is missing
for verb in quantize gemm check import; do
  for option in $("$nvfp4" $verb --help | grep -oE -- '--[a-z][a-z-]+' | sort -u); do
    grep -qF -- "${option//-/\\-}" "man/nvfp4-$verb.1" || say "the page of $verb lacks $option"
  done
done

finish "the front end helps"
