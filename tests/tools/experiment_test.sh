#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Experiments and reports never mix what is not alike: all is checked before the first run, a folder with another run is
# refused by its content, a stopped grid goes on, two at once are one, and a report says what differs and what is there twice.
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
last() { grep -v '^nvfp4: experiment: [0-9]* \(%\|runs\)' err.txt; }
# bad PATTERN FILE
bad() {
  "$nvfp4" experiment "$2" >out.txt 2>err.txt
  local code=$?
  [ $code -eq 2 ] || say "exit $code instead of 2: experiment $2"
  [ "$(last | wc -l)" -eq 1 ] || say "not one line: $(cat err.txt)"
  last | grep -qF -- "$1" || say "no '$1' in: $(cat err.txt)"
}
for i in $(seq 1 400); do echo "line $i says $((i * i % 97)) and $((i * 31337 % 1009))"; done >text.txt
"$nvfp4" train --data task:copy --steps 1 --batch 1 --sequence 16 --out recipe --recipe chon >out.txt 2>&1 || say "train: $(cat out.txt)"
cp recipe/run.json mine.json # its recipe
grid() { # OUT STEPS RECIPES MORE
  echo "{\"models\": [{\"model\": \"gla\", \"size\": \"tiny\"}], \"recipes\": [$3], \"seeds\": [1, 2], \"data\": \"text.txt\", \"steps\": $2, \"batch\": 1, \"sequence\": 16, \"eval_batches\": 1, \"diagnostics_every\": 0, \"out\": \"$1\"$4}"
}

# before the first run
grid g 6 '"bf16", "./missing.json"' '' >grid.json
bad "missing.json" grid.json
grid g 6 '"bf16", "nvfp4"' ', "sizes": "layers=4000,intermediate=500000"' >grid.json
bad "this machine has" grid.json
grid g 6 '"bf16", "nvfp4"' ', "clip": -1' >grid.json
bad "'clip' takes a number" grid.json
grid g 6 '"bf16", "nvfp4"' '' | sed 's/text.txt/no.txt/' >grid.json
bad "no.txt" grid.json
[ -e g ] && say "a refused grid left a folder"

grid g 6 '"bf16", "./mine.json"' '' >grid.json
"$nvfp4" experiment grid.json --json >first.json 2>err.txt || say "experiment: $(cat err.txt)"
grep -q "4 runs, 0 of them finished before; at most 24 steps to do" err.txt || say "not said what is to do: $(cat err.txt)"
"$nvfp4" experiment grid.json --json >second.json 2>err.txt || say "again: $(cat err.txt)"
cmp -s first.json second.json || say "finished runs give another summary"
# a rule that counts from a part of the run on is the same rule
grid end 6 '"bf16", "nvfp4-bf16-end"' '' >other.json
"$nvfp4" experiment other.json --json >out.txt 2>err.txt || say "nvfp4-bf16-end: $(cat err.txt)"
"$nvfp4" experiment other.json --json >again.txt 2>err.txt || say "nvfp4-bf16-end again: $(cat err.txt)"
cmp -s out.txt again.txt || say "finished runs of nvfp4-bf16-end give another summary"

