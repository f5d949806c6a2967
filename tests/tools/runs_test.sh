#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs are never lost or mixed up: Ctrl-C and SIGTERM save and the run goes on with the same bits and with its own options,
# more steps than planned, data in another place, two starts at once, and a bit flipped in every file.
# runs_test.sh NVFP4 [flips]: flips of each file, 3 without
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
flips=${2:-3}
bits() { sed 's/"tokens_per_s":[^,}]*//' "$1/log.jsonl"; }
lines() { [ -e "$1" ] && wc -l <"$1" || echo 0; }
# same A B: everything but speeds
same() {
  cmp -s <(bits $1) <(bits $2) || say "$2 has another log than $1"
  for file in checkpoint.safetensors diagnostics.jsonl diagnostics.safetensors; do
    cmp -s $1/$file $2/$file || say "$2/$file is not that of $1"
  done
}
for i in $(seq 1 700); do echo "line $i says that $((i * i % 97)) follows $((i * 7 % 31)) and the rest is noise $((i * 31337 % 1009))"; done >text.txt

run="--model gla --size tiny --recipe chon --data text.txt --steps 30 --batch 2 --sequence 32 --seed 3 --lr 3e-3 --checkpoint-every 7 --diagnostics-every 4 --eval-every 5 --eval-batches 2"
"$nvfp4" train $run --out whole >out.txt 2>err.txt || say "train: $(cat err.txt)"

# a signal after some lines: a checkpoint of that step, exit code 128 + signal, how to go on, and nothing repeated
for signal in INT TERM HUP; do
  (trap - $signal; exec "$nvfp4" train $run --out $signal >out-$signal.txt 2>err-$signal.txt) &
  pid=$!
  for wait in $(seq 1 3000); do [ "$(lines $signal/log.jsonl)" -ge 3 ] && break; sleep 0.01; done
  kill -$signal $pid
  wait $pid
  code=$?
  [ $code -eq $((128 + $(kill -l $signal))) ] || say "SIG$signal: exit $code: $(cat err-$signal.txt)"
  done=$(lines $signal/log.jsonl)
  [ "$done" -lt 30 ] || say "SIG$signal came after the end"
  grep -q "stopped after step $done of 30; go on with: nvfp4 train --resume --out $signal\$" out-$signal.txt || say "SIG$signal: $(cat out-$signal.txt)"
  grep -q "once more ends at once" err-$signal.txt || say "SIG$signal is not answered: $(cat err-$signal.txt)"
  ls -A $signal | grep -q tmp && say "SIG$signal left unfinished files"
  "$nvfp4" train --resume --out $signal --json >out.txt 2>err.txt || say "resume after SIG$signal: $(cat err.txt)"
  same whole $signal
  cmp -s $signal/run.json whole/run.json && say "two folders with one name"
  cmp -s <(sed 's/"out": "[^"]*"//; /checksum/d' $signal/run.json) <(sed 's/"out": "[^"]*"//; /checksum/d' whole/run.json) || say "resuming changed run.json"
done
# a second one, of any kind, ends at once
for second in INT TERM; do
  rm -rf twice
  ("$nvfp4" train ${run/--batch 2 --sequence 32/--batch 64 --sequence 128} --out twice >out.txt 2>&1) &
  shell=$!
  for wait in $(seq 1 3000); do [ -e twice/log.jsonl ] && break; sleep 0.01; done
  sleep 0.3
  pid=$(pgrep -P $shell -f 'train.*--out twice' || echo $shell)
  kill -TERM $pid
  sleep 0.05
  kill -$second $pid 2>/dev/null
  wait $shell
  code=$?
  [ $code -eq 143 ] || [ $code -eq $((128 + $(kill -l $second))) ] || say "a second signal: exit $code"
done

