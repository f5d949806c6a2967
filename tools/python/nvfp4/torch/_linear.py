# SPDX-License-Identifier: Apache-2.0
"""A Linear module under a recipe."""

from __future__ import annotations

import itertools
import json
from typing import Any

import torch
from torch import Tensor

from nvfp4 import _nvfp4
from nvfp4.torch import _ops, _ranks
from nvfp4.torch._clock import Clock

_standalone = itertools.count(2**32)  # ids of layers that no model counts
_BUFFERS = ("hot_channels", "hot_scores", "hot_channels_dgrad", "hot_scores_dgrad")
_FLOATS = (torch.float32, torch.bfloat16)
_KINDS = ("cpu", "cuda", "meta")


class Linear(torch.nn.Linear):
    """`torch.nn.Linear` whose three products have the bits of a tensor core, as a recipe says.

    in_features, out_features, bias, device, dtype: as torch.nn.Linear's; weights and inputs in FP32 or BF16.
    recipe: a built-in name ("nvfp4", "chon", "mxfp8", ...; `nvfp4 info --recipes`) or the path of a JSON file.
    role, layer, layers, family: what the recipe's rules speak of; by default a layer that stands in no block.
    id: of the layer's random words; by default the next number that no layer has had in this process.
    seed: of random words; process_group: ranks that share the data (None: all, False: this one alone).

    y has x's dtype: FP32 holds the result of the product, which most recipes round to BF16, as it is. Under autocast x is
    rounded to its dtype first. The layer's hot channels, where its recipe has the Hot-Channel Patch, are the buffers
    `hot_channels` (int32, largest score first, -1 before the first choice) and `hot_scores`; with `_dgrad` behind them
    those of dgrad.

    >>> import torch, nvfp4.torch
    >>> layer = nvfp4.torch.Linear(64, 16, bias=False, recipe="nvfp4")
    >>> layer
    Linear(in_features=64, out_features=16, bias=False, recipe=nvfp4, role=linear, formats=nvfp4/nvfp4/nvfp4)
    >>> x = torch.randn(2, 32, 64, requires_grad=True)
    >>> y = layer(x)
    >>> y.sum().backward()
    >>> y.shape, x.grad.shape, layer.weight.grad.shape
    (torch.Size([2, 32, 16]), torch.Size([2, 32, 64]), torch.Size([16, 64]))

    The recipe quantizes x in rows of 16 and W in blocks of 16 x 16; y has the bits of their product:

    >>> a = nvfp4.quantize(x.detach().reshape(64, 64).bfloat16())
    >>> b = nvfp4.quantize(layer.weight.detach().bfloat16(), block=(16, 16))
    >>> torch.equal(y.detach().reshape(64, 16), nvfp4.gemm(a, b, out="bf16").float())
    True
    """

    _spec: str
    _clock: Clock
    _clock_is_own: bool
    hot_channels: Tensor | None
    hot_scores: Tensor | None
    hot_channels_dgrad: Tensor | None
    hot_scores_dgrad: Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None, *,
                 recipe: str = "nvfp4", role: str = "linear", layer: int = 0, layers: int = 0, family: str = "qwen3",
                 id: int | None = None, seed: int = 0,
                 process_group: torch.distributed.ProcessGroup | bool | None = None) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        group = _ranks.name_of(process_group)
        spec = make_spec(_nvfp4.linear_recipe(recipe, family)[1], family, role, layer, layers,
                         next(_standalone) if id is None else id, group, "")
        adopt(self, spec, Clock(self, seed, group))

    def forward(self, input: Tensor) -> Tensor:
        x, weight, bias = input, self.weight, self.bias
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        self._check(x, weight, kind)
        clock, training, spec = self._clock, self.training, self._spec
        if self._clock_is_own:
            clock.before_forward(self, None)
        channels, scores, dgrad_channels, dgrad_scores = (self._buffers[name] for name in _BUFFERS)
        if training and channels is not None:
            assert scores is not None
            _ops.choose_channels(x, weight, channels, scores, clock.tensor, "fprop", spec)
        shares = torch.is_grad_enabled() and not torch.compiler.is_compiling() and (x.requires_grad or weight.requires_grad)
        return _ops.linear(x, weight, bias, channels, dgrad_channels, dgrad_scores, clock.tensor, training, shares, spec)

    def _check(self, x: Tensor, weight: Tensor, kind: str) -> None:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"{self._name()}: expected x of shape [..., {self.in_features}], got {list(x.shape)}")
        if x.dtype not in _FLOATS or weight.dtype not in _FLOATS:
            what, t = ("weight", weight) if x.dtype in _FLOATS else ("x", x)
            raise TypeError(f"{self._name()}: expected {what} in float32 or bfloat16, got {t.dtype}; convert it first")
        if type(weight) is not torch.nn.Parameter and hasattr(weight, "placements"):
            raise TypeError(f"{self._name()}: expected a whole weight, got a DTensor; shard with fully_shard, which gathers "
                            "weights before they are used, not with tensor parallelism")
        if kind not in _KINDS:
            raise ValueError(f"{self._name()}: expected a tensor on cpu or cuda, got {x.device}; move the model")

    def _name(self) -> str:
        return str(json.loads(self._spec)["path"] or "nvfp4.torch.Linear")

    def extra_repr(self) -> str:
        s = json.loads(self._spec)
        name = json.loads(s["recipe"])["name"] if s["recipe"].startswith("{") else s["recipe"]
        formats = "/".join(_nvfp4.linear_formats(_layer(self).handle))
        return f"{super().extra_repr()}, recipe={name}, role={s['role']}, formats={formats}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
                              missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str]) -> None:
        """Checkpoints without hot channels, or with those of another recipe, are whole: there are none chosen then."""
        mine = [prefix + name for name in _BUFFERS]
        fits = all(getattr(self, name) is None or (prefix + name in state_dict and
                                                   state_dict[prefix + name].shape == getattr(self, name).shape)
                   for name in _BUFFERS)
        known = state_dict if fits else {k: v for k, v in state_dict.items() if k not in mine}
        super()._load_from_state_dict(known, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        for keys in (missing_keys, unexpected_keys):
            keys[:] = [k for k in keys if k not in mine]
        for name in () if fits else _BUFFERS:
            reset(getattr(self, name))


def make_spec(recipe: str, family: str, role: str, layer: int, layers: int, id: int, group: str, path: str) -> str:
    """What operators are told of a layer."""
    return json.dumps({"recipe": recipe, "family": family, "role": role, "layer": layer, "layers": layers, "id": id,
                       "group": group, "path": path})


def _layer(module: Linear) -> _ops.Layer:
    return _ops.layer(torch.device("cpu"), module._spec, module.in_features, module.out_features)


def reset(channels_or_scores: Tensor | None) -> None:
    """Nothing is chosen."""
    if channels_or_scores is not None:
        channels_or_scores.fill_(-1 if channels_or_scores.dtype == torch.int32 else 0)


def adopt(module: torch.nn.Module, spec: str, clock: Clock) -> None:
    """Makes a torch.nn.Linear ours, in place: the same object, parameters and hooks."""
    assert isinstance(module, torch.nn.Linear)
    if module.in_features < 1 or module.out_features < 1:
        raise ValueError(f"expected a layer of at least 1 x 1, got {module.out_features} x {module.in_features}")
    object.__setattr__(module, "__class__", Linear)
    assert isinstance(module, Linear)
    module._spec, module._clock, module._clock_is_own = spec, clock, clock.is_of(module)
    layer = _layer(module)
    device = module.weight.device
    for suffix, count, width in (("", layer.channels, module.in_features),
                                 ("_dgrad", layer.dgrad_channels, module.out_features)):
        channels, scores = (torch.empty(n, dtype=dtype, device=device) if count > 0 else None
                            for n, dtype in ((count, torch.int32), (width, torch.float32)))
        module.register_buffer("hot_channels" + suffix, channels)
        module.register_buffer("hot_scores" + suffix, scores)
    for name in _BUFFERS:
        reset(getattr(module, name))


def give_up(module: Linear) -> None:
    """Makes it a torch.nn.Linear again."""
    for name in _BUFFERS:
        delattr(module, name)
    for name in ("_spec", "_clock", "_clock_is_own"):
        delattr(module, name)
    object.__setattr__(module, "__class__", torch.nn.Linear)
