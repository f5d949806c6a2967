#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Training as a user meets it: a run, the same run on other threads and instruction sets, killed at any moment and resumed,
# evaluated, dumped; and bad input, each with one line, exit code 2 and nothing lost.
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
# shellcheck source=tests/tools/instruction_sets.sh
. "$here/instruction_sets.sh"
# run.json without its checksum, as older releases wrote it: what is wrong inside is looked for behind it
unsealed() { sed -z 's/,\n  "checksum": "[0-9a-f]*"//' "$1"; }
# what decides a run: steps, losses, digests, not speeds
bits() { sed 's/"tokens_per_s":[^,}]*//' "$1/log.jsonl"; }

# a text of its own, without any download
for i in $(seq 1 700); do echo "line $i says that $((i * i % 97)) follows $((i * 7 % 31)) and the rest is noise $((i * 31337 % 1009))"; done >text.txt

run="--model gla --size tiny --recipe chon --data text.txt --steps 12 --batch 2 --sequence 32 --seed 3 --checkpoint-every 3 --diagnostics-every 5"
"$nvfp4" train $run --out whole >out.txt 2>err.txt || say "train: $(cat err.txt)"
[ "$(wc -l <whole/log.jsonl)" -eq 12 ] || say "12 steps, $(wc -l <whole/log.jsonl) lines"
grep -v "^nvfp4: train: [0-9]* %" err.txt && say "train wrote to stderr in a pipe"
grep -q '"step":10' whole/diagnostics.jsonl || say "no diagnostics of step 10"

# diagnostics of the first tokens: no bit of the run, weights as they are, and nothing that the whole has not
"$nvfp4" train $run --diagnostics-tokens 64 --out tokens64 >out.txt 2>&1 || say "64 tokens: $(cat out.txt)"
cmp -s whole/diagnostics.jsonl tokens64/diagnostics.jsonl || say "all tokens named are other diagnostics"
"$nvfp4" train $run --diagnostics-tokens 10 --out tokens10 >out.txt 2>&1 || say "10 tokens: $(cat out.txt)"
cmp -s <(bits whole) <(bits tokens10) || say "fewer tokens in diagnostics give other bits"
python3 - <<'END' || say "diagnostics of 10 tokens"
import json
lines = [[json.loads(l) for l in open(f"{d}/diagnostics.jsonl")] for d in ("whole", "tokens10")]
assert len(lines[0]) == len(lines[1]) and lines[0] != lines[1]
less = 0
for whole, part in zip(*lines):
    assert (whole["type"], whole.get("op"), whole["step"]) == (part["type"], part.get("op"), part["step"])
    if whole["type"] == "tensor" and whole["kind"] == "weight":
        assert whole == part
    elif whole["type"] == "tensor":
        assert part["top_max"][0] <= whole["top_max"][0]
        less += part["top_max"][0] < whole["top_max"][0]
assert less > 10
END

# the same bits on one and three threads, and with other instruction sets
"$nvfp4" train $run --out one --threads 1 >out.txt 2>&1 || say "one thread: $(cat out.txt)"
cmp -s <(bits whole) <(bits one) || say "one thread gives other bits"
"$nvfp4" train $run --out three --threads 3 >out.txt 2>&1 || say "three threads: $(cat out.txt)"
cmp -s <(bits whole) <(bits three) || say "three threads give other bits"
cmp -s whole/checkpoint.safetensors three/checkpoint.safetensors || say "three threads give another checkpoint"
for isa in avx2 scalar; do
  under $isa err.txt "$nvfp4" train $run --out $isa >out.txt
  case $? in
    0) cmp -s <(bits whole) <(bits $isa) || say "$isa gives other bits" ;;
    77) tail -n 1 out.txt ;;
    *) say "train: $(cat out.txt)" ;;
  esac
done

# killed again and again in mid-run, then finished: every line and the checkpoint as if nothing had happened. The recipe
# rounds weights stochastically and validates in between, so that nothing may leak from one step to the next.
cat >sr.json <<'JSON'
{"name": "sr", "linears": {"x": {"fprop": {"a": "nvfp4", "b": {"format": "nvfp4", "rounding": "sr-carry8"}},
  "dgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8"}, "b": "nvfp4"}, "wgrad": {"a": "nvfp4", "b": "nvfp4"}, "hcp": {"period": 4}}},
 "default": "x"}
