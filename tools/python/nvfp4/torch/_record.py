# SPDX-License-Identifier: Apache-2.0
"""What a converted model's layers read and made in a step, in a file that the C++ program repeats bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from nvfp4 import _nvfp4
from nvfp4.torch import _clock, _ops, _ranks
from nvfp4.torch._convert import conversion_of, converted

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int32: "I32"}


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """A tensor that came out otherwise than recorded.

    >>> import pathlib, tempfile, torch, nvfp4.torch
    >>> model = nvfp4.torch.convert(torch.nn.Sequential(torch.nn.Linear(64, 16)), "nvfp4", {"0": "mlp.up_proj"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "step.safetensors")
    ...     with nvfp4.torch.record(model, file):
    ...         model(torch.randn(32, 64)).sum().backward()
    ...     recorded = file.read_bytes()
    ...     _ = file.write_bytes(recorded[:-1] + bytes([recorded[-1] ^ 128]))  # another sign of the last word
    ...     for m in nvfp4.torch.replay(file):
    ...         print(m.name, m.index, m.differing, "of", m.count)
    bias_grad/0 [15] 1 of 16
    """

    name: str  # "weight_grad/model.layers.0.mlp.up_proj"
    index: str  # of the first difference: "[3, 17]"
    recorded: str  # the words there, in hexadecimal
    replayed: str
    differing: int
    count: int


class _Recorder:
    def __init__(self, paths: set[str]) -> None:
        self.paths = paths
        self.pending: dict[str, list[tuple[int, dict[str, Tensor]]]] = {}
        self.done: dict[str, dict[str, Tensor]] = {}

    def __call__(self, spec: str, name: str, tensors: dict[str, Tensor | None]) -> None:
        path = json.loads(spec)["path"]
        if path not in self.paths or "output_grad" in self.done.get(path, {}):
            return
        reads = tensors["input"]
        assert reads is not None
        if name == "forward":
            kept = {key: _copy(t) for key, t in tensors.items() if t is not None}
            self.done.setdefault(path, kept)
            self.pending.setdefault(path, []).append((reads.data_ptr(), kept))
            return
        # of several calls, the first that comes back
        for address, kept in self.pending.get(path, []):
            if address == reads.data_ptr():
                more = {key: _copy(t) for key, t in tensors.items() if t is not None and key not in kept and t.numel() > 0}
                self.done[path] = kept | more
                del self.pending[path]
                return


def _copy(t: Tensor) -> Tensor:
    return t.detach().to("cpu", copy=True).contiguous()


def _write(path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A .safetensors file: 8 bytes of length, JSON, data. It appears whole or not at all."""
    header: dict[str, object] = {"__metadata__": metadata}
    begin = 0
    for name, t in tensors.items():
        end = begin + t.numel() * t.element_size()
        header[name] = {"dtype": _DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    part = pathlib.Path(f"{os.fspath(path)}.part")
    with part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for t in tensors.values():
            file.write(t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() > 0 else b"")
    part.replace(path)


@contextlib.contextmanager
def record(model: torch.nn.Module, path: str | os.PathLike[str]) -> Iterator[None]:
    """Records the forward and backward passes that run in the context into a .safetensors file.

    Of every converted layer its x, weight, bias, hot channels, y and, where a gradient comes back, dy, dx, dW and db; of
    several calls the first that comes back. `nvfp4 replay FILE` repeats the products and demands the same words, `nvfp4
    replay FILE --recipe R` measures another recipe on them. Weights must be whole when they are used, as under
    DistributedDataParallel and FSDP2; the file is of this rank. ValueError for a model that is not converted, within
    another record(), and where no layer ran.

    >>> import os, tempfile, torch, nvfp4.golden, nvfp4.torch
    >>> model = nvfp4.torch.convert(torch.nn.Sequential(torch.nn.Linear(64, 16, bias=False)), "nvfp4", {"0": "mlp.up_proj"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "step.safetensors")
    ...     with nvfp4.torch.record(model, file):
    ...         model(torch.randn(32, 64, requires_grad=True)).sum().backward()
    ...     for name, tensor in sorted(nvfp4.golden.load(file).tensors.items()):
    ...         print(name, tensor.shape)
    input/0 (32, 64)
    input_grad/0 (32, 64)
    output/0 (32, 16)
    output_grad/0 (32, 16)
    weight/0 (16, 64)
    weight_grad/0 (16, 64)
    """
    conversion = conversion_of(model)
    layers = converted(model)
    for module in layers.values():
        layer = _ops.layer(torch.device("cpu"), module._spec, module.in_features, module.out_features)
        if layer.reduces and _ranks.find(layer.group) is not None:
            raise ValueError("a rank by itself cannot repeat a recipe with amax all-ranks; record on one process")
    if _ops.observer is not None:
        raise ValueError("expected one record() at a time; leave the other context first")
    recorder = _Recorder(set(layers))
    _ops.observer = recorder
    try:
        yield
    finally:
        _ops.observer = None
    if not recorder.done:
        raise ValueError("no converted layer ran in the context; run a forward and backward pass there")
    tensors: dict[str, Tensor] = {}
    places = {}
    for name, kept in recorder.done.items():
        seed, step, micro_batch = _clock.key(kept["clock"])
        spec = json.loads(layers[name]._spec)
        places[name] = {"role": spec["role"], "layer": spec["layer"], "layers": spec["layers"], "id": spec["id"], "seed": seed,
                        "step": step, "micro_batch": micro_batch}
        if "bias" not in kept:
            kept.pop("bias_grad", None)
        tensors |= {f"{kind}/{name}": t for kind, t in kept.items()
                    if kind != "clock" and not (kind.startswith("hot_channels") and t.numel() == 0)}
    text = _nvfp4.linear_recipe_json(conversion.recipe)
    _write(path, tensors, {"format": "nvfp4-operators", "version": "1", "recipe": text, "family": conversion.family,
                           "layers": str(max(1, conversion.layers)), "operators": json.dumps(places)})


def replay(path: str | os.PathLike[str], progress: Callable[[float], object] | None = None) -> list[Mismatch]:
    """Repeats a file of record() in the C++ library: what came out otherwise; empty where every word is the same.

    progress gets the fraction done; what it raises, and Ctrl-C, end the work. ValueError for another file.

    >>> import os, tempfile, torch, nvfp4.torch
    >>> model = nvfp4.torch.convert(torch.nn.Sequential(torch.nn.Linear(64, 16)), "nvfp4", {"0": "mlp.up_proj"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "step.safetensors")
    ...     with nvfp4.torch.record(model, file):
    ...         model(torch.randn(32, 64)).sum().backward()
    ...     nvfp4.torch.replay(file)
    []
    """
    return [Mismatch(*row) for row in _nvfp4.linear_replay(os.fspath(path), torch.get_num_threads(), progress)]
