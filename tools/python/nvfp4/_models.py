# SPDX-License-Identifier: Apache-2.0
"""The reference trainer, single passes of its models, the lab and the report."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, NamedTuple, Optional, Sequence, Union

from . import _arrays
from ._arrays import Progress, core, to_numpy
from ._pretrained import how, token_ids

Path = Union[str, os.PathLike[str]]
#: gets step, steps, loss, tokens per second
StepCall = Optional[Callable[[int, int, float, float], Any]]
#: gets a stage's name and the fraction of it that is done
LabCall = Optional[Callable[[str, float], Any]]


def train(out: Path, progress: StepCall = None, **options: Any) -> dict[str, Any]:
    """Trains a small language model in exact arithmetic: ``nvfp4 train``.

    out: the run's folder. options: the fields of ``nvfp4 train --help`` with underscores (``model``, ``size``, ``recipe``,
    ``data``, ``steps``, ``seed``, ``batch``, ``sequence``, ``learning_rate``, ...). progress gets step, steps, loss and tokens per
    second after each step; what it raises, and Ctrl-C, end the run behind its last checkpoint.

    Result: what ``--json`` prints; ``diverged`` is there when the computation did not stay finite. ValueError for a wrong value,
    TypeError for an option that does not exist.

    >>> import numpy as np, nvfp4, os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> run = os.path.join(folder.name, "run")
    >>> nvfp4.train(run, model="gla", size="tiny", recipe="nvfp4", data="task:copy,vocab=200", steps=2, batch=1, sequence=16)["steps"]
    2
    >>> nvfp4.forward(os.path.join(run, "checkpoint.safetensors"), np.arange(17, dtype=np.int32)[None]).tensors["logits"].shape
    (1, 16, 256)
    >>> nvfp4.report(run, os.path.join(folder.name, "report.html"))["runs"]
    1
    >>> folder.cleanup()
    """
    given = {key: os.fspath(v) if isinstance(v, os.PathLike) else v for key, v in options.items() if v is not None}
    return dict(json.loads(core.train(json.dumps({**given, "out": os.fspath(out)}), progress)))


class Forward(NamedTuple):
    """Every tensor of one pass."""

    tensors: dict[str, Any]  #: logits, loss, act/MODULE, grad/PARAMETER
    metadata: dict[str, str]  #: model and recipe as JSON
    result: dict[str, Any]  #: loss, and the first tensor that was not finite if any


def forward(
    checkpoint: Path,
    tokens: Any,
    recipe: str = "",
    grads: bool = False,
    model: str = "",
    size: str = "tiny",
    seed: int = 1,
    threads: int = 0,
    device: str = "cpu",
    progress: Progress = None,
    operators: bool = False,
    preset: str = "",
    rotate: bool = False,
    patch: bool = False,
    activations: str = "",
    kv: str = "",
) -> Forward:
    """Runs a checkpoint on given tokens and gives every tensor: ``nvfp4 forward``.

    checkpoint: written by train or init, a PyTorch model's safetensors, or a Hugging Face folder. tokens: int32 (B, T + 1), inputs
    [:, :-1], targets [:, 1:]; of a folder also a text (one sequence). recipe: default bf16. grads: also the gradients of the mean
    loss. operators: also the matrices of the operators inside mixers. preset, rotate, patch, activations and kv are generate()'s,
    for folders, which run forward alone, on the CPU. progress gets the fraction done; what it raises, and Ctrl-C, end the work.
    ValueError for what does not fit.

    >>> import numpy as np, nvfp4, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = nvfp4.train(folder, data="task:copy,vocab=200", steps=2, batch=1, sequence=16)
    ...     checkpoint = os.path.join(folder, "checkpoint.safetensors")
    ...     passed = nvfp4.forward(checkpoint, np.arange(17, dtype=np.int32)[None], "chon", grads=True)
    >>> passed.tensors["logits"].shape, passed.tensors["grad/model.embeddings.weight"].shape
    ((1, 16, 256), (256, 128))
    """
    path = os.fspath(checkpoint)
    if core.is_pretrained(path):
        for name, given in {"grads": grads, "operators": operators, "model": bool(model), "device": device != "cpu"}.items():
            if given:
                raise ValueError(f"{name}: a Hugging Face folder says what it is, and runs forward alone, on the CPU; leave it out")
        ids = token_ids(tokens, path)
        array = _arrays.read(ids[None] if isinstance(tokens, str) else ids, "tokens")
        options = how(recipe, preset, rotate, patch, activations, kv or "f32", threads, seed)
        text, (tensors, metadata) = core.folder_forward(path, array.arg, options, progress)
    else:
        for name, folder_only in {"preset": preset, "rotate": rotate, "patch": patch, "activations": activations, "kv": kv}.items():
            if folder_only:
                raise ValueError(f"{name} is for Hugging Face folders; the checkpoint is a file")
        array = _arrays.read(tokens, "tokens")
        text, (tensors, metadata) = core.forward(path, array.arg, recipe or "bf16", model, size, device, grads, operators, threads, seed,
                                                 progress)
    result = json.loads(text)
    del result["output"]
    return Forward({name: to_numpy(t) for name, t in tensors.items()}, dict(metadata), result)


def report(folders: Union[Path, Sequence[Path]], output: Path, progress: Progress = None) -> dict[str, Any]:
    """Writes one HTML page about training runs or experiments: ``nvfp4 report``. Result: what ``--json`` prints.

    progress gets the fraction done; what it raises, and Ctrl-C, end the work. ValueError for a folder without runs.

    >>> import nvfp4, os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = nvfp4.train(folder, data="task:copy,vocab=200", steps=2, batch=1, sequence=16)
    ...     nvfp4.report(folder, os.path.join(folder, "report.html"))["runs"]
    1
    """
    if isinstance(folders, (str, os.PathLike)):
        folders = [folders]
    return dict(json.loads(core.report([os.fspath(f) for f in folders], os.fspath(output), progress)))


def lab(out: Path, progress: LabCall = None, **options: Any) -> dict[str, Any]:
    """Recipes and formats side by side: ``nvfp4 lab``.

    out: the lab's folder. options: those of ``nvfp4 lab --help`` with underscores (``model``, ``data``, ``recipes`` as a text with
    commas or a list, ``seeds``, ``steps``, ``draws``, ``rates``, ...). progress gets a stage and the fraction of it that is done;
    what it raises, and Ctrl-C, end the work, and the same call goes on.

    Result: what ``--json`` prints. ValueError for a wrong value, TypeError for an option that does not exist.

    The smallest takes about a minute, most of it for measures whose size no option sets (tests/python/test_tables.py runs it):

    >>> import nvfp4, os
    >>> found = nvfp4.lab("lab", data="task:copy", recipes=["nvfp4"], seeds=2, steps=4, draws=2, batch=1, sequence=16)
    >>> [recipe["recipe"] for recipe in found["recipes"]], os.path.exists("lab/lab.html")
    (['nvfp4', 'bf16'], True)
    """
    given = {key: os.fspath(v) if isinstance(v, os.PathLike) else v for key, v in options.items() if v is not None}
    if isinstance(given.get("recipes"), (list, tuple)):
        given["recipes"] = ",".join(os.fspath(r) for r in given["recipes"])
    return dict(json.loads(core.lab(json.dumps({**given, "out": os.fspath(out)}), progress)))
