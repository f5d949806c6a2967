# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of quantized models: Hugging Face folders, their index, .safetensors and .gguf files.

:func:`open` maps the files and reads their headers; a tensor is read when it is asked for. Which containers are understood, and
what each tensor of them means: golden/checkpoint/README.md. ``nvfp4 inspect`` and ``nvfp4 export`` from Python::

    c = nvfp4.checkpoints.open("model-nvfp4")
    q = c["model.layers.0.mlp.up_proj.weight"].quantized()    # a QuantizedTensor: codes, scales, global scale as stored
    print(c.inspect(against="model-bf16"))
    nvfp4.checkpoints.export("model-bf16", "model-nvfp4", to="modelopt", convention="te")
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional, Union

from . import _arrays
from ._arrays import Progress, core, to_numpy
from ._quantized import QuantizedTensor

__all__ = ["Checkpoint", "Inspection", "StoredTensor", "Weight", "export", "open"]

Path = Union[str, os.PathLike[str]]


class StoredTensor(NamedTuple):
    """A tensor as its file has it."""

    name: str
    type: str  #: as the file says: ``F8_E4M3``, ``NVFP4``
    shape: tuple[int, ...]


class Weight:
    """A weight: stored tensors put together by the container that they are of."""

    __slots__ = ("_core", "name", "kind", "shape", "stored_as", "global_scale", "input_scale", "faults", "decodable", "block_scaled")

    def __init__(self, handle: Any, facts: tuple[Any, ...]):
        self._core = handle
        self.name: str = facts[0]
        self.kind: str = facts[1]  #: the container, such as ``modelopt-nvfp4``; of plain numbers their type
        self.shape: tuple[int, ...] = tuple(facts[2])  #: (rows, k), or (matrices, rows, k) of stacked experts
        self.stored_as: str = facts[3]  #: type of the tensor with the codes
        self.global_scale: Optional[float] = facts[4]  #: the word as stored, of the first matrix
        self.input_scale: Optional[float] = facts[5]
        self.faults: tuple[str, ...] = tuple(facts[6])  #: why it cannot be decoded
        self.decodable: bool = facts[7]
        self.block_scaled: bool = facts[8]

    def quantized(self, index: int = 0) -> QuantizedTensor:
        """Codes and scales of matrix ``index`` as they are stored, the codes in order of k, scales row by row.

        The tensor has the stored global scale, except of a container that applies it to a product (GGUF): there it is
        ``global_scale``, by which what the tensor means is to be multiplied.

        ValueError for a weight without block scales, or one that cannot be decoded.

        >>> import nvfp4, os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = nvfp4.train(folder, model="llama", data="task:copy,vocab=200", steps=2, batch=1, sequence=16)
        ...     c = nvfp4.checkpoints.open(os.path.join(folder, "checkpoint.safetensors"))
        ...     _ = c.export(os.path.join(folder, "served"), to="modelopt", convention="te", tensor="*up_proj*")
        ...     nvfp4.checkpoints.open(os.path.join(folder, "served"))["model.layers.0.mlp.up_proj.weight"].quantized()
        QuantizedTensor(modelopt, shape=(384, 128), e2m1, ue4m3 per 1x16)
        """
        return QuantizedTensor(core.checkpoint_quantized(self._core, self.name, _arrays.whole(index, "index")))

    def values(self, index: int = 0, first: int = 0, count: Optional[int] = None, threads: int = 0,
               progress: Progress = None) -> Any:
        """float32 (count, k): rows from ``first`` of matrix ``index``, as the container's own software reconstructs them.

        progress gets the fraction done; what it raises, and Ctrl-C, end the work. ValueError for rows that are not there.

        >>> import nvfp4, os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = nvfp4.train(folder, model="llama", data="task:copy,vocab=200", steps=2, batch=1, sequence=16)
        ...     c = nvfp4.checkpoints.open(os.path.join(folder, "checkpoint.safetensors"))
        ...     c["model.layers.0.mlp.up_proj.weight"].values(first=5, count=7).shape
        (7, 128)
        """
        rows = -1 if count is None else _arrays.whole(count, "count")
        if count is not None and rows < 0:
            raise ValueError(f"count is {rows}; expected at least 0")
        return to_numpy(core.checkpoint_values(self._core, self.name, _arrays.whole(index, "index"), first, rows, threads, progress))

    def __repr__(self) -> str:
        return f"Weight({self.name}, {self.kind}, shape={self.shape})"


