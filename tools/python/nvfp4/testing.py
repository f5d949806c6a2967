# SPDX-License-Identifier: Apache-2.0
"""For pytest and unittest: assertions about bits that say what is wrong."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ._check import check
from ._quantized import QuantizedTensor

__all__ = ["assert_bits_equal"]


def _words(x: Any, name: str) -> Any:
    """The array's words as unsigned integers, on the CPU."""
    if hasattr(x, "detach"):
        x = x.detach().cpu().contiguous()
        size = x.element_size()
        return x.view(importlib.import_module("torch").uint8).numpy().view(f"<u{size}").reshape(x.shape)
    if not isinstance(x, np.ndarray):
        x = np.from_dlpack(x) if hasattr(x, "__dlpack__") else np.asarray(x)
    if x.dtype.itemsize not in (1, 2, 4, 8):
        raise TypeError(f"{name}: expected elements of 1, 2, 4 or 8 bytes, got {x.dtype}")
    return np.ascontiguousarray(x).view(f"<u{x.dtype.itemsize}").reshape(x.shape)


def assert_bits_equal(actual: Any, expected: Any, unit: Any = None, **options: Any) -> None:
    """Raises AssertionError unless every word of ``actual`` is equal; NaN words and signs of zero count.

    expected: an array of the same type and shape; or operands ``(a, b)`` of a product, with ``unit`` and the options of
    :func:`nvfp4.check`: then the message is the diagnosis, which mistake explains the difference. Quantized tensors are
    compared by codes, scales and global scales.

    >>> import numpy as np, nvfp4
    >>> from nvfp4.testing import assert_bits_equal
    >>> q = nvfp4.quantize(np.eye(16, 64, dtype=np.float32))
    >>> assert_bits_equal(nvfp4.gemm(q, q), (q, q), unit="sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16")
    """
    __tracebackhide__ = True
    if isinstance(expected, tuple):
        if len(expected) != 2 or unit is None:
            raise TypeError("operands are (a, b), and need unit='ARCH:INSTRUCTION'")
        result = check(actual, *expected, unit=unit, **options)
        if not result:
            raise AssertionError(f"\n{result}")
        return
    if unit is not None or options:
        raise TypeError("unit and the options of nvfp4.check go with operands (a, b)")
    if isinstance(expected, QuantizedTensor) and isinstance(actual, QuantizedTensor):
        for part in ("codes", "block_scales", "row_amax"):
            x, y = getattr(actual, part), getattr(expected, part)
            if (x is None) != (y is None):
                raise AssertionError(f"{part}: only one of the two has it")
            if x is not None:
                _assert_words_equal(_words(x, part), _words(y, part), part + ": ")
        scales = [np.array([t.global_encode_scale, t.global_decode_scale]) for t in (actual, expected)]
        _assert_words_equal(_words(scales[0], ""), _words(scales[1], ""), "global encode and decode scale: ")
        return
    types = [str(getattr(x, "dtype", type(x).__name__)).replace("torch.", "") for x in (actual, expected)]
    if types[0] != types[1]:
        raise AssertionError(f"actual is {types[0]}, expected is {types[1]}")
    _assert_words_equal(_words(actual, "actual"), _words(expected, "expected"), "")


def _assert_words_equal(x: Any, y: Any, where: str) -> None:
    __tracebackhide__ = True
    if x.shape != y.shape:
        raise AssertionError(f"{where}actual has shape {x.shape}, expected {y.shape}")
    different = np.atleast_1d(x != y)
    count = int(different.sum())
    if count == 0:
        return
    first = tuple(int(i) for i in np.argwhere(different)[0])
    digits = 2 * x.dtype.itemsize
    got, want = (int(np.atleast_1d(w)[first]) for w in (x, y))
    raise AssertionError(
        f"{where}{count} of {different.size} words differ; first at {first}: got {got:0{digits}x}, want {want:0{digits}x}"
    )
