# SPDX-License-Identifier: Apache-2.0
"""Which step of which run a converted model is at: what its random words and the choice of hot channels depend on.

A clock is a small integer tensor that operators read when they run, so that nothing is compiled anew from step to step.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from nvfp4.torch import _ranks

SEED, STEP, MICRO_BATCH, RANK, RANKS, STATE = range(6)
FRESH, RUNNING, STEPPED, GIVEN = range(4)  # of STATE: no pass yet; within a step; optimizer has stepped; set by step()

_clocks: weakref.WeakSet[Clock] = weakref.WeakSet()


def _nobody() -> None:
    return None


class Clock:
    """The clock of one model: counted by its training passes and its optimizer's steps, unless step() says otherwise."""

    def __init__(self, owner: torch.nn.Module, seed: int, group: str) -> None:
        if not 0 <= seed < 2**63:
            raise ValueError(f"expected a seed from 0 to 2^63 - 1, got {seed}")
        self.tensor = torch.tensor([seed, 0, 0, 0, 1, FRESH], dtype=torch.int64, device="cpu")
        self.group = group
        self._owner: Callable[[], torch.nn.Module | None] = weakref.ref(owner)
        _clocks.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"tensor": self.tensor, "group": self.group}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy belongs to a copy of the owner, which is not known from here."""
        self.tensor, self.group, self._owner = state["tensor"], state["group"], _nobody
        _clocks.add(self)

    def before_forward(self, module: torch.nn.Module, _args: Any) -> None:
        """A forward pre-hook of the owner: a pass begins, of training or another."""
        if module.training and torch.is_grad_enabled():
            torch.ops.nvfp4.tick(self.tensor, self.group)
        else:
            torch.ops.nvfp4.look(self.tensor)

    def is_of(self, module: torch.nn.Module) -> bool:
        return self._owner() is module

    def owns(self, parameters: set[int]) -> bool:
        """Whether an optimizer of these parameters trains the model."""
        owner = self._owner()
        return owner is None or any(id(p) in parameters for p in owner.parameters())

    def of(self, model: torch.nn.Module | None) -> bool:
        return model is None or any(getattr(m, "_clock", None) is self for m in model.modules())


def tick(clock: torch.Tensor, group: str) -> None:
    """Counts a training pass, except where activations are computed again within a backward pass."""
    if torch._C._current_graph_task_id() != -1:
        return
    rank, ranks = _ranks.place(group)
    state, step_, micro_batch = (int(clock[i]) for i in (STATE, STEP, MICRO_BATCH))
    if state == RUNNING:
        micro_batch += 1
    elif state == STEPPED:
        step_, micro_batch = step_ + 1, 0
    if state != GIVEN:
        state = RUNNING
    clock[STEP], clock[MICRO_BATCH], clock[RANK], clock[RANKS], clock[STATE] = step_, micro_batch, rank, ranks, state


def key(clock: torch.Tensor) -> tuple[int, int, int]:
    """(seed, step, micro-batch) of random words. Micro-batch m of rank r of R is number m R + r of the step: R ranks draw
    the words that one process draws for R times as many micro-batches."""
    words: list[int] = clock.tolist()
    return words[SEED], words[STEP], words[MICRO_BATCH] * words[RANKS] + words[RANK]


def _after_optimizer(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    parameters = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for clock in list(_clocks):
        if int(clock.tensor[STATE]) == RUNNING and clock.owns(parameters):
            clock.tensor[STATE] = STEPPED


register_optimizer_step_post_hook(_after_optimizer)


@contextlib.contextmanager
def step(seed: int, step: int, micro_batch: int = 0, model: torch.nn.Module | None = None) -> Iterator[None]:
    """Says which step runs, for as long as the context lasts, of one model or of all.

    seed: of the run, 0 to 2^63 - 1. step: optimizer steps done before this one. micro_batch: within the step, counted on
    this rank. A forward and its backward belong into the same context. Without one a model counts by itself: from step 0,
    a step whenever an optimizer with parameters of it has stepped, a micro-batch each training pass between. ValueError
    for numbers out of range.

    >>> import torch, nvfp4.torch
    >>> layer = nvfp4.torch.Linear(64, 64, recipe="nvfp4")  # rounds dy stochastically
    >>> x, dy = torch.randn(2, 32, 64).unbind()
    >>> def gradient(step):
    ...     with nvfp4.torch.step(seed=1, step=step):
    ...         return torch.autograd.grad(layer(x), layer.weight, dy)[0]
    >>> torch.equal(gradient(5), gradient(5)), torch.equal(gradient(5), gradient(6))
    (True, False)
    """
    if not 0 <= seed < 2**63 or step < 0 or not 0 <= micro_batch < 2**24:
        raise ValueError(f"expected a seed from 0 to 2^63 - 1, a step of at least 0 and a micro-batch below 2^24, got "
                         f"{seed}, {step} and {micro_batch}")
    before = [(clock, clock.tensor.clone()) for clock in list(_clocks) if clock.of(model)]
    for clock, _ in before:
        rank, ranks = _ranks.place(clock.group)
        clock.tensor.copy_(torch.tensor([seed, step, micro_batch, rank, ranks, GIVEN]))
    try:
        yield
    finally:
        for clock, words in before:
            clock.tensor.copy_(words)


def set_step(model: torch.nn.Module, step: int) -> None:
    """Sets the step that a model's next training pass belongs to, as after a checkpoint was loaded. ValueError for one
    below 0.

    >>> import torch, nvfp4.torch
    >>> layer = nvfp4.torch.Linear(64, 64, recipe="nvfp4", seed=1)
    >>> x, dy = torch.randn(2, 32, 64).unbind()
    >>> nvfp4.torch.set_step(layer, 5)
    >>> (a,) = torch.autograd.grad(layer(x), layer.weight, dy)
    >>> with nvfp4.torch.step(seed=1, step=5):
    ...     (b,) = torch.autograd.grad(layer(x), layer.weight, dy)
    >>> torch.equal(a, b)
    True
    """
    if step < 0:
        raise ValueError(f"expected a step of at least 0, got {step}")
    for clock in list(_clocks):
        if clock.of(model):
            clock.tensor[STEP], clock.tensor[MICRO_BATCH], clock.tensor[STATE] = step, 0, FRESH