JSON
run="--model gla --size tiny --recipe ./sr.json --data text.txt --steps 40 --batch 2 --sequence 32 --accumulation 2 --seed 3 --checkpoint-every 3 --diagnostics-every 5 --eval-every 4 --eval-batches 2"
"$nvfp4" train $run --out unkilled >out.txt 2>err.txt || say "train: $(cat err.txt)"
resume= kills=0
for lines in 2 7 8 14 21 28; do
  "$nvfp4" train $run --out killed $resume >out.txt 2>&1 &
  pid=$!
  for wait in $(seq 1 3000); do
    [ "$(cat killed/log.jsonl 2>/dev/null | wc -l)" -ge $lines ] && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.01
  done
  kill -9 $pid 2>/dev/null && kills=$((kills + 1))
  wait $pid 2>/dev/null
  resume=--resume
done
[ $kills -ge 4 ] || say "only $kills of 6 kills met a running program"
[ "$(wc -l <killed/log.jsonl)" -lt 40 ] || say "the last kill came after the end"
"$nvfp4" train $run --out killed $resume >out.txt 2>&1 || say "resume after kill -9: $(cat out.txt)"
cmp -s <(bits unkilled) <(bits killed) || say "a killed and resumed run has another log"
cmp -s unkilled/checkpoint.safetensors killed/checkpoint.safetensors || say "a killed and resumed run has another checkpoint"
cmp -s unkilled/diagnostics.jsonl killed/diagnostics.jsonl || say "a killed and resumed run has other diagnostics"

ls -A killed | grep -q tmp && say "unfinished files stayed behind"
grep -q '"diverged":true' killed/log.jsonl && say "the run diverged"

# held amaxes are a checkpoint's state: eval has the validation loss of the run, and another amax another one
"$nvfp4" train --model gla --size tiny --recipe nvfp4-held-amax --data text.txt --steps 3 --batch 1 --sequence 32 --eval-batches 3 --learning-rate 0.01 --out held --json >held.txt 2>err.txt || say "train: $(cat err.txt)"
"$nvfp4" eval --checkpoint held/checkpoint.safetensors --data text.txt --batch 1 --sequence 32 --batches 3 --json >out.txt 2>err.txt || say "eval: $(cat err.txt)"
loss=$(grep -o '"validation_loss":[0-9.e-]*' held.txt | cut -d: -f2)
[ -n "$loss" ] && grep -q ":$loss[,}]" out.txt || say "eval of held amaxes has another loss than $loss: $(cat out.txt)"