# side by side and in parts: the same bits and the same summary
grid jobs 6 '"bf16", "./mine.json"' '' >other.json
"$nvfp4" experiment other.json --jobs 3 --devices cpu --json >side.json 2>err.txt || say "jobs: $(cat err.txt)"
cmp -s first.json side.json || say "jobs give another summary: $(diff first.json side.json | head -5)"
grid parts 6 '"bf16", "./mine.json"' '' >other.json
"$nvfp4" experiment other.json --shard 2/2 >out.txt 2>err.txt || say "part 2: $(cat err.txt)"
grep -q "4 runs, 0 of them finished before, 2 of other parts; at most 12 steps to do" err.txt || say "part 2: $(cat err.txt)"
grep -q "^2 of 4 runs are of other parts and not finished" out.txt || say "part 2: $(cat out.txt)"
RANK=0 WORLD_SIZE=2 "$nvfp4" experiment other.json --shard env --jobs 2 --json >parts.json 2>err.txt || say "part 1: $(cat err.txt)"
cmp -s first.json parts.json || say "parts give another summary: $(diff first.json parts.json | head -5)"
"$nvfp4" experiment other.json --jobs 2 --devices cpu,tpu >out.txt 2>err.txt && say "a device tpu"
grep -qxF "nvfp4: --devices 'tpu': expected cpu, cuda or cuda:N" err.txt || say "tpu: $(cat err.txt)"
"$nvfp4" experiment other.json --shard 3/2 >out.txt 2>err.txt && say "part 3 of 2"
grep -qF "nvfp4: --shard 3/2: expected a part from 1 to 2" err.txt || say "part 3 of 2: $(cat err.txt)"
# a run that fails in its process says why
grid failing 6 '"bf16", "./mine.json"' ', "device": "cuda"' >other.json
"$nvfp4" experiment other.json --jobs 2 >out.txt 2>err.txt && ! grep -q CUDA err.txt && say "no cuda here: $(cat err.txt)"
last | grep -qE "4 of 4 runs failed; the first: failing/gla-tiny-bf16-1: .*(CUDA|device)" || "$nvfp4" --version | grep -q CUDA || say "why it failed: $(cat err.txt)"
# a forecast, and nothing but it
grid forecast 100 '"bf16", {"name": "chon-no-sr", "base": "chon", "change": {"linears": {"nvfp4": {"dgrad": {"a": {"rounding": "rne"}}}}}}' '' >other.json
"$nvfp4" experiment other.json --forecast-only --jobs 2 >out.txt 2>err.txt || say "forecast: $(cat err.txt)"
grep -qE "^nvfp4: experiment: forecast [0-9].* for 400 steps, [0-9.]* device-hours, 2 side by side: measured on steps 2 to 4" out.txt || say "forecast: $(cat out.txt err.txt)"
[ -e forecast ] && say "a forecast left $(find forecast)"

# the same names with other contents
sed -i 's/"period": 50/"period": 51/' mine.json
cmp -s mine.json recipe/run.json && say "the recipe was not changed"
sed -i -z 's/,\n  "checksum": "[0-9a-f]*"//' mine.json
bad "g/gla-tiny-mine-1 holds a run with other options (its recipe is not the one given: recipe." grid.json
cp recipe/run.json mine.json
sed -i '3s/says/said/' text.txt
bad "its data is not the one given" grid.json
sed -i '3s/said/says/' text.txt
grid g 6 '"bf16", "./mine.json"' ', "sizes": "layers=3"' >other.json
bad "its model is not the one given: model.layers: 3 here, 4 there" other.json
grid g 6 '"bf16", "./mine.json"' ', "learning_rate": 2e-3' >other.json
bad "learning_rate: 0.002 here, 0.001 there" other.json
grid g 8 '"bf16", "./mine.json"' '' >other.json
bad "steps: 8 here under a schedule for 8" other.json
"$nvfp4" experiment grid.json --json >second.json 2>err.txt || say "refusals changed something: $(cat err.txt)"
cmp -s first.json second.json || say "refusals changed the summary"
# more steps under the same schedule: the finished runs go on
grid g 8 '"bf16", "./mine.json"' ', "schedule_steps": 6' >other.json
"$nvfp4" experiment other.json --json >more.json 2>err.txt || say "more steps: $(cat err.txt)"
grep -q '"steps": 8' more.json || say "more steps were not made: $(cat more.json)"
sed -i 's/"smoothed_loss": [0-9]/"smoothed_loss": 1/' g/gla-tiny-bf16-1/result.json
bad "result.json: is not as it was written: its checksum is another" other.json

