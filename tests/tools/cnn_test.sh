#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nvfp4 cnn: it learns, is never lost (SIGTERM, SIGKILL, torn lines: the same bits as in one go), is the same on any thread,
# measures its checkpoints, reads files of CIFAR-10's binary version, and refuses what makes no sense in one line.
# cnn_test.sh NVFP4
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
bits() { sed 's/"tokens_per_s":[^,}]*//' "$1/log.jsonl"; }
same() {
  cmp -s <(bits $1) <(bits $2) || say "$2 has another log than $1"
  cmp -s $1/checkpoint.safetensors $2/checkpoint.safetensors || say "$2's checkpoint is not that of $1"
}
run="--recipe hcp --widths 8,16 --steps 40 --batch 8 --seed 3 --checkpoint-every 9 --eval-every 10 --eval-images 50"
good cnn $run --threads 1 --out whole
good cnn $run --threads 3 --out other
same whole other
for i in $(seq 1 40); do # at any moment
  "$nvfp4" cnn $([ -e killed/run.json ] && echo "--resume" || echo "$run") --out killed >out.txt 2>err.txt &
  pid=$!
  sleep "0.$((i * 7 % 10))"
  if [ $((i % 2)) -eq 0 ]; then kill -KILL $pid 2>/dev/null; else kill -TERM $pid 2>/dev/null; fi
  wait $pid && break
done 2>killed.txt
[ -e killed/run.json ] || good cnn $run --out killed
echo '{"step":' >>killed/log.jsonl # a line that was being written
good cnn --resume --out killed
same whole killed

# more steps go on under the same schedule
good cnn ${run/--steps 40/--steps 50 --schedule-steps 40} --out longer
good cnn --resume --steps 50 --out whole
same longer whole

# what it learned, as it says and as its checkpoint is measured
easy="--data task:shapes,noise=8,contrast=100"
good cnn --recipe nvfp4 --widths 8,16 --steps 150 --lr 1e-2 $easy --eval-images 200 --out learned --json
accuracy=$(sed -E 's/.*"validation_accuracy":([0-9.]+).*/\1/' out.txt)
awk -v a="$accuracy" 'BEGIN {exit !(a > 0.3)}' || say "accuracy $accuracy after 150 steps: $(cat out.txt)"
good cnn --checkpoint learned/checkpoint.safetensors $easy --batch 32 --eval-images 200 --json
grep -qF "\"accuracy\":$accuracy," out.txt || say "the checkpoint has another accuracy than $accuracy: $(cat out.txt)"
good cnn --checkpoint learned/checkpoint.safetensors --recipe bf16 --eval-images 100
grep -qE "^accuracy [0-9.]+ %, loss [0-9.]+ nats, over 100 images, under bf16$" out.txt || say "bf16: $(cat out.txt)"

# files: 3073 bytes a record
python3 - <<'END' || say "no python3"
import random
random.seed(1)
for name, n in (("data_batch_1.bin", 60), ("data_batch_2.bin", 40), ("test_batch.bin", 20)):
    with open(name, "wb") as f:
        for i in range(n):
            f.write(bytes([i % 10]) + bytes(random.randrange(256) for _ in range(3072)))
open("short.bin", "wb").write(bytes(3072))
open("labels.bin", "wb").write(bytes([11]) + bytes(3072))
END
good cnn --data 'data_batch_*.bin' --validation-data test_batch.bin --steps 3 --batch 10 --recipe tanh-int4 --out files
grep -q '"val_accuracy":' files/log.jsonl || say "no accuracy in the log"
bad "short.bin: expected records of 3073 bytes" cnn --data short.bin --out x
bad "record 0: expected a label of 0 to 9, got 11" cnn --data labels.bin --out x
bad "holds another run: seed: 4 here, 3 there" cnn --resume --seed 4 --out whole
bad "already holds a run" cnn $run --out whole
bad "its data is not the one given" cnn --resume --data task:shapes,noise=1 --out whole
bad "drop --recipe" cnn --resume --recipe bf16 --out whole
bad "did you mean" cnn --recipe tanh-int --out x
bad "speaks of mixers" cnn --recipe nvfp4+mixers=bf16 --out x
bad "too small for 6 blocks" cnn --widths 4,4,4,4,4,4 --out x
bad "--widths: expected whole numbers" cnn --widths 4,x --out x
bad "expected a folder for the run" cnn
bad "use nvfp4 cnn" eval --checkpoint learned/checkpoint.safetensors --data task:copy
bad "run of a convolutional network" train --resume --out learned
[ -e x ] && say "a refused call made a folder"

# a step that is not finite is stopped and named
"$nvfp4" cnn --widths 8,16 --steps 30 --batch 8 --lr 1e30 --recipe nvfp4 --out far >out.txt 2>err.txt
[ $? -eq 4 ] || say "exit code of a run that diverged: $(cat out.txt err.txt)"
grep -q "NOT FINITE: step [0-9]*:" out.txt || say "not named: $(cat out.txt)"
finish "runs of convolutional networks go on with the same bits, learn, and are refused in one line"