# kill -9 and SIGTERM in turns, at any moment
resume=
for lines in 2 5 9 12 16 20 25; do
  "$nvfp4" train $( [ -z "$resume" ] && echo $run || echo --resume ) --out killed >out.txt 2>&1 &
  pid=$!
  for wait in $(seq 1 3000); do
    [ "$(lines killed/log.jsonl)" -ge $lines ] && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.01
  done
  [ $((lines % 2)) -eq 0 ] && kill -9 $pid 2>/dev/null || kill -TERM $pid 2>/dev/null
  wait $pid 2>/dev/null
  [ -e killed/run.json ] && resume=--resume
done
"$nvfp4" train --resume --out killed >out.txt 2>&1 || say "resume after kills: $(cat out.txt)"
same whole killed

# more steps: those of a run whose schedule was made for the first ones, bit for bit; a longer run's are others
"$nvfp4" train ${run/--steps 30/--steps 40 --schedule-steps 30} --out long >out.txt 2>&1 || say "schedule steps: $(cat out.txt)"
cp -r whole more
"$nvfp4" train --resume --steps 40 --out more >out.txt 2>&1 || say "more steps: $(cat out.txt)"
cmp -s <(bits long | sed 's/,"val_loss":[^}]*//') <(bits more | sed 's/,"val_loss":[^}]*//') || say "more steps are not those of --schedule-steps"
cmp -s long/checkpoint.safetensors more/checkpoint.safetensors || say "more steps give another checkpoint"
grep -q '"schedule_steps": 30' more/run.json || say "run.json does not say for how many steps the schedule is"
"$nvfp4" train --resume --out more >out.txt 2>&1 || say "an extended run does not resume: $(cat out.txt)"
[ "$(lines more/log.jsonl)" -eq 40 ] || say "an extended run forgets its steps"
"$nvfp4" train ${run/--steps 30/--steps 40} --out other >out.txt 2>&1
cmp -s long/checkpoint.safetensors other/checkpoint.safetensors && say "--schedule-steps has no effect"
bad "steps: 20 here under a schedule for 30, 30 there" train --resume --steps 20 --out whole
bad "steps: 40 here under a schedule for 40, 30 there" train ${run/--steps 30/--steps 40 --schedule-steps 40} --resume --out whole
"$nvfp4" record --checkpoint more/checkpoint.safetensors --step 41 -o slice.safetensors >out.txt 2>&1 || say "record: $(cat out.txt)"

# data by content: elsewhere is the same run, another text of the name is not
cp -r INT moved
mkdir elsewhere
mv text.txt elsewhere/book.txt
bad "give its place now with --data" train --resume --out moved
"$nvfp4" train --resume --data elsewhere/book.txt --out moved >out.txt 2>&1 || say "data elsewhere: $(cat out.txt)"
"$nvfp4" train --resume --out moved >out.txt 2>&1 || say "data elsewhere is not remembered: $(cat out.txt)"
same whole moved
sed '3s/says/said/' elsewhere/book.txt >text.txt
bad "its data is not the one given" train --resume --out whole
cp elsewhere/book.txt text.txt
# model and recipe by content, from the run itself: the files may be gone
echo '{"family": "gla", "name": "small one", "layers": 2}' >model.json
"$nvfp4" train --model ./model.json --recipe ./whole/run.json --data task:copy --steps 4 --batch 1 --sequence 16 --out files >out.txt 2>&1 || say "model file: $(cat out.txt)"
rm model.json
"$nvfp4" train --resume --steps 6 --out files >out.txt 2>&1 || say "model file gone: $(cat out.txt)"
bad "holds another run: seed: 4 here, 3 there" train --resume --seed 4 --out whole
bad "its recipe is not the one given: recipe." train --resume --recipe nvfp4 --out whole
bad "its model is not the one given: model.layers: 3 here, 4 there" train --resume --set layers=3 --out whole
bad "the data is a file of the run" train --resume --data whole/log.jsonl --out whole
# data that is written to while it is read
cp text.txt shrinking.txt
"$nvfp4" train $(sed "s/text.txt/shrinking.txt/; s/--steps 30/--steps 2000/" <<<"$run") --out shrinking >out.txt 2>err.txt &
pid=$!
for wait in $(seq 1 3000); do [ "$(lines shrinking/log.jsonl)" -ge 2 ] && break; sleep 0.01; done
head -c 100 text.txt >shrinking.txt
wait $pid
code=$?
sed -i '/^nvfp4: train: [0-9]* %/d' err.txt
[ $code -eq 2 ] && [ "$(wc -l <err.txt)" -eq 1 ] && grep -qE "shrinking.txt: (has become shorter|was changed) while it was in use" err.txt || say "shrinking data: exit $code: $(cat err.txt)"

