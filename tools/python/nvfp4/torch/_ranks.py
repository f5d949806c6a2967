# SPDX-License-Identifier: Apache-2.0
"""What ranks that share a model's data agree on: scores of channels and, where the recipe says so, global amaxes."""

from __future__ import annotations

import ctypes

import torch
import torch.distributed as dist

WORLD, ALONE = "", "alone"  # names of groups in a layer's spec; any other is a process group's
_named: dict[str, dist.ProcessGroup] = {}


def name_of(group: dist.ProcessGroup | bool | None) -> str:
    """None: all processes, once torch.distributed runs; False: this process by itself."""
    if group is None:
        return WORLD
    if isinstance(group, bool):
        if group:
            raise ValueError("expected a process group, None or False, got True")
        return ALONE
    name = str(group.group_name)
    _named[name] = group
    return name


def find(name: str) -> dist.ProcessGroup | None:
    """The group, or None where nobody else is in it."""
    if name == ALONE or not dist.is_available() or not dist.is_initialized():
        return None
    group = dist.group.WORLD if name == WORLD else _named.get(name)
    if group is None and name != WORLD:
        raise ValueError(f"the layer's process group {name} is not of this process; convert the model here")
    return group if group is not None and dist.get_world_size(group) > 1 else None


def place(name: str) -> tuple[int, int]:
    """This process's rank in the group, and the number of ranks."""
    group = find(name)
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))


def _on_its_device(values: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    return values.cuda() if dist.get_backend(group) == "nccl" else values


def agree_on_scores(scores: torch.Tensor, choice: str, group: dist.ProcessGroup | None) -> torch.Tensor:
    """The same scores on every rank: the mean, summed in FP32 in order of ranks; of magnitudes the largest; of random
    choices, which are the same already, themselves. FP32 in host memory."""
    if group is None or choice == "random":
        return scores
    mine = _on_its_device(scores, group)
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, mine, group=group)
    total = gathered[0].cpu()
    for other in (each.cpu() for each in gathered[1:]):
        total = torch.maximum(total, other) if choice == "magnitude" else total + other
    return total if choice == "magnitude" else total / len(gathered)


class LargestOverRanks:
    """Called from C++ with FP32 values in host memory, which it overwrites."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group

    def __call__(self, address: int, count: int) -> None:
        memory = torch.frombuffer((ctypes.c_float * count).from_address(address), dtype=torch.float32)
        values = _on_its_device(memory.clone(), self._group)
        dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self._group)
        memory.copy_(values)