# stopped, and two at once
grid s 400 '"bf16", "nvfp4"' '' >grid.json
"$nvfp4" experiment grid.json >out.txt 2>err.txt &
pid=$!
for wait in $(seq 1 3000); do [ -s s/gla-tiny-bf16-1/log.jsonl ] && break; sleep 0.01; done
cp err.txt kept.txt
bad "being written by another process" grid.json
kill -TERM $pid
wait $pid
code=$?
[ $code -eq 143 ] || say "SIGTERM: exit $code: $(cat out.txt)"
[ -e s/gla-tiny-bf16-1/checkpoint.safetensors ] || say "SIGTERM saved nothing"
[ -e s/summary.json ] && say "a stopped grid has a summary"

# the same with jobs: children save and end, nobody is left, and the grid goes on
grid k 200 '"bf16", "nvfp4"' ', "checkpoint_every": 1000' >grid.json
"$nvfp4" experiment grid.json --jobs 2 >out.txt 2>err.txt &
pid=$!
for wait in $(seq 1 3000); do [ -s k/gla-tiny-nvfp4-1/log.jsonl ] && break; sleep 0.01; done
kill -TERM $pid
wait $pid
code=$?
[ $code -eq 143 ] || say "SIGTERM with jobs: exit $code: $(cat out.txt)"
[ -e k/gla-tiny-nvfp4-1/checkpoint.safetensors ] || say "SIGTERM with jobs saved nothing"
"$nvfp4" experiment grid.json --jobs 2 >out.txt 2>err.txt &
pid=$!
lines=$(wc -l <k/gla-tiny-nvfp4-1/log.jsonl)
for wait in $(seq 1 3000); do [ "$(wc -l <k/gla-tiny-nvfp4-1/log.jsonl)" -gt "$lines" ] && break; sleep 0.01; done
kill -KILL $pid # its children are told by the kernel
wait $pid 2>/dev/null
grid k 200 '"bf16", "nvfp4"' ', "checkpoint_every": 1000' >grid.json
for wait in $(seq 1 500); do flock -n k/gla-tiny-nvfp4-1/log.jsonl true 2>/dev/null && flock -n k/gla-tiny-bf16-1/log.jsonl true 2>/dev/null && break; sleep 0.02; done
"$nvfp4" experiment grid.json --jobs 2 --json >killed.json 2>err.txt || say "after kill -9: $(cat err.txt)"
grid whole 200 '"bf16", "nvfp4"' '' >grid.json
"$nvfp4" experiment grid.json --json >second.json 2>err.txt || say "in one go: $(cat err.txt)"
cmp -s killed.json second.json || say "stopped and killed jobs give another summary: $(diff killed.json second.json | head -5)"

# reports: other contents apart, a copy left out
cp -r g/gla-tiny-bf16-2 g/gla-tiny-bf16-3
"$nvfp4" train --data text.txt --steps 8 --schedule-steps 6 --batch 1 --sequence 16 --eval-batches 1 --recipe bf16 --lr 2e-3 --seed 4 --diagnostics-every 0 --out g/fast >out.txt 2>&1 || say "train: $(cat out.txt)"
"$nvfp4" report g -o page.html >out.txt 2>err.txt || say "report: $(cat err.txt)"
grep -q "^NOT ALIKE     gla-tiny: kept apart by learning_rate (0.001; 0.002)$" out.txt || say "not said what differs: $(cat out.txt)"
grep -q "^DUPLICATE     g/gla-tiny-bf16-3: the same run as g/gla-tiny-bf16-2, left out$" out.txt || say "a copy is not named: $(cat out.txt)"
grep -q "gla-tiny \[learning_rate 0.002\]" page.html || say "the page does not tell runs apart"
"$nvfp4" report g -o page.html --json >out.txt 2>err.txt || say "report: $(cat err.txt)"
grep -q '"duplicates":\[{"run":"g/gla-tiny-bf16-3","of":"g/gla-tiny-bf16-2"}\]' out.txt || say "JSON without the copy: $(cut -c-600 out.txt)"
grep -q '"recipe":"bf16","seeds":\[1,2\]' out.txt || say "the seeds of a group: $(cut -c-600 out.txt)"
finish "experiments: all good"