# one process a folder; a checkpoint of another run is not continued
"$nvfp4" train $run --out twice >out.txt 2>&1 &
pid=$!
for wait in $(seq 1 500); do [ -s twice/log.jsonl ] && break; sleep 0.01; done
bad "another process" train $run --out twice --resume
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
cp -r unkilled foreign
rm foreign/checksums.json # as an older release left it: other checks have to see what is wrong
sed -i 's/"digest":"[0-9a-f]*"/"digest":"0000000000000000"/' foreign/log.jsonl
bad "not the one that log.jsonl has" train $run --out foreign --resume
sed 's/"state_digest":"[0-9a-f]*"/"state_digest":"0000000000000000"/' unkilled/log.jsonl >foreign/log.jsonl
bad "not the one that log.jsonl has" train $run --out foreign --resume
sed '40s/,"state_digest":"[0-9a-f]*"//' unkilled/log.jsonl >foreign/log.jsonl # continued by an older release
"$nvfp4" train $run --out foreign --resume >out.txt 2>&1 || say "a log with some state digests: $(cat out.txt)"
sed 's/,"state_digest":"[0-9a-f]*"//' unkilled/log.jsonl >foreign/log.jsonl # as older releases wrote it
rm foreign/checksums.json
unsealed unkilled/run.json | sed '/"mixers": "f32"/d' >foreign/run.json
"$nvfp4" train $run --out foreign --resume >out.txt 2>&1 || say "a run.json of an older release: $(cat out.txt)"
LC_ALL=C sed -i 's/\\"mixers\\": \\"f32\\",/                    /' foreign/checkpoint.safetensors
rm foreign/checksums.json
grep -q mixers foreign/run.json foreign/checkpoint.safetensors && say "the older run is not as it was written"
"$nvfp4" train $run --out foreign --resume >out.txt 2>&1 || say "a checkpoint of an older release: $(cat out.txt)"
LC_ALL=C sed -i 's/\\"name\\": \\"sr\\"/\\"name\\": \\"rs\\"/' foreign/checkpoint.safetensors
bad "is of another model or recipe" train $run --out foreign --resume
unsealed unkilled/run.json | sed 's/"mixers": "f32"/"mixers": "bf16"/' >foreign/run.json
bad "its recipe is not the one given" train $run --out foreign --resume
unsealed unkilled/run.json | sed 's/"mixers": "f32"/"mixers": "f23"/' >foreign/run.json
bad "foreign/run.json: recipe: 'mixers' takes one of" train $run --out foreign --resume
run="--model gla --size tiny --recipe chon --data text.txt --steps 12 --batch 2 --sequence 32 --seed 3 --checkpoint-every 3 --diagnostics-every 5"
# an earlier checkpoint of another run: refused before anything is cut back to it
other=${run/--steps 12/--steps 3}
"$nvfp4" train ${other/--seed 3/--seed 4} --out other >out.txt 2>&1 || say "another run: $(cat out.txt)"
cp -r whole early
cp other/checkpoint.safetensors early
bad "not the one that log.jsonl has for step 3" train $run --out early --resume
diff -r -x checkpoint.safetensors whole early >out.txt || say "a refused resume changed the run: $(head -3 out.txt | cut -c-200)"
"$nvfp4" train ${run/--steps 12/--steps 5} --out wild --lr 1e30 >out.txt 2>&1
[ $? -eq 4 ] || say "a diverging run does not exit 4: $(cat out.txt)"
grep -q "DIVERGED" out.txt || say "a diverged run was reported as good: $(cat out.txt)"
grep -qE "NOT FINITE: step [0-9]+: [a-z_]+ of [a-z0-9_.]+.*: [0-9]+ (NaN|Inf)" out.txt || say "no first tensor: $(cat out.txt)"
grep -q '"diverged":true,"not_finite":{"tensor":' wild/log.jsonl || say "the log lacks the first tensor"
"$nvfp4" train ${run/--steps 12/--steps 5} --out wild2 --lr 1e30 --json >out.txt 2>&1
[ $? -eq 4 ] || say "a diverging run does not exit 4 with --json: $(cat out.txt)"
grep -q '"not_finite":{"tensor":' out.txt || say "no first tensor in JSON: $(cat out.txt)"

# a full disk: one line, and what was there stays
if (ulimit -f 200; exec "$nvfp4" train $run --out full >out.txt 2>err.txt); then say "a full disk went unnoticed"; fi
[ "$(wc -l <err.txt)" -eq 1 ] || say "a full disk gives $(wc -l <err.txt) lines"

# evaluate and dump
"$nvfp4" eval --checkpoint whole/checkpoint.safetensors --data text.txt --sequence 32 --batches 2 --json >eval.txt 2>err.txt || say "eval: $(cat err.txt)"
grep -q '"bits_per_byte"' eval.txt || say "eval without bits per byte"
"$nvfp4" init --model qwen3 --size tiny --seed 5 -o c.safetensors >out.txt 2>err.txt || say "init: $(cat err.txt)"
"$nvfp4" init --model qwen3 --size tiny --seed 5 -o c2.safetensors >out.txt 2>err.txt
cmp -s c.safetensors c2.safetensors || say "init is not deterministic"
printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 33), }" >t.npy
for i in $(seq 1 66); do printf "\\x$(printf %02x $((i * 37 % 256)))\\x00\\x00\\x00"; done >>t.npy
for recipe in fp32 bf16 nvfp4 chon; do
  "$nvfp4" forward --checkpoint c.safetensors --recipe $recipe --tokens t.npy --dump d-$recipe.safetensors --grads >out.txt 2>err.txt || say "forward $recipe: $(cat err.txt)"
  grep -q 'grad/model.layers.0.self_attn.q_proj.weight' d-$recipe.safetensors || say "no gradients in the dump of $recipe"
