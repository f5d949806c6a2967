#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# readme_numbers_test.sh NVFP4 SOURCE_ROOT: the numbers that the documents state about units, presets, golden files and
# the evidence of runs, against the program, the manifest and the files of golden/evidence. A sentence that is no longer
# there fails as well.
set -euo pipefail
nvfp4=$(realpath "$1") root=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
failures=0
say() { echo "FAILED: $*"; failures=$((failures + 1)); }

# claim FILE TEXT NUMBER...: the file says TEXT, in which each @ is a number with or without commas: these numbers
claim() {
  local file=$1 text=$2 pattern lines said
  shift 2
  pattern=$(sed -e 's/[][\.*^$+?(){}|/]/\\&/g' -e 's/@/([0-9][0-9,]*)/g' <<<"$text")
  lines=$(grep -oE "$pattern" "$file" | sort -u) || { say "$file no longer says '$text'"; return; }
  while IFS= read -r said; do
    said=$(sed -nE "s/$pattern/$(for i in $(seq $#); do printf '\\%d ' "$i"; done)/p" <<<"$said" | tr -d ,)
    [ "${said% }" = "$*" ] || say "$file says '$text' with ${said% }; it is $*"
  done <<<"$lines"
  printf '%s\n' "$file" "$@" >>"$work/claimed"
}
# fields KEY...: of JSON with one field a line, a line of values per object; KEY that ends it last
fields() {
  awk -v keys="$*" 'BEGIN {n = split(keys, key, " ")}
    {k = $0; sub(/^ *"/, "", k); sub(/":.*/, "", k); v = $0; sub(/^[^:]*: /, "", v); gsub(/^"|"?,?$/, "", v)}
    {for (i = 1; i <= n; i++) if (k == key[i]) {value[i] = v; if (i == n) {line = value[1]; for (j = 2; j <= n; j++) line = line "\t" value[j]; print line}}}'
}
count() { grep -cE "$1" "$2" || true; }

# ---- units and presets: what the program says
"$nvfp4" info --units --json | fields unit evidence >"$work/units"
"$nvfp4" info --conventions --json | fields convention evidence >"$work/presets"
units=$(wc -l <"$work/units")
[ "$units" -gt 0 ] || say "no units"
claim README.md "@ units; \`nvfp4 info --units\` lists each" "$units"
claim gpu/README.md "all @ units, the exact GEMM" "$units"

# row START FILTER: the row of README.md that starts so states how many units of the filter have each evidence
row() {
  local start=$1 filter=$2 said want
  said=$(awk -F' [|] ' -v start="| $start" 'index($0, start) == 1 {print $2}' README.md)
  want="$(count "^($filter).*hardware$" "$work/units"), $(count "^($filter).*published$" "$work/units"), $(count "^($filter).*inferred$" "$work/units")"
  [ "$said" = "$want" ] || say "README.md's row '$start' says '$said' units; there are $want"
  grep -E "^($filter)" "$work/units" >>"$work/in_rows" || say "no unit '$filter'"
}
row "sm_70 (V100)" sm_70:
row "sm_75 (T4)" sm_75:
row "sm_80, 86 (A100, A2)" "sm_80:|sm_86:"
row sm_87 sm_87:
row "sm_89 (Ada)" sm_89:
row "**sm_90 (H100, H200)**" sm_90:
row "sm_100 (B200): mma" sm_100:mma
row "sm_100: tcgen05" sm_100:tcgen05
row "sm_103, 110" "sm_103:|sm_110:"
row "sm_120 (RTX 50)" sm_120:
row sm_121 sm_121:
row exact exact:
claim README.md "@ exact sums with one rounding" "$(count '^exact:.*defined$' "$work/units")"
diff <(sort "$work/units") <(sort "$work/in_rows") >/dev/null || say "the rows of README.md's table of architectures do not cover every unit once"

