#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nvfp4 lab: every claim is measured by a lab of the built-in recipes, its page stands alone, a lab that was killed goes on to
# the same numbers, other options and damaged parts are refused in one line.
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
for i in $(seq 1 400); do echo "line $i says $((i * i % 97)) and $((i * 31337 % 1009))"; done >text.txt
few="--data text.txt --seeds 2 --draws 2 --batch 1 --sequence 16"

# shellcheck disable=SC2086 # several words
good lab $few --steps 4 --out all
grep -q "^nvfp4: lab: about [0-9]* min: " err.txt || say "not said how long it takes: $(head -1 err.txt)"
grep -E "needs |has no number" out.txt | grep -v "^not measured  MXINT4.*crossing/mx has no number" && say "claims without a measure"
[ "$(grep -cE '^(held|not held|not settled|not measured) ' out.txt)" -ge 20 ] || say "claims: $(cat out.txt)"
[ "$(grep -cE '^[0-9]+ ' out.txt)" -eq 28 ] || say "$(grep -cE '^[0-9]+ ' out.txt) recipes"
for recipe in fp32 bf16 nvfp4-plain nvfp4 hcp post-qk chon mxfp4-sr-rht mxfp8 nvfp4-w1x16 nvfp4-decoded nvfp4-decoded-sr nvfp4-sr-x nvfp4-eden nvfp4-4over6 nvfp4-bf16-end fp4-all-the-way nvfp4-nemotron3 nvfp4-rht128 nvfp4-new-signs nvfp4-held-amax nvfp4-ms-eden mxfp4-rht fouroversix averis fp8-gradients fp8-optimizer bf16-optimizer; do grep -qE "^[0-9]+ +$recipe " out.txt || say "no row of $recipe"; done
grep -qE "<(script|link|img)|https?://" all/lab.html && say "the page loads something"
for heading in Ranking "What each buys" "What each costs" "Where each breaks" "Published claims" "Formats on this model" "Formats by crest factor"; do
  grep -q "<h2>$heading" all/lab.html || say "no section $heading"
done

"$here/report_page_test.sh" all/lab.html >page.txt 2>&1 || [ $? -eq 77 ] || say "the page: $(cat page.txt)"

# again: nothing is run, the same numbers
cp all/lab.json first.json
# shellcheck disable=SC2086
good lab $few --steps 4 --out all --json
cmp -s out.txt first.json || say "finished parts give other numbers"

# killed at any moment, it goes on; threads change nothing
two="--recipes nvfp4,chon --steps 6 --rates 1,4"
# shellcheck disable=SC2086
good lab $few $two --out whole
# shellcheck disable=SC2086
for wait in 1 4; do
  { timeout -s KILL $wait "$nvfp4" lab $few $two --out killed --threads 1 >out.txt 2>err.txt; } 2>kills.txt
done
# shellcheck disable=SC2086
good lab $few $two --out killed --threads 1
diff <(grep -vE '"(out|threads)":' whole/lab.json) <(grep -vE '"(out|threads)":' killed/lab.json) >diff.txt || say "after kill -9: $(head -5 diff.txt)"
grep -q '"rate/4/chon"' whole/lab.json || say "no losses at 4 times the learning rate"
# SIGTERM says how to go on
# shellcheck disable=SC2086
"$nvfp4" lab $few --recipes nvfp4 --steps 100000 --out stopped >out.txt 2>err.txt &
lab=$!
for _ in $(seq 600); do grep -q "in of training" err.txt && break; sleep 0.1; done
kill -TERM $lab
wait $lab
[ $? -eq 143 ] && grep -q "the same call goes on" out.txt || say "SIGTERM: $(cat out.txt err.txt)"

# shellcheck disable=SC2086
bad "whole holds a lab with other options (steps: 7 here, 6 there)" lab $few --recipes nvfp4,chon --rates 1,4 --steps 7 --out whole
sed -i 's/"version": 1/"version": 2/' whole/parts/sweeps.json
# shellcheck disable=SC2086
bad "whole/parts/sweeps.json: " lab $few $two --out whole
bad "unknown recipe 'nvfp5'" lab --data text.txt --recipes nvfp5 --out bad
bad "'nvfp4' is there twice" lab --data text.txt --recipes nvfp4,nvfp4 --out bad
bad "names and files with commas between" lab --data text.txt --recipes nvfp4,,chon --out bad
bad "size 'huge' of gla is unknown" lab --data text.txt --model gla,huge --out bad
bad "expected for --seeds a whole number from 1 to 1000, got 0" lab --data text.txt --seeds 0 --out bad
bad "nvfp4-eden: its operands (decoded, scale_correction, mean, simulated, 16-bit elements or hadamard_size) are made on the CPU only" lab --data text.txt --recipes nvfp4,nvfp4-eden --device cuda --out bad
bad "--rates" lab --data text.txt --rates 0 --out bad
bad "no.txt" lab --data no.txt --out bad
bad "expected FAMILY,SIZE, a JSON file or the folder of a run" lab --data text.txt --model . --out bad
"$nvfp4" lab --data text.txt --recipes nvfp4 --device cuda --steps 1 --seeds 1 --out gone >out.txt 2>err.txt
[ $? -eq 3 ] && [ -e gone ] && say "a lab on a device that is not there left a folder"
[ -e bad ] && say "a refused lab left a folder"

# the folder of a run: its model, data and checkpoint
"$nvfp4" train --data text.txt --model qwen3 --size tiny --recipe nvfp4 --steps 3 --batch 1 --sequence 16 --out run >out.txt 2>&1 || say "train: $(cat out.txt)"
good lab --model run --recipes nvfp4 --seeds 2 --draws 2 --batch 1 --sequence 16 --steps 4 --out of-run
grep -q "qwen3-tiny" of-run/lab.json || say "another model than the run's"
finish "lab: all good"
