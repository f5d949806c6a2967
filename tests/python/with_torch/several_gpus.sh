#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# several_gpus.sh FOLDER [GPUS [STEPS]]: the comparisons of several_gpus.py on a machine with GPUS GPUs (default 2), each line of
# results into FOLDER/results.jsonl as it comes: GLA and Qwen3 under bf16, nvfp4 and chon, one process with GPUS micro-batches a
# step beside DistributedDataParallel and FSDP2 on all; then a rank that is killed in mid-run, and the run gone on. Last the
# table: words equal or how far apart, tokens/s, efficiency. MODELS="qwen3" and RECIPES="nvfp4" take a part. Needs nvfp4 with its
# CUDA module, torch, transformers and, for gla, flash-linear-attention on PYTHONPATH.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1 gpus=${2:-2} steps=${3:-50}
mkdir -p "$out"
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=${OMP_NUM_THREADS:-8} PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
ranks() { python3 -m torch.distributed.run --standalone --nproc-per-node "$gpus" "$here/several_gpus.py" "$@"; }
one() { python3 "$here/several_gpus.py" "$@"; }
for model in ${MODELS:-gla qwen3}; do
  for recipe in ${RECIPES:-bf16 nvfp4 chon}; do
    common=(--model "$model" --recipe "$recipe" --steps "$steps" ${OPTIONS:-})
    one "${common[@]}" --micro-batches "$gpus" --out "$out/$model-$recipe-1.json" 2>"$out/log" >>"$out/results.jsonl" || tail -n 3 "$out/log"
    for kind in ddp fsdp; do
      ranks "${common[@]}" --kind $kind --profile --out "$out/$model-$recipe-$kind.json" 2>"$out/log" >>"$out/results.jsonl" || tail -n 3 "$out/log"
    done
  done
done
model=${MODELS:-gla} model=${model%% *}
for kind in ddp fsdp; do
  common=(--model "$model" --recipe chon --steps 30 --kind $kind --checkpoint "$out/checkpoint-$kind" ${OPTIONS:-})
  ranks "${common[@]}" --kill 23 --out "$out/killed.json" >"$out/log" 2>&1 && echo "the killed run ended as if nothing had been"
  ranks "${common[@]}" --out "$out/$model-resumed-$kind.json" 2>"$out/log" >>"$out/results.jsonl" || tail -n 3 "$out/log"
  rm -rf "$out/checkpoint-$kind"
  ranks "${common[@]}" --every 1000 --out "$out/$model-whole-$kind.json" 2>"$out/log" >>"$out/results.jsonl" || tail -n 3 "$out/log"
  rm -rf "$out/checkpoint-$kind"
done
python3 - "$out" "$gpus" <<'P'
import glob, json, struct, sys
folder, gpus = sys.argv[1], int(sys.argv[2])
read = lambda path: json.load(open(path))
value = lambda word: struct.unpack(">f", bytes.fromhex(word))[0]
def apart(a, b):
    """Steps with all words equal, and the largest difference of a loss over the loss."""
    pairs = list(zip(a["losses"][-len(b["losses"]):], b["losses"]))
    same = sum(x == y for x, y in pairs)
    return f"{same} of {len(pairs)} steps equal, at most {max(abs(value(u) - value(v)) / value(u) for x, y in pairs for u, v in zip(x, y)):.2g} apart"
for path in sorted(glob.glob(f"{folder}/*-1.json")):
    one = read(path)
    for kind in ("ddp", "fsdp"):
        try: many = read(path.replace("-1.json", f"-{kind}.json"))
        except OSError: continue
        ratio = many["tokens_per_second"] / one["tokens_per_second"]
        print(f"{one['model']:6} {one['recipe']:6} {kind:5} {apart(one, many)}; channels equal on ranks: {many['channels_equal_on_all_ranks']}; "
              f"tokens/s {one['tokens_per_second']:.0f} -> {many['tokens_per_second']:.0f}, efficiency {ratio / gpus:.2f}; "
              f"collectives {many.get('collectives_ms', '-')} of {many.get('step_ms', '-')} ms")
for path in sorted(glob.glob(f"{folder}/*-resumed-*.json")):
    resumed, whole = read(path), read(path.replace("resumed", "whole"))
    print(f"killed at 23, gone on from {resumed['first']} ({path.split('-')[-1][:-5]}): {apart(whole, resumed)}; parameters equal: {resumed['parameters'] == whole['parameters']}")
P