# every preset has its row in README.md, with the evidence that the program states
awk '/^[|] preset [|]/ {on = 1; next} on && !/^[|]/ {exit} on && !/---/' README.md >"$work/table"
while IFS=$'\t' read -r preset evidence; do
  said=$(awk -F' [|] ' -v name="\`$preset\`" 'index($1, name) {sub(/ [|]$/, "", $3); print $3}' "$work/table")
  [[ -n $said && ($said == "$evidence" || $said == "$evidence "* || $said == "$evidence;"*) ]] ||
    say "README.md's table of presets says '$said' for $preset; the program says $evidence"
done <"$work/presets"
x=golden/vectors/hardware/rtx5080/o_proj_activation.safetensors
while read -r preset; do
  "$nvfp4" quantize $x -o "$work/q.safetensors" --convention "$preset" 2>"$work/err" ||
    say "README.md's table of presets has $preset: $(head -n 1 "$work/err")"
done < <(cut -d'|' -f2 "$work/table" | grep -oE '`[^`]+`' | tr -d '`')

# ---- golden files: what the manifest lists
fields file kind subject provenance cases <golden/manifest.json >"$work/files"
golden() { awk -F'\t' -v kind="$1" -v from="$2" '$2 == kind && $4 == from {files++; cases += $5} END {print files + 0, cases + 0}' "$work/files"; }
read -r mma cases <<<"$(golden mma hardware)"
read -r converted _ <<<"$(golden convert hardware)"
read -r digests _ <<<"$(golden convert-digest hardware)"
read -r vendor _ <<<"$(golden convert vendor-software)"
read -r vendor_digests _ <<<"$(golden convert-digest vendor-software)"
read -r _ published <<<"$(golden mma published)"
classes=$(for f in golden/vectors/hardware/h200/*mma*.txt; do awk '!/^#/ && !/^probe/ {seen[$1]} END {n = 0; for (c in seen) n++; print n}' "$f"; done | sort -n)
claim README.md "@ instructions of them captured on a real H200" "$mma"
claim README.md "of the @ FP32 conversions that sm_90 has" "$digests"
claim README.md "of the @ that CUDA 13.0's headers offer" "$vendor_digests"
claim emulator/README.md "of the @ conversions that CUDA 13.0's headers offer on the host, and all 2^32 inputs of the @ that sm_90 executes" "$vendor_digests" "$digests"
claim golden/README.md "2026-11-22: @ matrix units" "$mma"
claim golden/README.md "@ to @ input classes each" "$(head -n 1 <<<"$classes")" "$(tail -n 1 <<<"$classes")"
claim golden/README.md "@ conversions, @ of them with digests" "$converted" "$digests"
claim golden/README.md "@ conversions around every boundary, digests over all 2^32 inputs for the @ that take FP32" "$vendor" "$vendor_digests"
# cases of a B200 with random operands have numbers or kinds for names, the others say what they are about
random='^((nvfp4|mxf4nvf4|mxf4|mxf8f6f4|tf32|f16|bf16|e[0-9]m[0-9])-([0-9]x?|e2m1)|nvfp4-k4-product-carry) '
drawn=$(cat golden/vectors/published/b200/* | grep -cE "$random" || true)
drawn_fp4=$(cat golden/vectors/published/b200/*k64* | grep -cE "$random" || true)
fp4=$(awk -F'\t' '$4 == "published" && $3 ~ /k64/ {n += $5} END {print n + 0}' "$work/files")
claim golden/README.md "@ random cases, @ of them of mxf4 and mxf4nvf4, and @ about zeros, subnormals, Inf and NaN, @ of them of mxf4nvf4" \
  "$drawn" "$drawn_fp4" $((published - drawn)) $((fp4 - drawn_fp4))
# the lengths of the arrays of losses
steps() { awk '/"loss_hex"/ {n = 0; on = 1; next} on && /\]/ {print n; on = 0} on {n++}' "$@" | sort -u; }
words=(zero one two three four five six seven eight nine ten)
claim emulator/README.md "there are ${words[$fp4]} words of a B200 (@ of random operands, one of a NaN scale; and @ of random operands in its other formats)" \
  "$drawn_fp4" $((drawn - drawn_fp4))
claim golden/README.md "has the first @ steps of each family under every built-in recipe, \`h200/training/gla-RECIPE.json\` @ steps" \
  "$(steps golden/training/*.json)" "$(steps golden/h200/training/*.json)"
claim golden/README.md "\`mixers/training/FAMILY.json\` @ steps of each" "$(steps golden/mixers/training/*.json)"
claim gpu/models/README.md "\`golden/h200/training\` holds ${words[$(ls golden/h200/training | wc -l)]} of the @-step runs" "$(steps golden/h200/training/*.json)"

# ---- evidence: sums over what the runs printed
peak() { awk -v what="$1" 'index($0, what) == 1 {for (i = 1; i < NF; i++) if ($(i + 1) == "MB") print $i}' golden/evidence/pretrained-memory.txt | sort -n | tail -n 1; }
claim reference_models/pretrained/README.md "at most [@ MB](../../golden/evidence/pretrained-memory.txt) in \`forward\`, @ MB in \`generate\` under \`te\` and @ MB under \`bf16\`" \
  "$(peak forward)" "$(peak 'generate --preset te')" "$(peak 'generate --recipe bf16')"
# total FILE PATTERN WORD: the numbers behind WORD in lines that match
total() { awk -v pattern="$2" -v word="$3" '$0 ~ pattern && /mismatches 0/ {for (i = 1; i < NF; i++) if ($i == word) n += $(i + 1)} END {printf "%.0f\n", n}' "golden/evidence/$1"; }
lines() { count "$2" "golden/evidence/$1"; }
outputs=$(total h200-check-units.txt "^sm_90:" outputs)
claim README.md "all @, run on an H200: @ outputs, no mismatch**; @ of them stored" "$mma" "$outputs" "$cases"
claim emulator/README.md "@ output words over all @ matrix instructions of an H200" "$outputs" "$(lines h200-check-units.txt '^sm_90:.*mismatches 0')"
claim gpu/README.md "@ outputs](../golden/evidence/h200-check-units.txt)" "$outputs"
rows=$(grep -oE '^V100 .*rows=[0-9]+' golden/evidence/matlab-tensor-core.txt | sed 's/.*rows=//' | awk '{n += $1} END {print n}')
claim README.md "hardware: @ public output rows" "$rows"
claim emulator/README.md "@ rows for each of ${words[$(grep -v '^#' golden/evidence/matlab-tensor-core.txt | cut -d' ' -f1 | sort -u | wc -l)]} GPUs" "$(grep -oE 'rows=[0-9]+' golden/evidence/matlab-tensor-core.txt | sort -u | cut -d= -f2)"
hopper=$(total h200-hopper-gemm.txt . outputs)
claim gpu/README.md "@ outputs](../golden/evidence/h200-hopper-gemm.txt)" "$hopper"
claim gpu/hopper/README.md "@ GEMMs (six instructions x twelve cases, up to 8192 x 8192 x 8192 in full), @ outputs" "$(lines h200-hopper-gemm.txt ' outputs .*mismatches 0')" "$hopper"
attention=$(sed -nE 's/.*wrong: o 0 o32 0 .* of ([0-9]+),.*/\1/p' golden/evidence/h200-attention.txt | awk '{n += $1} END {printf "%.0f\n", n}')
claim gpu/README.md "[@](../golden/evidence/h200-attention.txt)" "$attention"
other=$(sed -nE 's/^nvfp4-gpu quantize: .* mismatches ([0-9]+) .*first: fp8-token .*/\1/p' golden/evidence/h200-merged-2026-11-30.txt)
claim gpu/README.md "on 2026-11-30 @ words under \`fp8-token\` were not the CPU's" "$other"
claim gpu/README.md "differs in the same @ words" "$other"
claim gpu/hopper/ATTENTION.md "@ cases, lengths" "$(lines h200-attention.txt 'wrong: o 0 ')"
claim gpu/hopper/ATTENTION.md "(forward): @ words, 0 mismatches" "$attention"
read -r gla_cases gla_words <<<"$(sed -nE 's/^([0-9]+) cases, ([0-9]+) words, 0 mismatches$/\1 \2/p' golden/evidence/h200-hopper-gla.txt)"
claim gpu/README.md "[@](../golden/evidence/h200-hopper-gla.txt)" "$gla_words"
claim gpu/hopper/GLA.md "@ cases, lengths" "$gla_cases"
claim gpu/hopper/GLA.md "everything that is stored: @ words, 0 mismatches" "$gla_words"
order=$(sed -nE 's/.*In all ([0-9,]+) runs, ([0-9,]+) outputs, 0 unexplained.*/\2 \1/p' golden/evidence/h200-cublaslt-order.txt | tr -d ,)
# shellcheck disable=SC2086 # two numbers
claim gpu/README.md "@ outputs of @ algorithm runs" $order
# shellcheck disable=SC2086
claim gpu/hopper/README.md "@ outputs of @ runs, 0 unexplained" $order
twin=h200-crosscheck.txt
claim gpu/emulated/README.md "matrix instructions: @ units" "$(awk '/^mma .*mismatches 0/ {n += $3} END {print n}' golden/evidence/$twin)"
claim gpu/emulated/README.md "FP4 units under 3 models: @ outputs" "$(total $twin '^mma ' values)"
claim gpu/emulated/README.md "quantization: @ conventions" "$(lines $twin '^quantize .*mismatches 0')"
claim gpu/emulated/README.md "all words): @ values in one run" "$(total $twin '^quantize ' values)"
claim gpu/emulated/README.md "@ kinds of operand in 8 shapes, @ outputs over every path" 7 "$(total $twin '^gemm .*(mmasim|nadpe|exact) ' values)"
claim gpu/emulated/README.md "every word (@); @ other units, @; epilogues, @" "$(total $twin '^gemm (4096|8192)' values)" \
  "$(lines $twin '^gemm sm_')" "$(total $twin '^gemm sm_' values)" "$(total $twin '^gemm epilogues' values)"
claim gpu/emulated/README.md "other units and epilogues: @ outputs" "$(total h200-hard-data.txt '^gemm (mma|tcgen05|sm_|epilogues|from|recorded|4096)' values)"
claim gpu/emulated/README.md "again with native units and parts, @ outputs" "$(awk '/^#/ {on = /gemm --large --recorded/} on && /^total/ {print $3; exit}' golden/evidence/h200-parts.txt)"
claim gpu/emulated/README.md "division by 1536: @ comparisons" "$(total $twin '^elements ' values)"
claim gpu/models/README.md "every kernel in five sizes: @ words" "$(total $twin '^kernels: ' values)"
claim gpu/models/README.md "two steps, four shapes: @ words" "$(total $twin '^linear: ' values)"

# ---- and no other number of this kind: one that a document states without a line above fails, but for what others report
# and what is shown by commands that the tours repeat
kinds="units|presets|conventions|conversions|cases|files|instructions|outputs|output words|words|comparisons|values|GEMMs"
while IFS=: read -r file _ text; do
  number=$(sed -E 's/^([0-9,]+).*/\1/' <<<"$text" | tr -d ,)
  case "$file: $text" in
    README.md:*"256 outputs" | README.md:*"1,000,000 NVFP4 cases" | emulator/README.md:*"353,593 NVFP4 cases") continue ;;
    reference_models/slice/README.md:*) continue ;;
    golden/diagnosis/README.md:*"2048 instructions") continue ;; # a bound of the search, no count
    gpu/emulated/README.md:*"128 outputs") continue ;;           # the size of a tile
    gpu/hopper/GLA.md:*"8,961,536 words") grep -q "(8961536 words)" golden/evidence/h200-hopper-gla.txt && continue ;;
  esac
  awk -v file="$file" -v number="$number" '/[a-z]/ {on = $0 == file; next} on && $0 == number {found = 1} END {exit !found}' "$work/claimed" ||
    say "$file states '$text', which nothing here checks"
done < <(find README.md emulator golden gpu reference_models tests tools -name '*.md' -print0 | xargs -0 grep -noE "[0-9][0-9,]{2,}\*{0,2} (FP32 |matrix |random |output |public |NVFP4 )?($kinds)")

[ $failures -eq 0 ] && echo "$(grep -cE '^[0-9]+$' "$work/claimed") numbers of $(grep -c '[a-z]' "$work/claimed") sentences are what the program and the files say"
exit $((failures > 0))
