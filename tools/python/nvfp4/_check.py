# SPDX-License-Identifier: Apache-2.0
"""Is a kernel's output what the hardware gives, is a quantizer what it says it is?"""

from __future__ import annotations

import json
import os
from typing import Any, Optional

from . import _arrays
from ._arrays import Progress, core
from ._product import NVFP4_SM120, check_epilogue, operand
from ._quantized import QuantizedTensor


class CheckResult:
    """What a check or a comparison found. ``str()`` is the program's text; fields are those of its JSON, as attributes and items.

    True when every word is equal.
    """

    __slots__ = ("equal", "_text", "_json_text", "_json")

    def __init__(self, equal: bool, text: str, json_text: str):
        self.equal = equal
        self._text = text
        self._json_text = json_text
        self._json: Optional[dict[str, Any]] = None

    @property
    def json(self) -> dict[str, Any]:
        """All fields."""
        if self._json is None:  # read when first asked for: it takes as long as comparing a small tensor
            self._json = json.loads(self._json_text)
        return self._json

    def __bool__(self) -> bool:
        return self.equal

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"CheckResult({'equal' if self.equal else self.json.get('verdict', 'different')!r})"

    def __getitem__(self, key: str) -> Any:
        return self.json[key]

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):  # what copy and pickle look for
            raise AttributeError(key)
        try:
            return self.json[key]
        except KeyError:
            raise AttributeError(f"the result has no field {key!r}; it has {', '.join(self.json)}") from None


def check(
    d: Any,
    a: Any,
    b: Any,
    unit: str = NVFP4_SM120,
    c: Any = None,
    alpha: float = 1.0,
    beta: float = 0.0,
    alpha_rule: str = "by_convention",
    out: Optional[str] = None,
    accumulation: str = "mmasim",
    a_source: Any = None,
    b_source: Any = None,
    sample: int = 128,
    pairs: bool = False,
    full: bool = False,
    trace: bool = False,
    threads: int = 0,
    progress: Progress = None,
) -> CheckResult:
    """Is ``d`` what the unit gives for these operands, and if not, which mistake explains it?

    d (M, N): F32, BF16 or F16 (F64 for FP64 units). a (M, K), b (N, K) and the rest as in :func:`gemm`. out: the type to which
    the epilogue rounds where d is F32 and holds rounded results. a_source, b_source: what quantized operands were made from;
    other quantizers are tried too. sample (4 to 65536), pairs, full, trace: as of ``nvfp4 check``. ValueError where things do
    not fit.

    >>> import numpy as np, nvfp4
    >>> q = nvfp4.quantize(np.eye(16, 64, dtype=np.float32))
    >>> bool(nvfp4.check(nvfp4.gemm(q, q), q, q))
    True
    """
    if not 4 <= _arrays.whole(sample, "sample") <= 65536:
        raise ValueError(f"sample is {sample}; expected 4 to 65536")
    if out not in (None, "f32", "bf16", "f16"):
        raise ValueError(f"out is {out!r}; expected f32, bf16 or f16")
    check_epilogue(alpha, beta, c)
    keep: list[object] = []
    d_array = _arrays.read(d, "d")
    a_arg, _ = operand(a, "a", keep)
    b_arg, _ = operand(b, "b", keep)
    return CheckResult(
        *core.check(
            d_array.arg, a_arg, b_arg, unit, _arrays.read_optional(c, "c", keep), alpha, beta, alpha_rule, out, accumulation,
            _arrays.read_optional(a_source, "a_source", keep), _arrays.read_optional(b_source, "b_source", keep), sample,
            pairs, full, trace, threads, progress,
        )
    )  # fmt: skip


def check_quantized(
    mine: QuantizedTensor,
    source: Any,
    convention: Optional[str] = None,
    global_amax: Optional[float] = None,
    threads: int = 0,
    progress: Progress = None,
) -> CheckResult:
    """Are a quantizer's codes and scales those of a convention, and if not, which step of the rule explains them?

    mine: the quantizer's output (:meth:`QuantizedTensor.from_parts` makes one of raw parts). source: what was quantized, F32,
    BF16 or F16, of mine's shape. convention: what mine should be; default what it names. global_amax: a calibrated one. progress
    gets the fraction done, of single steps of the rule and then of pairs; what it raises, and Ctrl-C, end the work. ValueError
    where shapes or formats do not fit.

    >>> import numpy as np, nvfp4
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 16)
    >>> nvfp4.check_quantized(nvfp4.quantize(x), x).equal
    True
    """
    if not isinstance(mine, QuantizedTensor):
        raise TypeError(f"mine: expected a QuantizedTensor, got {type(mine).__name__}; see QuantizedTensor.from_parts")
    array = _arrays.read(source, "source")
    return CheckResult(*core.check_quantized(mine._core, array.arg, convention, global_amax, threads, progress))


def compare(a: Any, b: Any, a_tensor: str = "", b_tensor: str = "", all: bool = False, progress: Progress = None) -> CheckResult:
    """Are two tensors, files, checkpoints, logs or folders equal, and where not: ``nvfp4 compare``.

    a, b: two paths of one kind (.npy, .safetensors, .json, .jsonl, or folders of them; a quantized file may meet a dense one), two
    quantized tensors, or two arrays. Words are compared: NaN with other bits differ, and so do +0 and -0; tensors of other types
    are compared by value and count as different. Metadata, and times in logs, are listed and do not count. a_tensor, b_tensor:
    one tensor of each file. all: equal tensors are listed too. progress gets the fraction done, of each file; what it raises, and
    Ctrl-C, end the work. ValueError for what cannot be read.

    >>> import numpy as np, nvfp4
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 16)
    >>> nvfp4.compare(nvfp4.quantize(x), nvfp4.quantize(x)).equal
    True
    """
    paths = [isinstance(side, (str, os.PathLike)) for side in (a, b)]
    if paths == [True, True]:
        return CheckResult(*core.compare_files(os.fspath(a), os.fspath(b), a_tensor, b_tensor, all, progress))
    if any(paths) or isinstance(a, QuantizedTensor) != isinstance(b, QuantizedTensor):
        raise TypeError(f"compare: expected two paths, two quantized tensors or two arrays, got {type(a).__name__} and {type(b).__name__}")
    if a_tensor or b_tensor:
        raise TypeError("a_tensor and b_tensor are of files")
    if isinstance(a, QuantizedTensor):
        return CheckResult(*core.compare_quantized(a._core, b._core, all, progress))
    x, y = _arrays.read(a, "a"), _arrays.read(b, "b")
    return CheckResult(*core.compare_arrays(x.arg, y.arg, all, progress))