done
cmp -s d-bf16.safetensors d-nvfp4.safetensors && say "bf16 and nvfp4 dump the same"

# bad input
: >empty.txt
echo short >short.txt
printf 'not json' >bad.json
printf '{"name":"x","unknown":1}' >unknown.json
printf '{"family":"gla","heads":3}' >odd.json
bad "run.json" train $run --out nothing --resume
bad "already holds a run" train $run --out whole
bad "holds another run: seed" train ${run/--seed 3/--seed 4} --out whole --resume
bad "family" train ${run/gla/lstm} --out x
bad "size" train ${run/tiny/huge} --out x
bad "nvfp5" train ${run/chon/nvfp5} --out x
bad "bad.json" train ${run/chon/./bad.json} --out x
bad "unknown" train ${run/chon/./unknown.json} --out x
bad "heads" train ${run/--model gla/--model ./odd.json} --out x
bad "missing.txt" train --data missing.txt --out x
printf 'tokens of a text, two bytes each: more than enough of them for sequences of 8.................................................' >text16.bin
bad "the data has tokens up to 31074, the model's vocabulary is 256: use a model with a larger one, as --set vocabulary=31075 makes" train --data text16.bin --sequence 8 --validation 0.3 --out x
bad "text16.bin: holds uint16, but wide.npy uint32: expected one type in all shards" train --data "$(python3 - <<'END'
import struct
head = "{'descr': '<u4', 'fortran_order': False, 'shape': (64,), }".ljust(117) + "\n"
open("wide.npy", "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + head.encode() + struct.pack("<64I", *range(64)))
print("wide.npy,text16.bin")
END
)" --sequence 8 --out x
bad "none*.bin: no file has such a name" train --data 'none*.bin' --out x
bad "short.txt: expected token files for validation" train --data wide.npy --validation-data short.txt --sequence 8 --out x
"$nvfp4" train --model gla --size tiny --set vocabulary=64 --data wide.npy --validation-data wide.npy --sequence 8 --batch 1 --steps 2 --diagnostics-every 0 --out tokens >/dev/null || say "token files: exit $?"
"$nvfp4" eval --checkpoint tokens/checkpoint.safetensors --data wide.npy --validation-data wide.npy --sequence 8 --batch 1 --batches 2 >out.txt && ! grep -q "bits per byte" out.txt || say "eval on tokens: $(cat out.txt)"
mkdir elsewhere && mv wide.npy elsewhere/
bad "wide.npy: the run's text is not there: give its place now with --data" train --resume --out tokens --steps 3
bad "wide.npy: the run's validation data are not there: give their place now with --validation-data" train --resume --out tokens --steps 3 --data elsewhere/wide.npy
"$nvfp4" train --resume --out tokens --steps 3 --data elsewhere/wide.npy --validation-data elsewhere/wide.npy >/dev/null || say "tokens elsewhere: exit $?"
bad "empty.txt" train --data empty.txt --out x
bad "short.txt" train --data short.txt --out x
bad "schedule" train $run --out x --schedule linear
bad "--steps" train ${run/--steps 12/--steps 0} --out x
bad "--final-lr a number from 0 to 1, got 2" train $run --out x --final-lr 2
bad "--threads" train $run --out x --threads 100000
bad "--threads" eval --checkpoint c.safetensors --data text.txt --threads -5
bad "--set" train $run --out x --set hidden
bad "multiple" train $run --out x --set heads=3
bad "tools/corpus" train --out x
bad "device" train $run --out x --device tpu
bad "shape" eval --checkpoint c.safetensors --model qwen3 --size small --data text.txt
bad "expected tensor" eval --checkpoint c.safetensors --model gla --size tiny --data text.txt
bad "which model" eval --checkpoint d-bf16.safetensors --data text.txt
bad "No such file" eval --checkpoint nowhere.safetensors --data text.txt
head -c 300 t.npy | sed "s/(2, 33)/(66,  )/" >flat.npy
tail -c 92 t.npy >>flat.npy
bad "[B, T + 1]" forward --checkpoint c.safetensors --tokens flat.npy --dump x.safetensors
# damaged run folders: file, line, what to do
damaged() { # FILE PATTERN, the damage on stdin
  rm -rf hurt
  cp -r whole hurt
  cat >hurt/$1
  bad "$2" train $run --out hurt --resume
  grep -q "hurt/$1" err.txt || say "damage to $1 is not named: $(cat err.txt)"
}
damaged run.json "got nothing" </dev/null
head -c 200 whole/run.json | damaged run.json "breaks off"
sed 's/"steps": 12/"steps": 13/' whole/run.json | damaged run.json "is not as it was written: its checksum is another"
unsealed whole/run.json | sed 's/"steps": 12/"steps": "12"/' | damaged run.json "'steps' takes a whole number from 1 to 2^40, got \"12\"; restore the file"
unsealed whole/run.json | sed 's/"options"/"choices"/' | damaged run.json 'expected the key "options"'
sed 's/"version": 1/"version": "one"/' whole/run.json | damaged run.json "version: expected a whole number"
sed '4s/.\{30\}$//' whole/log.jsonl | damaged log.jsonl "log.jsonl line 4: expected JSON"
sed '5s/"digest"/"dig"/' whole/log.jsonl | damaged log.jsonl 'line 5: expected the key "digest"'
sed '6s/"loss_hex":"/"loss_hex":"zz/' whole/log.jsonl | damaged log.jsonl "line 6: loss_hex: expected 8 hexadecimal digits"
sed 3d whole/log.jsonl | damaged log.jsonl "line 3: expected the record of that step"
head -c 300 whole/log.jsonl | damaged log.jsonl "steps, as the checkpoint has"
sed '2s/"step"/"stop"/' whole/diagnostics.jsonl | damaged diagnostics.jsonl "line 2"
damaged diagnostics.safetensors "remove the file" </dev/null
head -c 2000 whole/diagnostics.safetensors | damaged diagnostics.safetensors "remove the file"
damaged checkpoint.safetensors "empty" </dev/null
head -c 5000 whole/checkpoint.safetensors | damaged checkpoint.safetensors "checkpoint.safetensors"
for size in 0 7 5000 100000; do
  head -c $size whole/checkpoint.safetensors >cut.safetensors
  bad "cut.safetensors" eval --checkpoint cut.safetensors --data text.txt
  bad "cut.safetensors" forward --checkpoint cut.safetensors --tokens t.npy --dump x.safetensors
  bad "cut.safetensors" record --checkpoint cut.safetensors --step 20 -o x.safetensors
  bad "cut.safetensors" replay cut.safetensors
done
rm -rf hurt
cp -r whole hurt
echo '{"version":"one"}' >hurt/run.json
bad "hurt/run.json" record --checkpoint hurt/checkpoint.safetensors --step 20 -o x.safetensors
echo '{"version":2}' >hurt/run.json
bad "use the release that wrote it" record --checkpoint hurt/checkpoint.safetensors --step 20 -o x.safetensors
echo '{"version":1,"options":{"steps":"12"}}' >hurt/run.json
bad "'steps' takes a whole number from 1 to 2^40, got \"12\"; restore the file or start the run again in another folder" record --checkpoint hurt/checkpoint.safetensors --step 20 -o x.safetensors
bad "hurt/run.json" report hurt -o x.html
"$nvfp4" report whole wild -o r.html >out.txt 2>err.txt || say "report: $(cat err.txt)"
grep -q "^DIVERGED .*wild at step" out.txt || say "a diverged run is not reported: $(cat out.txt)"
[ -e x ] && say "a refused run left a folder behind"
finish "training: all good"
