# SPDX-License-Identifier: Apache-2.0
"""One training run of a converted model on the processes of a launcher, whose words can be compared with another's.

    torchrun --nproc-per-node 2 several_gpus.py --model gla --kind fsdp --recipe chon --out run2.json
    python3 several_gpus.py --model gla --recipe chon --micro-batches 2 --out run1.json        # the same batch, one process
    torchrun ... --recipe bf16,nvfp4 --out 'two-{recipe}.json'                                 # one after the other
    torchrun ... --checkpoint FOLDER --every 10 [--kill 23] ; torchrun ... --checkpoint FOLDER # killed, and gone on

A step's batch is cut into R * micro-batches parts; part p is micro-batch p of the step, whoever computes it. The file has, for
each step, the FP32 words of all parts' losses and the digest of the hot channels of every rank; the digest of the parameters at
the end; tokens a second (all ranks, median of the last half of the steps), and what a profiled step spends in collectives.
On a GPU the weights are drawn there, and PyTorch is asked for deterministic kernels (attention's backward has others).
`several_gpus.sh` runs the comparisons of a machine's GPUs; test_several.py runs this small, on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import os
import pathlib
import signal
import statistics
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from nvfp4.torch import convert, converted, set_step


def qwen3(size: str) -> torch.nn.Module:
    """Qwen3-0.6B's sizes, or a small one."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    full = dict(vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
                num_key_value_heads=8, head_dim=128)
    tiny = dict(vocab_size=256, hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
                num_key_value_heads=2, head_dim=16)
    return Qwen3ForCausalLM(Qwen3Config(**(full if size == "full" else tiny), max_position_embeddings=4096,
                                        tie_word_embeddings=True, use_cache=False))


def gla(size: str) -> torch.nn.Module:
    """The C++ models' gla-340m, or two blocks of it."""
    from linear_speed import without_tuning

    without_tuning()
    from fla.models import GLAConfig, GLAForCausalLM

    return GLAForCausalLM(GLAConfig(vocab_size=32000, hidden_size=1024, intermediate_size=2816, num_heads=4, expand_k=0.5,
                                    num_hidden_layers=24 if size == "full" else 2, expand_v=1.0, use_cache=False,
                                    fuse_cross_entropy=True, tie_word_embeddings=True))


