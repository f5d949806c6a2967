#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fuzz_test.sh SOURCE_ROOT TARGET SECONDS FOLDER: runs one libFuzzer target that fuzz_build.sh left in FOLDER, from its corpus.
set -euo pipefail
root=$1 target=$2 seconds=$3 folder=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/corpus"
"$folder/fuzz_$target" -max_total_time="$seconds" -max_len=8192 -timeout=20 -print_final_stats=1 "$work/corpus" \
  "$root/tests/golden/fuzz/corpus/$target" 2>"$work/log" || { tail -n 40 "$work/log"; exit 1; }
grep -E "stat::number_of_executed_units|DONE" "$work/log" | tail -2
