# SPDX-License-Identifier: Apache-2.0
"""Pretrained models in Hugging Face form: loss over data, new tokens. A single pass with every tensor: forward()."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from pathlib import Path as _File
from typing import Any, NamedTuple, Optional, Sequence, Union

import numpy as np

from . import _arrays
from ._arrays import Progress, core, to_numpy

Path = Union[str, os.PathLike[str]]
#: recipe, preset, rotate, patch, activations, kv, threads, seed
How = tuple[str, str, bool, bool, str, str, int, int]


def _tokenizer(folder: str) -> Any:
    """The folder's tokenizer.json."""
    base = _File(folder)
    file = (base if base.is_dir() else base.parent) / "tokenizer.json"
    if not file.exists():
        raise ValueError(f"a text needs {file}, which is not there; give token ids")
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError:
        raise ValueError("a text needs the package tokenizers, which is not installed: pip install tokenizers, or give token ids") from None
    return tokenizers.Tokenizer.from_file(str(file))


def token_ids(tokens: Any, folder: str) -> Any:
    """int32: the ids of a text by the folder's tokenizer.json, or those of an array or a list as they are."""
    if isinstance(tokens, str):
        return np.asarray(_tokenizer(folder).encode(tokens).ids, np.int32)
    if isinstance(tokens, (list, tuple)):
        ids = np.asarray(tokens)
    else:
        array = _arrays.read(tokens, "tokens")
        dtype, shape, address = array.arg
        ids = to_numpy((dtype, shape, (address, int(np.prod(shape)), array.keep)))
    if ids.dtype.kind not in "iu" and ids.size > 0:
        raise TypeError(f"tokens: expected a text or whole numbers, got {ids.dtype}")
    if ids.size > 0 and (ids.min() < 0 or ids.max() > 2**31 - 1):
        raise ValueError(f"tokens: expected ids from 0 to 2^31 - 1, got {ids.min()} to {ids.max()}")
    return np.ascontiguousarray(ids, np.int32)


def how(recipe: str, preset: str, rotate: bool, patch: bool, activations: str, kv: str, threads: int, seed: int) -> How:
    return (recipe, preset, rotate, patch, activations, kv, _arrays.whole(threads, "threads"), _arrays.whole(seed, "seed"))


class Generated(NamedTuple):
    """New tokens behind a prompt."""

    tokens: Any  #: int32 (n), the new ones
    text: Optional[str]  #: of them, where the prompt was a text
    logits: Any  #: float32 (n, vocabulary) that each was chosen from, or None
    result: dict[str, Any]  #: what ``--json`` prints: tokens, products, and the first tensor that was not finite if any


def generate(
    folder: Path,
    tokens: Any,
    new: int = 32,
    temperature: float = 0.0,
    seed: int = 1,
    recipe: str = "",
    preset: str = "",
    rotate: bool = False,
    patch: bool = False,
    activations: str = "",
    kv: str = "f32",
    recompute: bool = False,
    logits: bool = False,
    threads: int = 0,
    progress: Progress = None,
) -> Generated:
    """New tokens from a Hugging Face folder, in exact arithmetic: ``nvfp4 generate``.

    tokens: the prompt, ids (int32 (T) or (1, T)) or a text for the folder's tokenizer.json and the package tokenizers. temperature
    0: the token of the largest logit. recipe (default bf16) or preset, with rotate and patch: how weights that are numbers are
    computed. activations: convention of the inputs of quantized weights, or ``none``; default: as the folder says. kv: keys and
    values in ``f32``, ``bf16``, ``e4m3`` or ``nvfp4``. recompute: without a cache. logits: also what each token was chosen from.
    progress gets the fraction done; what it raises, and Ctrl-C, end the work. ValueError for what does not fit.

    On a Llama with 97 tokens in the folder ``model`` (tests/python/test_pretrained.py makes one and runs this there):

    >>> import nvfp4
    >>> made = nvfp4.generate("model", [3, 1, 4, 1, 5], new=8, preset="te", kv="nvfp4", logits=True)
    >>> made.tokens.shape, made.logits.shape
    ((8,), (8, 97))
    >>> again = nvfp4.generate("model", [3, 1, 4, 1, 5], new=8, preset="te", kv="nvfp4", recompute=True)
    >>> made.tokens.tolist() == again.tokens.tolist()
    True
    """
    path = os.fspath(folder)
    ids = token_ids(tokens, path)
    prompt = ids[0] if ids.ndim == 2 and ids.shape[0] == 1 else ids
    if prompt.ndim != 1:
        raise ValueError(f"tokens: expected ids of shape [T] or [1, T], got {list(ids.shape)}")
    array = _arrays.read(np.ascontiguousarray(prompt), "tokens")
    options = how(recipe, preset, rotate, patch, activations, kv, threads, seed)
    text, made, kept = core.folder_generate(path, array.arg, options, _arrays.whole(new, "new"), temperature, recompute, logits, progress)
    out = to_numpy(made)
    words = _tokenizer(path).decode(out.tolist()) if isinstance(tokens, str) else None
    return Generated(out, words, None if kept is None else to_numpy(kept), json.loads(text))


def evaluate(
    folder: Path,
    data: Any = None,
    text: Optional[str] = None,
    recipe: str = "",
    preset: str = "",
    rotate: bool = False,
    patch: bool = False,
    activations: str = "",
    kv: str = "f32",
    sequence: int = 64,
    batch: int = 1,
    batches: Optional[int] = None,
    bos: int = -1,
    validation: float = 0.05,
    validation_data: Path = "",
    seed: int = 1,
    threads: int = 0,
    progress: Progress = None,
) -> dict[str, Any]:
    """Loss of a Hugging Face folder over data: ``nvfp4 eval``. Result: what ``--json`` prints.

    data: a path, as ``nvfp4 eval --data`` takes it, of which the last ``validation`` or ``validation_data`` count; or ids, all of
    which count. text: in its place, for the folder's tokenizer.json and the package tokenizers. batches: of ``batch`` sequences of
    ``sequence`` inputs; default: 64 of a path, of ids and texts what there is. bos: id in place of the first input of every
    sequence. The others are generate()'s. ValueError for what does not fit.

    On a Llama with 97 tokens in the folder ``model`` (tests/python/test_pretrained.py makes one and runs this there):

    >>> import nvfp4
    >>> found = nvfp4.evaluate("model", list(range(65)), recipe="nvfp4", sequence=16)
    >>> found["tokens"], found["recipe"], found["loss"] > 0
    (64, 'nvfp4', True)
    """
    if (data is None) == (text is None):
        raise TypeError("evaluate: give data or text")
    path = os.fspath(folder)
    options = how(recipe, preset, rotate, patch, activations, kv, threads, seed)

    def run(source: str, held_out: str, count: int) -> dict[str, Any]:
        return dict(json.loads(core.folder_evaluate(path, source, options, validation, held_out, batch, sequence, count, bos, progress)))

    if isinstance(data, (str, os.PathLike)):
        return run(os.fspath(data), os.fspath(validation_data), 64 if batches is None else batches)
    ids = token_ids(text if data is None else data, path).reshape(-1)
    with tempfile.TemporaryDirectory() as place:
        file = os.path.join(place, "tokens.npy")
        np.save(file, ids)
        whole = (ids.size - 1) // max(sequence * batch, 1)
        return run(file, file, max(whole, 1) if batches is None else batches)


__all__: Sequence[str] = ["Generated", "How", "evaluate", "generate", "how", "token_ids"]
