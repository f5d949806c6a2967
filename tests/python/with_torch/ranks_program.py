# SPDX-License-Identifier: Apache-2.0
"""What each process of test_ranks.py runs under torchrun: FOLDER "ddp RECIPE" "fsdp RECIPE" ...; writes rank-N.pt there."""

from __future__ import annotations

import pathlib
import sys

import torch
import torch.distributed as dist
from bits import hard
from test_convert import ROLES, Toy
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from nvfp4.torch import convert, converted

STEPS, ROWS = 3, 16  # rows of all ranks together


def batch(step: int) -> torch.Tensor:
    return hard(ROWS, 64, seed=step) / 10


def whole(parameter: torch.Tensor) -> torch.Tensor:
    return (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).detach().clone()


def run(kind: str, recipe: str) -> dict[str, list]:
    """Trains a few steps as `kind` says; what this rank saw."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = convert(Toy(), recipe, ROLES, layers=8, seed=11)
    layers = converted(model)
    wrapped: torch.nn.Module = model
    if kind == "ddp":
        wrapped = DistributedDataParallel(model)
    else:
        for block in model.layers:
            fully_shard(block)
        fully_shard(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.05)
    seen: dict[str, list] = {"channels": [], "clock": [], "outputs": [], "gradients": [], "parameters": []}
    for step in range(STEPS):
        mine = batch(step).chunk(ranks)[rank].clone()
        out = wrapped(mine)
        out.square().mean().backward()
        seen["outputs"].append(out.detach())
        seen["clock"].append(model.layers[0].mlp["up_proj"]._clock.tensor.tolist())
        seen["channels"].append({path: m.hot_channels.clone() for path, m in layers.items() if m.hot_channels is not None})
        seen["gradients"].append([whole(p.grad) for p in model.parameters()])
        optimizer.step()
        optimizer.zero_grad()
        seen["parameters"].append([whole(p) for p in model.parameters()])
    return seen


def main(folder: str, *cases: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    seen = {case: run(*case.split(" ", 1)) for case in cases}
    torch.save(seen, pathlib.Path(folder) / f"rank-{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
