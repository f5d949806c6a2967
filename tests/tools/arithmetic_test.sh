#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# arithmetic_test.sh NVFP4_ARITHMETIC ROOT: the program without models links, computes, and speaks under its own name.
root=$(realpath "$2")
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
has() { grep -qE -- "$1" out.txt || say "no '$1' in: $(head -5 out.txt)"; }

good golden verify --dir "$root/golden" --kind quantize --match torchao
has "^quantize .* 0$"
x=$root/golden/vectors/hardware/rtx5080/o_proj_activation.safetensors
good quantize "$x" -o x.safetensors --convention te
good gemm x.safetensors x.safetensors -o d.npy --unit "GeForce RTX 5090"
good --version
has '^nvfp4-arithmetic [0-9]'
good --help
has '^nvfp4-arithmetic: '
good golden --help
! grep -qiE 'GPU|capture' out.txt || say "golden --help offers a capture: $(grep -iE 'GPU|capture' out.txt)"
for verb in train capture; do # verbs of nvfp4 alone
  bad "nvfp4-arithmetic: there is no verb '$verb'" $verb
done
bad "nvfp4-arithmetic: missing.safetensors: cannot open" quantize missing.safetensors -o y.safetensors --convention te
finish "arithmetic: all good"
