# SPDX-License-Identifier: Apache-2.0
"""A whole model under a recipe, and back."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.hooks import RemovableHandle

from nvfp4 import _nvfp4
from nvfp4.torch import _ranks
from nvfp4.torch._clock import Clock
from nvfp4.torch._linear import Linear, adopt, give_up, make_spec
from nvfp4.torch._roles import Kind, Roles, kind_of, model_types, places

M = TypeVar("M", bound=torch.nn.Module)
_ATTRIBUTE = "_nvfp4_conversion"


class _Conversion(NamedTuple):
    paths: list[str]
    flags: list[tuple[Any, str, Any]]  # object, name, value before
    hook: RemovableHandle
    family: str
    layers: int
    recipe: str  # name, or JSON


def _switch_off(model: torch.nn.Module, kind: Kind | None) -> list[tuple[Any, str, Any]]:
    """Flags of the model's modules and configuration that let a kernel read a weight past its module."""
    before = []
    for name in kind.off if kind is not None else ():
        for owner in [*model.modules(), getattr(model, "config", None)]:
            if getattr(owner, name, False) is True:
                before.append((owner, name, True))
                setattr(owner, name, False)
    return before


def convert(model: M, recipe: str = "chon", roles: Roles | None = None, *, seed: int = 0, family: str | None = None,
            layers: int | None = None, process_group: torch.distributed.ProcessGroup | bool | None = None) -> M:
    """Puts a model's Linear modules under a recipe, in place, and returns the model.

    recipe: a built-in name (fp32, bf16, nvfp4-plain, nvfp4, hcp, post-qk, chon, mxfp4-sr-rht, mxfp8) or a JSON file.
    roles: which modules, and what the recipe calls them, for models that model_types() does not list: patterns of paths
    to roles, or a function. Only modules of the class torch.nn.Linear are taken.
    family: gla, gdn, qwen3 or qwen2.5, whose rules of the recipe count; layers: blocks of the model. Both are known of
    models in the table, and by default qwen3 and what the paths say.
    seed: of random words. process_group: ranks that share the data: None all processes, False this one alone.

    Parameters, their names, hooks and tied weights stay what they are: an optimizer made before goes on. Buffers for hot
    channels come on top. Convert before DistributedDataParallel, fully_shard and torch.compile. ValueError for a model
    that is unknown or converted already, and for a recipe or numbers that do not fit.

    >>> import torch, nvfp4.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64))
    >>> nvfp4.torch.convert(model, "nvfp4", {"0": "mlp.up_proj", "2": "mlp.down_proj"})[0]
    Linear(in_features=64, out_features=128, bias=True, recipe=nvfp4, role=mlp.up_proj, formats=nvfp4/nvfp4/nvfp4)
    >>> optimizer = torch.optim.AdamW(model.parameters())
    >>> for _ in range(2):
    ...     model(torch.randn(32, 64)).square().mean().backward()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    """
    if hasattr(model, _ATTRIBUTE):
        raise ValueError("expected a model that is not converted, got a converted one; revert() it first")
    kind = kind_of(model)
    if kind is None and roles is None:
        kinds = ", ".join(model_types())
        raise ValueError(f"unknown kind of model: expected a model with config.model_type of {kinds}, or roles=")
    known = family or (kind.family if kind is not None else "qwen3")
    _name, text = _nvfp4.linear_recipe(recipe, known)
    found, count = places(model, roles, known, layers)
    if not found:
        raise ValueError("no torch.nn.Linear of the model has a role; give roles= that name some")
    group = _ranks.name_of(process_group)
    clock = Clock(model, seed, group)
    for p in found:
        adopt(model.get_submodule(p.path), make_spec(text, known, p.role, p.layer, count, p.id, group, p.path), clock)
    hook = model.register_forward_pre_hook(clock.before_forward, prepend=True)
    conversion = _Conversion([p.path for p in found], _switch_off(model, kind), hook, known, count, text)
    setattr(model, _ATTRIBUTE, conversion)
    return model


def conversion_of(model: torch.nn.Module) -> _Conversion:
    conversion = getattr(model, _ATTRIBUTE, None)
    if not isinstance(conversion, _Conversion):
        raise ValueError("expected a model that convert() returned; got another (of a wrapped one give the model inside)")
    return conversion


def converted(model: torch.nn.Module) -> dict[str, Linear]:
    """The modules of a converted model that run under its recipe, by path. ValueError for another model.

    >>> import torch, nvfp4.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    >>> list(nvfp4.torch.converted(nvfp4.torch.convert(model, "mxfp8", {"0": "mlp.up_proj"})))
    ['0']
    """
    found = {path: model.get_submodule(path) for path in conversion_of(model).paths}
    return {path: module for path, module in found.items() if isinstance(module, Linear)}


def revert(model: M) -> M:
    """Undoes convert(), in place: the same torch.nn.Linear modules with the weights as they are now. Returns the model;
    ValueError where convert() has not been.

    >>> import torch, nvfp4.torch
    >>> model = nvfp4.torch.convert(torch.nn.Sequential(torch.nn.Linear(64, 16)), "nvfp4", {"0": "mlp.up_proj"})
    >>> weight = model[0].weight
    >>> nvfp4.torch.revert(model)[0]
    Linear(in_features=64, out_features=16, bias=True)
    >>> model[0].weight is weight
    True
    """
    conversion = conversion_of(model)
    for module in converted(model).values():
        give_up(module)
    for owner, name, value in conversion.flags:
        setattr(owner, name, value)
    conversion.hook.remove()
    delattr(model, _ATTRIBUTE)
    return model