# two starts at once: one trains, the other says so and changes nothing
for try in $(seq 1 10); do
  for who in 5 6; do
    "$nvfp4" train --data task:copy --batch 1 --sequence 16 --steps 3 --seed $who --out race-$try >out-$who.txt 2>err-$who.txt &
    pids[$who]=$!
  done
  wait ${pids[5]}; first=$?
  wait ${pids[6]}; second=$?
  case $first,$second in
    0,2) winner=5 loser=6 ;;
    2,0) winner=6 loser=5 ;;
    *) say "two starts at once: exit $first and $second: $(cat err-5.txt err-6.txt)"; continue ;;
  esac
  grep -qE "being written by another process|already holds a run" err-$loser.txt || say "the loser says: $(cat err-$loser.txt)"
  grep -q "\"seed\": $winner," race-$try/run.json || say "the winner's run.json is the loser's"
  "$nvfp4" train --resume --out race-$try >out.txt 2>&1 || say "the winner's run: $(cat out.txt)"
done

# a bit flipped anywhere in any file is seen, and nothing is changed by looking
"$nvfp4" train --resume --steps 30 --sensitivity --out HUP >out.txt 2>&1 || say "sensitivity: $(cat out.txt)"
unseen=0 tried=0
RANDOM=1
for file in run.json log.jsonl checkpoint.safetensors checksums.json diagnostics.jsonl diagnostics.safetensors sensitivity.json; do
  size=$(stat -c %s HUP/$file)
  for flip in $(seq 1 $flips); do
    rm -rf flipped
    cp -r HUP flipped
    at=$(((RANDOM * 32768 + RANDOM) % size)) bit=$((RANDOM % 8))
    byte=$(od -An -tu1 -j $at -N 1 flipped/$file)
    printf "\\x$(printf %02x $((byte ^ (1 << bit))))" | dd of=flipped/$file bs=1 seek=$at conv=notrunc status=none
    cp -r flipped before
    "$nvfp4" train --resume --out flipped >out.txt 2>err.txt
    code=$?
    tried=$((tried + 1))
    if [ $code -ne 2 ]; then
      unseen=$((unseen + 1))
      say "exit $code after a flip of bit $bit of byte $at of $file"
    else
      [ "$(wc -l <err.txt)" -eq 1 ] && grep -q "flipped" err.txt || say "a flip in $file: $(cut -c-400 err.txt)"
      diff -r before flipped >/dev/null || say "a refused resume changed the run ($file)"
    fi
    rm -rf before
  done
done
echo "$unseen of $tried flipped bits unseen"
# a log or diagnostics that lost their end, and files that are gone
for file in log.jsonl diagnostics.jsonl diagnostics.safetensors run.json checksums.json; do
  rm -rf gone
  cp -r HUP gone
  rm gone/$file
  if [ $file = checksums.json ]; then # as an older release left it
    "$nvfp4" train --resume --out gone >out.txt 2>&1 || say "without checksums: $(cat out.txt)"
    [ -e gone/checksums.json ] || say "checksums are not written again"
  else
    bad "gone" train --resume --out gone
  fi
  if [ $file = run.json ]; then
    bad "of a run without its run.json: restore it, or choose another folder" train $run --out gone
    diff -r -x run.json HUP gone >out.txt || say "a refused start changed a run: $(cat out.txt)"
  fi
  case $file in *.jsonl)
    cp HUP/$file gone/$file
    sed -i '$d' gone/$file
    bad "gone" train --resume --out gone
  esac
done
finish "runs: all good"