class Inspection:
    """What an inspection found. ``str()`` is the program's text, ``json`` its JSON. True when nothing is wrong."""

    __slots__ = ("wrong", "json", "_text")

    def __init__(self, wrong: int, text: str, json_text: str):
        self.wrong = wrong  #: how many findings say that something is wrong
        self.json: dict[str, Any] = json.loads(json_text)
        self._text = text

    @property
    def findings(self) -> list[dict[str, Any]]:
        """tensor, kind, text, wrong of each."""
        return list(self.json["findings"])

    def __bool__(self) -> bool:
        return self.wrong == 0

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Inspection({len(self.json['weights'])} weights, {self.wrong} wrong)"


class Checkpoint(Mapping[str, Weight]):
    """An open checkpoint: its weights by name, in its order.

    >>> import nvfp4, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = nvfp4.train(folder, model="llama", data="task:copy,vocab=200", steps=2, batch=1, sequence=16)
    ...     c = nvfp4.checkpoints.open(os.path.join(folder, "checkpoint.safetensors"))
    >>> len(c), c["model.layers.0.mlp.up_proj.weight"], c.metadata["step"]
    (114, Weight(model.layers.0.mlp.up_proj.weight, F32, shape=(384, 128)), '2')
    """

    def __init__(self, handle: Any):
        """Internal: use open()."""
        self._core = handle
        self._weights: Optional[dict[str, Weight]] = None
        path, description, files, metadata = core.checkpoint_facts(handle)
        self.path: str = path
        self.description: str = description  #: one line
        self.files: list[str] = files
        self.metadata: dict[str, str] = metadata  #: of .safetensors files; the strings of a GGUF file

    def _all(self) -> dict[str, Weight]:
        if self._weights is None:
            self._weights = {facts[0]: Weight(self._core, facts) for facts in core.checkpoint_weights(self._core)}
        return self._weights

    def __getitem__(self, name: str) -> Weight:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """The stored tensors by name: codes, scales and all others apart.

        >>> import numpy as np, nvfp4, os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = os.path.join(folder, "model.safetensors")
        ...     nvfp4.quantize(np.eye(16, 32, dtype=np.float32)).save(file)
        ...     nvfp4.checkpoints.open(file).tensors["codes"].shape
        (16, 16)
        """
        return {name: StoredTensor(name, type_, tuple(shape)) for name, type_, shape in core.checkpoint_tensors(self._core)}

    def tensor(self, name: str) -> Any:
        """A stored tensor as it is, read now; raw bytes where its type is none of NumPy's or ml_dtypes'.

        ValueError for a name that is not there.

        >>> import numpy as np, nvfp4, os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = os.path.join(folder, "model.safetensors")
        ...     nvfp4.quantize(np.eye(16, 32, dtype=np.float32)).save(file)
        ...     nvfp4.checkpoints.open(file).tensor("codes")[0]
        array([7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype=uint8)
        """
        return to_numpy(core.checkpoint_tensor(self._core, name))

    def inspect(
        self,
        tensor: str = "*",
        against: Optional[Path] = None,
        convention: str = "",
        threads: int = 0,
        details: Optional[bool] = None,
        progress: Progress = None,
    ) -> Inspection:
        """What the weights hold and what is wrong with them: ``nvfp4 inspect``.

        tensor: a glob of names. against: the checkpoint before quantization; convention: with it, the one that must give the bytes.
        details: channels, blocks and scales of each weight in the text; default for up to four. progress gets the fraction done.
        ValueError for a glob that names nothing and for a checkpoint that does not fit.

        >>> import nvfp4, os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = nvfp4.train(folder, model="llama", data="task:copy,vocab=200", steps=2, batch=1, sequence=16)
        ...     c = nvfp4.checkpoints.open(os.path.join(folder, "checkpoint.safetensors"))
        ...     found = c.inspect("model.layers.0.mlp.*", details=False)
        >>> found
        Inspection(3 weights, 0 wrong)
        >>> print(str(found).splitlines()[-1])
        nothing wrong found in 3 weights
        """
        other = "" if against is None else os.fspath(against)
        return Inspection(*core.checkpoint_inspect(self._core, tensor, other, convention, threads, details, progress))

    def alike(self, masters: Path, recipe: str, tensor: str = "", threads: int = 0, progress: Progress = None) -> dict[str, Any]:
        """Whether a trainer's weights become these bytes under a recipe, layer by layer, and why not: ``nvfp4 inspect --recipe``.

        masters: the trainer's checkpoint. Result: what ``--json`` prints; ``differing`` is the number of layers that are not alike.
        ValueError for what cannot be read and for an unknown recipe.

        >>> import nvfp4, os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = nvfp4.train(folder, model="llama", data="task:copy,vocab=200", steps=2, batch=1, sequence=16)
        ...     c = nvfp4.checkpoints.open(os.path.join(folder, "checkpoint.safetensors"))
        ...     _ = c.export(os.path.join(folder, "served"), to="modelopt", recipe="nvfp4-plain")
        ...     found = nvfp4.checkpoints.open(os.path.join(folder, "served")).alike(c.path, "nvfp4-plain")
        >>> len(found["layers"]), found["differing"]
        (28, 0)
        """
        return dict(json.loads(core.checkpoint_alike(self._core, os.fspath(masters), recipe, tensor, threads, progress)))

    def export(
        self,
        output: Path,
        to: str,
        convention: str = "",
        tensor: str = "",
        exact: bool = False,
        threads: int = 0,
        progress: Progress = None,
        recipe: str = "",
    ) -> dict[str, Any]:
        """Writes it in another container: ``nvfp4 export``; codes and block scales are not touched.

        output: a folder to be made, or a .gguf file. to: ``modelopt``, ``compressed-tensors``, ``gguf`` or ``hf-bf16``. convention:
        quantizes numbers, those of the matrices that the glob ``tensor`` names; recipe: instead, as its forward products do. exact:
        ValueError where a reconstructed value would change. Result: what ``--json`` prints.

        >>> import nvfp4, os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = nvfp4.train(folder, model="llama", data="task:copy,vocab=200", steps=2, batch=1, sequence=16)
        ...     c = nvfp4.checkpoints.open(os.path.join(folder, "checkpoint.safetensors"))
        ...     made = c.export(os.path.join(folder, "model.gguf"), to="gguf", convention="te", tensor="model.layers.*_proj*")
        >>> made["quantized"], made["copied"]
        (28, 86)
        """
        return dict(json.loads(core.checkpoint_export(self._core, os.fspath(output), to, convention, recipe, tensor, exact, threads, progress)))

    def __repr__(self) -> str:
        return f"Checkpoint({self.path}: {self.description})"


def open(path: Path) -> Checkpoint:
    """Opens a Hugging Face folder, its index, a .safetensors or a .gguf file. ValueError in one line for what cannot be read.

    >>> import numpy as np, nvfp4, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "model.safetensors")
    ...     nvfp4.quantize(np.eye(16, 32, dtype=np.float32)).save(file)
    ...     nvfp4.checkpoints.open(file).tensors["codes"]
    StoredTensor(name='codes', type='U8', shape=(16, 16))
    """
    return Checkpoint(core.checkpoint_open(os.fspath(path)))


def export(source: Path, output: Path, to: str, **options: Any) -> dict[str, Any]:
    """:meth:`Checkpoint.export` of a path.

    >>> import nvfp4, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = nvfp4.train(folder, model="llama", data="task:copy,vocab=200", steps=2, batch=1, sequence=16)
    ...     source, served = os.path.join(folder, "checkpoint.safetensors"), os.path.join(folder, "served")
    ...     made = nvfp4.checkpoints.export(source, served, to="compressed-tensors", convention="te", tensor="model.*.mlp.*")
    >>> made["quantized"]
    12
    """
    return open(source).export(output, to, **options)
