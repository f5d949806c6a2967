#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fuzz_build.sh SOURCE_ROOT CLANG FOLDER: compiles what the fuzzers read files with, once, under ASan and UBSan, and links
# FOLDER/fuzz_TARGET for each of them.
set -euo pipefail
root=$1 clang=$2 folder=$3
cd "$root"
sources=(golden/io/*.cpp golden/{text,verify,verify_quantize,quantize_case,quantized_file}.cpp
  golden/checkpoint/{checkpoint,container,decode,gguf,inspect,inspect_together,mapped_file,weight}.cpp
  emulator/quantize/*.cpp emulator/gemm/gemm_oracle.cpp emulator/cpu/isa.cpp emulator/oracle/oracle.cpp
  emulator/formats/conversion.cpp emulator/tensorcore/{catalogue,products}.cpp emulator/nearest.cpp)
rm -rf "$folder"
mkdir -p "$folder/objects" "$folder/include"
ln -s "$root" "$folder/include/nvfp4"
flags=(-std=c++20 -g -O1 -ffp-contract=off -I"$folder/include" -fsanitize=address,undefined -fno-sanitize-recover=all)
# ISA-specific files need their flags; they do nothing here without them. Without -fopenmp loops run on one thread, and only
# the functions of OpenMP are linked.
printf '%s\n' "${sources[@]}" tests/golden/fuzz/fuzz_*.cpp | xargs -P "$(nproc)" -I{} sh -c \
  "$clang"' '"${flags[*]}"' -fsanitize=fuzzer-no-link -c {} -o '"$folder"'/objects/$(echo {} | tr / _).o'
mkdir "$folder/targets"
mv "$folder"/objects/tests_golden_fuzz_* "$folder/targets"
ar rcs "$folder/readers.a" "$folder"/objects/*.o
for target in tests/golden/fuzz/fuzz_*.cpp; do
  "$clang" "${flags[@]}" -fsanitize=fuzzer "$folder/targets/$(tr / _ <<<"$target").o" "$folder/readers.a" -lcrypto -lgomp \
    -o "$folder/$(basename "$target" .cpp)"
done
