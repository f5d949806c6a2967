#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fuzz_test.sh SOURCE_ROOT TARGET SECONDS CLANG: builds one libFuzzer target under ASan and UBSan and runs it from its corpus.
set -euo pipefail
root=$1 target=$2 seconds=$3 clang=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
sources=(golden/io/*.cpp golden/text.cpp)
case $target in
golden_text) sources+=(golden/verify.cpp golden/verify_quantize.cpp golden/quantize_case.cpp) ;&
checkpoint | block_scaled) sources+=(golden/quantized_file.cpp emulator/quantize/*.cpp emulator/gemm/gemm_oracle.cpp emulator/cpu/isa.cpp
  emulator/oracle/oracle.cpp emulator/formats/conversion.cpp emulator/tensorcore/{catalogue,products}.cpp emulator/nearest.cpp) ;;
esac
[ "$target" != checkpoint ] ||
  sources+=(golden/checkpoint/{checkpoint,container,decode,gguf,inspect,inspect_together,mapped_file,weight}.cpp)
mkdir "$work/objects" "$work/corpus" "$work/include"
ln -s "$root" "$work/include/nvfp4"
flags=(-std=c++20 -g -O1 -ffp-contract=off -I"$work/include" -fsanitize=address,undefined -fno-sanitize-recover=all)
# ISA-specific files need their flags; they do nothing here without them. Without -fopenmp loops run on one thread, and only
# the functions of OpenMP are linked.
printf '%s\n' "${sources[@]}" | sort -u | xargs -P "$(nproc)" -I{} sh -c \
  "$clang"' '"${flags[*]}"' -fsanitize=fuzzer-no-link -c {} -o '"$work"'/objects/$(echo {} | tr / _).o'
"$clang" "${flags[@]}" -fsanitize=fuzzer "tests/golden/fuzz/fuzz_$target.cpp" "$work"/objects/*.o -lcrypto -lgomp -o "$work/fuzz"
"$work/fuzz" -max_total_time="$seconds" -max_len=8192 -timeout=20 -print_final_stats=1 "$work/corpus" "tests/golden/fuzz/corpus/$target" \
  2>"$work/log" || { tail -n 40 "$work/log"; exit 1; }
grep -E "stat::number_of_executed_units|DONE" "$work/log" | tail -2
