#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# several_gpus.sh FOLDER [GPUS [STEPS]]: the comparisons of several_gpus.py on a machine with GPUS GPUs (default 2), each line of
# results into FOLDER/results.jsonl as it comes: GLA and Qwen3 under bf16, nvfp4 and chon, one process with GPUS micro-batches a
# step beside DistributedDataParallel and FSDP2 on all; then a rank that is killed in mid-run, and the run gone on. Last the
# table: words equal or how far apart, tokens/s, efficiency. MODELS="qwen3" and RECIPES="nvfp4,chon" take a part; what was done is
# not done again by a second call. Needs nvfp4 with its CUDA module, torch, transformers and, for gla, flash-linear-attention on
# PYTHONPATH.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1 gpus=${2:-2} steps=${3:-50}
mkdir -p "$out"
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=${OMP_NUM_THREADS:-8} PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
ranks() { python3 -m torch.distributed.run --standalone --nproc-per-node "$gpus" "$here/several_gpus.py" "$@"; }
one() { python3 "$here/several_gpus.py" "$@"; }
stage() { # NAME COMMAND...: its lines into the results, what it wrote to the error stream into NAME.log; not again if it was done
  local name=$1
  shift
  [ ! -e "$out/$name.done" ] || return 0
  echo "$(date +%T) $name"
  if "$@" 2>"$out/$name.log" >>"$out/results.jsonl"; then touch "$out/$name.done"; else tail -n 3 "$out/$name.log"; fi
}
recipes=${RECIPES:-bf16,nvfp4,chon}
models=(${MODELS:-gla qwen3})
for i in "${!models[@]}"; do # side by side, a GPU each
  common=(--model "${models[i]}" --recipe "$recipes" --steps "$steps" ${OPTIONS:-})
  CUDA_VISIBLE_DEVICES=$((i % gpus)) MASTER_PORT=$((29531 + i)) stage "${models[i]}-one" one "${common[@]}" --micro-batches "$gpus" \
    --out "$out/${models[i]}-{recipe}-one.json" &
done
wait
for model in "${models[@]}"; do
  common=(--model "$model" --recipe "$recipes" --steps "$steps" ${OPTIONS:-})
  for kind in ddp fsdp; do
    stage "$model-$kind" ranks "${common[@]}" --kind $kind --profile --out "$out/$model-{recipe}-$kind.json"
  done
done
killed() { # KIND: dies with a rank before step 23, and goes on from step 20
  local common=(--model "${models[0]}" --recipe chon --steps "$steps" --kind "$1" --checkpoint "$out/checkpoint-$1" --every 20 ${OPTIONS:-})
  ranks "${common[@]}" --kill 23 --out "$out/killed.json" >&2 && echo "the killed run ended as if nothing had been" >&2 && return 1
  ranks "${common[@]}" --out "$out/${models[0]}-chon-$1-resumed.json"
}
for kind in ddp fsdp; do stage "killed-$kind" killed $kind & done
wait
rm -rf "$out"/checkpoint-*
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
for path in sorted(glob.glob(f"{folder}/*-one.json")):
    one = read(path)
    for kind in ("ddp", "fsdp"):
        try: many = read(path.replace("-one.json", f"-{kind}.json"))
        except OSError: continue
        ratio = many["tokens_per_second"] / one["tokens_per_second"]
        print(f"{one['model']:6} {one['recipe']:6} {kind:5} {apart(one, many)}; channels equal on ranks: {many['channels_equal_on_all_ranks']}; "
              f"tokens/s {one['tokens_per_second']:.0f} -> {many['tokens_per_second']:.0f}, efficiency {ratio / gpus:.2f}; "
              f"collectives {many.get('collectives_ms', '-')} of {many.get('step_ms', '-')} ms")
for path in sorted(glob.glob(f"{folder}/*-resumed.json")):
    resumed, whole = read(path), read(path.replace("-resumed", ""))
    print(f"killed at 23, gone on from {resumed['first']} ({resumed['kind']}): {apart(whole, resumed)}; parameters equal: {resumed['parameters'] == whole['parameters']}")
P
