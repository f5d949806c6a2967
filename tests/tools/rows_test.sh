#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# rows_test.sh NVFP4 SOURCE_ROOT: a format, a convention and a recipe are rows. Looks which files name some of them, which are those
# with the rows, and runs the worked example of reference_models/lab/README.md: a recipe file is in every list and table.
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
root=$2
source_files() { # PATTERN: those of the program's sources that have it; gpu/check tests
  (cd "$root" && grep -rlE "$1" emulator gpu golden reference_models tools \
    --include='*.cpp' --include='*.hpp' --include='*.cu' --include='*.cuh' --include='*.inc' --include='*.py' | grep -v '^gpu/check/' | sort | tr '\n' ' ')
}

# a convention: its row, and recipes that use it
"$nvfp4" info --conventions >conventions.txt
for name in ufp4 metis-nvfp4 ue5m3-graphcore quartet2-eden mxfp4-alto mxfp4-uos mxfp4-macro fouroversix-unbiased hif4-rne fouroversix-static; do
  found=$(source_files "\"$name\"")
  [ "${found/reference_models\/recipe\/variations.cpp /}" = "emulator/quantize/convention.cpp " ] || say "convention $name stands in $found"
  grep -q "^$name\b" conventions.txt || say "info --conventions has no $name"
  [ -f "$root/golden/vectors/quantize/$name.safetensors" ] || say "no golden vectors of $name"
  grep -qF "\`$name\`" "$root/README.md" || say "README.md has no $name"
done

# a format: its row, those of the oracle and of the inputs' generator, and of units and conventions
allowed=" emulator/formats/format.hpp emulator/oracle/oracle.cpp emulator/tensorcore/catalogue_rows.inc emulator/tensorcore/products.cpp \
emulator/quantize/convention.cpp golden/cases/element.cpp golden/cases/element.hpp golden/generate_quantize.cpp "
for format in int16 ue5m3g s1p2; do
  for file in $(source_files "\b$format\b" | tr ' ' '\n' | grep -vE '^(emulator/simd|tools/python)/'); do # there it is an intrinsic's, or NumPy's
    [[ $allowed == *" $file "* ]] || say "format $format stands in $file"
  done
  "$nvfp4" info --units --match "$format" | grep -q exact: || say "no exact unit of $format"
done

# a recipe: its row
"$nvfp4" recipe list >recipes.txt
for name in nvfp4-rht128 fp4-all-the-way metis-mean mxfp4-macro averis; do
  found=$(source_files "RecipeVariation\{\"$name\"")
  [ "$found" = "reference_models/recipe/variations.cpp " ] || say "recipe $name stands in $found"
  grep -q "^$name " recipes.txt || say "recipe list has no $name"
  grep -qF "\`$name\`" "$root/reference_models/recipe/README.md" || say "recipe/README.md has no $name"
done

# the worked example
awk '/^<!-- mine.json -->$/ {on = 1} on && /^[{]/ {json = 1} json {print} json && /^[}]/ {exit}' "$root/reference_models/lab/README.md" >mine.json
[ -s mine.json ] || say "lab/README.md has no mine.json"
good recipe check mine.json
grep -q "a recipe, 'mine'" out.txt || say "recipe check: $(cat out.txt)"
for i in $(seq 1 200); do echo "line $i says $((i * i % 97))"; done >text.txt
good lab --data text.txt --seeds 2 --draws 2 --batch 1 --sequence 16 --steps 4 --recipes nvfp4,mine.json --out lab
grep -qE "^[0-9]+ +mine " out.txt || say "no row of mine: $(cat out.txt)"
for measure in loss/mine gap/mine operand/mine/fprop.x/error product/mine/wgrad/bias gradient/mine/cosine cost/mine/bits.x preset/ufp4; do
  grep -qF "\"$measure" lab/lab.json || say "lab.json has no $measure"
done
finish "rows: all good"
