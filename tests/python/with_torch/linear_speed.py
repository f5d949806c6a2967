# SPDX-License-Identifier: Apache-2.0
"""linear_speed.py [--recipe nvfp4] [--batch 8] [--length 2048] [--dtype float32|bfloat16] [--autocast] [--steps 3] [--kernels]

Where the time of a converted flash-linear-attention GLA of 340M goes on a GPU: the linear layers' part of a training step, by CUDA
events around each of nvfp4.torch's operators (choice of channels, forward, backward, and the conversions of dtypes in them), after
two steps that warm up. One line of JSON, which also has the time of a step without events, and until the host had given its work.
Beside it stands `nvfp4-gpu profile gla,gla-340m,RECIPE,8,2048`, the C++ trainer's. --kernels:
how long the GPU is busy, in all and with what was launched within the operators (a second line of JSON), and the kernels that take
longest, from PyTorch's profiler.
"""

from __future__ import annotations

import argparse
import bisect
import collections
import contextlib
import json
import pathlib
import tempfile
import time
from typing import Any

import torch

from nvfp4.torch import _ops, convert, converted

OPERATORS = ("choose_channels", "linear", "linear_backward")


def without_tuning() -> None:
    """To be called before fla is imported: its kernels then take the first of their configurations, for trying all takes
    minutes."""
    from triton.runtime.autotuner import Autotuner

    original = Autotuner.__init__
    if getattr(Autotuner, "_first_only", False):
        return

    def start(self, fn, arg_names, configs, *rest, **named):
        original(self, fn, arg_names, configs[:1], *rest, **named)

    Autotuner.__init__, Autotuner._first_only = start, True


def gla_340m() -> torch.nn.Module:
    """The C++ models' gla-340m: 24 blocks of 1024, keys 512, values 1024, an MLP of 2816, 32000 words, heads tied."""
    from fla.models import GLAConfig, GLAForCausalLM

    torch.manual_seed(1)
    return GLAForCausalLM(GLAConfig(vocab_size=32000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=24, num_heads=4,
                                    expand_k=0.5, expand_v=1.0, use_cache=False, fuse_cross_entropy=True,
                                    tie_word_embeddings=True))


class Timed:
    """Stands for an operator of _ops and records events around its calls, made before: the host's work for an event counts
    with what stands between two of them."""

    def __init__(self, name: str, calls: int) -> None:
        self.name, self.operator, self.calls, self.annotates = name, getattr(_ops, name), 0, False
        self.events = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(calls)]
        for pair in self.events:
            for event in pair:
                event.record()

    def __call__(self, *args):
        if self.annotates:
            with torch.profiler.record_function(f"layer {self.name}"):
                return self.operator(*args)
        start, end = self.events[self.calls]
        self.calls += 1
        start.record()
        out = self.operator(*args)
        end.record()
        return out

    def milliseconds(self) -> float:
        return sum(start.elapsed_time(end) for start, end in self.events[:self.calls])


def busy(spans: list[tuple[float, float]]) -> float:
    """Milliseconds in which one of them (microseconds) ran."""
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return round(total / 1e3, 1)


def busy_times(seen: torch.profiler.profile) -> dict[str, float | int]:
    """Of one step: how long the GPU is busy, with what was launched within the operators, and with kernels of this project."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        events = [e for e in json.loads(path.read_text())["traceEvents"] if e.get("ph") == "X"]
    calls = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") == "user_annotation" and e["name"].startswith("layer "))
    starts = [start for start, _ in calls]

    def within(time: float) -> bool:
        at = bisect.bisect_right(starts, time) - 1
        return at >= 0 and time <= calls[at][1]

    launches = {e["args"]["correlation"]: e["ts"] for e in events
                if e.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in e.get("args", {})}
    ran = [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]

    def spans(chosen: list[dict[str, Any]]) -> list[tuple[float, float]]:
        return [(e["ts"], e["ts"] + e["dur"]) for e in chosen]

    ours = [e for e in ran if within(launches.get(e["args"].get("correlation"), -1.0))]
    return {"calls": len(calls), "host_in_operators_ms": busy(calls), "gpu_busy_ms": busy(spans(ran)),
            "operators_busy_ms": busy(spans(ours)), "launches": len(ran), "launches_of_operators": len(ours),
            "own_kernels_busy_ms": busy(spans([e for e in ran if "nvfp4::" in e["name"]]))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="nvfp4")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--autocast", action="store_true")
    parser.add_argument("--kernels", action="store_true")
    o = parser.parse_args()
    without_tuning()
    model = gla_340m().to(getattr(torch, o.dtype)).cuda()
    convert(model, o.recipe, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    # of 200 words, each half twice: as the task that the C++ trainer is timed with
    tokens = torch.randint(0, 200, (o.batch, o.length // 2), generator=torch.Generator().manual_seed(1)).repeat(1, 2).cuda()
    context = torch.autocast("cuda", torch.bfloat16) if o.autocast else contextlib.nullcontext()

    def one() -> torch.Tensor:
        with context:
            loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    def several() -> tuple[torch.Tensor, float, float]:
        """The last loss, and milliseconds a step until the host has given the work, and until it is done."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(o.steps):
            loss = one()
        given = time.perf_counter() - start
        torch.cuda.synchronize()
        return loss, 1e3 * given / o.steps, 1e3 * (time.perf_counter() - start) / o.steps

    one(), one()
    _, host_ms, whole_ms = several()
    timed = {name: Timed(name, 2 * o.steps * len(converted(model))) for name in OPERATORS}
    for name, t in timed.items():
        setattr(_ops, name, t)
    loss, _, step_ms = several()
    parts = {name: round(t.milliseconds() / o.steps, 2) for name, t in timed.items()}
    print(json.dumps({"recipe": o.recipe, "tokens": o.batch * o.length, "dtype": o.dtype, "autocast": o.autocast,
                      "layers": len(converted(model)),
                      "step_ms": round(step_ms, 1), "linear_ms": round(sum(parts.values()), 1), **parts,
                      "loss": round(loss.item(), 4), "without_events_ms": round(whole_ms, 1), "of_it_host_ms": round(host_ms, 1),
                      "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1)}), flush=True)
    if not o.kernels:
        return
    from torch.profiler import ProfilerActivity, profile

    for t in timed.values():
        t.annotates = True
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        one()
        torch.cuda.synchronize()
    print(json.dumps(busy_times(seen)), flush=True)
    kernels: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0])
    for e in seen.events():
        if e.device_type == torch.autograd.DeviceType.CUDA and not e.name.startswith("layer "):
            kernels[e.name[:90]][0] += e.time_range.elapsed_us() / 1e3
            kernels[e.name[:90]][1] += 1
    for name, (ms, count) in sorted(kernels.items(), key=lambda item: -item[1][0])[:30]:
        print(f"{ms:9.2f} ms {count:6d}  {name}")


if __name__ == "__main__":
    main()