def batch_of(step: int, sequences: int, length: int) -> torch.Tensor:
    """Of 200 words, each half twice: to be learnt by whoever looks back."""
    draw = torch.Generator().manual_seed(1000 + step)
    return torch.randint(0, 200, (sequences, length // 2), generator=draw).repeat(1, 2)


def digest(tensors) -> str:
    h = hashlib.sha256()
    for t in tensors:
        t = (t.full_tensor() if hasattr(t, "full_tensor") else t).detach().cpu().contiguous()
        h.update(t.view(torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


class Run:
    def __init__(self, o: argparse.Namespace, recipe: str) -> None:
        self.o = o
        self.ranks, self.rank = dist.get_world_size(), dist.get_rank()
        self.device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
        torch.manual_seed(1)
        with self.device:
            self.model = {"qwen3": qwen3, "gla": gla}[o.model](o.size)
        self.model.to(self.device)
        convert(self.model, recipe, seed=o.seed)
        self.wrapped: torch.nn.Module = self.model
        if self.ranks > 1 and o.kind == "fsdp":
            for block in self.model.model.layers:
                fully_shard(block)
            fully_shard(self.model)
        elif self.ranks > 1:
            self.wrapped = DistributedDataParallel(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.first = 0

    def state(self) -> dict:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def save(self, done: int) -> None:
        """Into a folder of its own, named by the steps that are done; complete once the name stands in `latest`."""
        folder = pathlib.Path(self.o.checkpoint)
        dcp.save(self.state(), checkpoint_id=str(folder / str(done)))
        dist.barrier()
        if self.rank == 0:
            (folder / "latest.new").write_text(str(done))
            os.replace(folder / "latest.new", folder / "latest")

    def load(self) -> None:
        folder = pathlib.Path(self.o.checkpoint)
        if not (folder / "latest").exists():
            return
        self.first = int((folder / "latest").read_text())
        state = self.state()
        dcp.load(state, checkpoint_id=str(folder / str(self.first)))
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        set_step(self.model, self.first)

    def channels(self) -> list[str]:
        """The digest of all hot channels, of each rank."""
        mine = digest(m.hot_channels for m in converted(self.model).values() if m.hot_channels is not None)
        every: list = [None] * self.ranks
        dist.all_gather_object(every, mine)
        return every

    def step(self, step: int) -> list[torch.Tensor]:
        """The losses of this rank's parts."""
        o = self.o
        parts = batch_of(step, o.sequences, o.length).chunk(self.ranks * o.micro_batches)
        losses = []
        for m in range(o.micro_batches):
            tokens = parts[m * self.ranks + self.rank].to(self.device)
            last = m + 1 == o.micro_batches
            alone = self.wrapped.no_sync() if not last and hasattr(self.wrapped, "no_sync") else contextlib.nullcontext()
            if hasattr(self.model, "set_requires_gradient_sync"):
                self.model.set_requires_gradient_sync(last)
            with alone:
                loss = self.wrapped(tokens, labels=tokens).loss
                (loss / o.micro_batches).backward()
            losses.append(loss.detach().float())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses

    def words(self, losses: list[torch.Tensor]) -> list[str]:
        """Of all parts, in their order."""
        mine = torch.stack(losses)
        every = [torch.empty_like(mine) for _ in range(self.ranks)]
        dist.all_gather(every, mine)
        in_order = torch.stack(every, 1).flatten().cpu()
        return [f"{w & 0xFFFFFFFF:08x}" for w in in_order.view(torch.int32).tolist()]

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def collectives(run: Run, step: int) -> dict[str, float]:
    """Milliseconds of a step in kernels of NCCL and in all kernels, on this rank."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        start = time.perf_counter()
        run.step(step)
        run.wait()
        whole = 1e3 * (time.perf_counter() - start)
    kernels = [(e.name, e.time_range.elapsed_us() / 1e3) for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return {"step_ms": round(whole, 1), "kernels_ms": round(sum(t for _, t in kernels), 1),
            "collectives_ms": round(sum(t for name, t in kernels if "nccl" in name.lower()), 1)}


def measured(o: argparse.Namespace, recipe: str) -> dict:
    """Trains under a recipe from step 0, or from the checkpoint's. Everything the file of a run has."""
    run = Run(o, recipe)
    if o.checkpoint:
        pathlib.Path(o.checkpoint).mkdir(parents=True, exist_ok=True)
        run.load()
    losses, channels, seconds = [], [], []
    for step in range(run.first, o.steps):
        if step == o.kill and run.rank == run.ranks - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        run.wait()
        start = time.perf_counter()
        mine = run.step(step)
        run.wait()
        seconds.append(time.perf_counter() - start)
        losses.append(run.words(mine))
        channels.append(run.channels())
        if o.checkpoint and (step + 1) % o.every == 0:
            run.save(step + 1)
    agree = all(len(set(each)) == 1 for each in channels)
    median = statistics.median(seconds[len(seconds) // 2:]) if seconds else float("nan")
    cuda = run.device.type == "cuda"
    result = {"model": o.model, "size": o.size, "kind": o.kind if run.ranks > 1 else "one", "recipe": recipe, "ranks": run.ranks,
              "micro_batches": o.micro_batches, "tokens_a_step": o.sequences * o.length, "first": run.first, "steps": o.steps,
              "device": torch.cuda.get_device_name() if cuda else "cpu", "torch": torch.__version__,
              "tokens_per_second": round(o.sequences * o.length / median, 1), "channels_equal_on_all_ranks": agree,
              "parameters": digest(run.model.parameters()), "channels": [each[0] for each in channels], "losses": losses}
    if o.profile and cuda:
        result.update(collectives(run, o.steps))
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=["qwen3", "gla"], default="qwen3")
    parser.add_argument("--size", choices=["full", "tiny"], default="full")
    parser.add_argument("--kind", choices=["ddp", "fsdp"], default="ddp")
    parser.add_argument("--recipe", default="nvfp4", help="or several, with commas: runs one after the other")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sequences", type=int, default=8, help="of a step, over all ranks")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--micro-batches", type=int, default=1, help="of each rank in a step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint", help="folder; goes on from what is there")
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--kill", type=int, default=-1, help="the last rank kills itself before this step")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", required=True, help="file; {recipe} in it is the recipe's name")
    o = parser.parse_args()
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29531")):
        os.environ.setdefault(name, value)
    gpu = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.device_count() > gpu
    if cuda:
        torch.cuda.set_device(gpu)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    dist.init_process_group("nccl" if cuda else "gloo")
    for recipe in o.recipe.split(","):
        result = measured(o, recipe)
        gc.collect()
        if dist.get_rank() == 0:
            pathlib.Path(o.out.format(recipe=recipe)).write_text(json.dumps(result, indent=1) + "\n")
            print(json.dumps({k: v for k, v in result.items() if k not in ("losses", "channels")}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
