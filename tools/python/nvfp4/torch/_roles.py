# SPDX-License-Identifier: Apache-2.0
"""Which modules of a model are which layers of a recipe: a table of known models, and what users give for others."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from nvfp4 import _nvfp4

Roles = Mapping[str, str | None] | Callable[[str], str | None]
"""Patterns of module paths (* and ?) to roles, of which the first that matches counts, or a function of the path; None:
the module stays as it is. A role is what recipes speak of: "attn.q_proj", "mlp.down_proj", "lm_head". As in
{"blocks.*.q": "attn.q_proj", "blocks.*.gate": None, "head": "lm_head"}, or str.lower for paths that are roles."""


class Place(NamedTuple):
    path: str
    role: str
    layer: int  # of the block; the number of layers for what stands in none
    id: int  # of random words


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of model. Its Linear modules are called "...layers.N.ROLE" with self_attn for attn, and lm_head."""

    family: str  # of the C++ models: whose roles, numbers and rules of recipes count
    off: tuple[str, ...] = ()  # flags that let a fused kernel read a Linear's weight past the module


_FLA = ("fuse_swiglu", "fuse_linear_cross_entropy")
# By config.model_type. Llama and Gemma have the roles and rules of the Qwen that is built like them.
_KINDS = {
    "qwen3": Kind("qwen3"),
    "qwen2": Kind("qwen2.5"),
    "llama": Kind("qwen2.5"),
    "gemma": Kind("qwen2.5"),
    "gemma2": Kind("qwen2.5"),
    "gemma3_text": Kind("qwen3"),
    "gla": Kind("gla", _FLA),
    "gated_deltanet": Kind("gdn", _FLA),
}
_OWN_NUMBERS = range(7, 12)  # within a block, of roles that no family has
_PER_BLOCK = 16


def model_types() -> list[str]:
    """The `config.model_type`s that convert() knows.

    >>> import nvfp4.torch
    >>> nvfp4.torch.model_types()[:3]
    ['qwen3', 'qwen2', 'llama']
    """
    return list(_KINDS)


def kind_of(model: torch.nn.Module) -> Kind | None:
    return _KINDS.get(getattr(getattr(model, "config", None), "model_type", ""))


def split(path: str) -> tuple[int | None, str]:
    """The first number in a path, and what stands behind it; all of it where there is none."""
    parts = path.split(".")
    for i, part in enumerate(parts[:-1]):
        if part.isdecimal():
            rest = ".".join(parts[i + 1:])
            return int(part), "attn." + rest[len("self_attn."):] if rest.startswith("self_attn.") else rest
    return None, path


def _asked(roles: Roles, path: str) -> str | None:
    if callable(roles):
        return roles(path)
    for pattern, role in roles.items():
        if fnmatch.fnmatchcase(path, pattern):
            return role
    return None


def places(model: torch.nn.Module, roles: Roles | None, family: str, layers: int | None) -> tuple[list[Place], int]:
    """The places of a model's Linear modules that have a role, in the model's order, and the number of blocks.

    The id of a role of the family is 16 layer + its number there, as in the C++ models; other roles take the numbers 7 to
    11 of their block in the order in which they come, and more of them, or several modules of one role, numbers behind all
    blocks.
    """
    numbers = dict(_nvfp4.linear_numbers(family))
    found: list[tuple[str, str, int | None]] = []
    for path, module in model.named_modules():
        if type(module) is not torch.nn.Linear:
            continue
        layer, rest = split(path)
        role = _asked(roles, path) if roles is not None else rest if rest in numbers else None
        if role is not None:
            found.append((path, role, layer))
    count = max([layer + 1 for _, _, layer in found if layer is not None], default=0)
    if layers is None:
        config: Any = getattr(model, "config", None)
        layers = max(count, getattr(config, "num_hidden_layers", 0) or 0)
    if layers < count:
        raise ValueError(f"expected layers of at least {count}, the blocks that the model's paths name, got {layers}")
    used: set[int] = set()
    out: list[Place] = []
    beyond = (layers + 1) * _PER_BLOCK
    for path, role, layer in found:
        block = layers if layer is None else layer
        own = [numbers[role]] if role in numbers else list(_OWN_NUMBERS)
        free = [block * _PER_BLOCK + n for n in own if block * _PER_BLOCK + n not in used]
        number = free[0] if free else beyond
        beyond += number == beyond
        used.add(number)
        out.append(Place(path, role, block, number))
    return out, layers
