# SPDX-License-Identifier: Apache-2.0
"""Conversions, dot products and matrix products on named units."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

from . import _arrays, _cuda
from ._arrays import Progress, core
from ._quantized import QuantizedTensor

NVFP4_SM120 = "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"

#: (first row, row behind the last, decode scale)
Ranges = Sequence[tuple[int, int, float]]


class Report(NamedTuple):
    """How a product was computed; changes no bit."""

    engine: str  #: definition, oracle, fp4 or fdpa; cuda: on a GPU
    isa: str  #: instruction set of a vector engine; the GPU's architecture, such as sm_90
    by_definition: int  #: outputs that the definition computed; -1 on a GPU, which does not tell


def operand(x: Any, name: str, keep: list[object]) -> tuple[Any, _arrays.Wrap]:
    """A quantized tensor's handle or a dense array, and how results are made."""
    if isinstance(x, QuantizedTensor):
        keep.append(x)
        return x._core, x._wrap
    array = _arrays.read(x, name)
    keep.append(array.keep)
    return array.arg, array.wrap


def convert(x: Any, cvt: str | None = None, values: bool = False, progress: Progress = None, *, to: str | None = None,
            rounding: str = "rne", saturate: bool = False, seed: int = 0, offset: int = 0) -> Any:
    """Numbers through one conversion instruction, or into any small format, element by element.

    x: of the type that the conversion reads; uint8 with one code a byte for formats without a dtype. cvt: a name of
    :func:`conversions`. Result: the codes in the format's dtype (of ml_dtypes or torch), uint8 words where there is none; with
    ``values`` float32. ValueError for an unknown conversion or an x of another type.

    With ``to`` instead of cvt: a format of one's own, as the program's ``--to``: a listed name ("e4m3"), "eXmY" with ":bias=N",
    ":ieee", ":nan", ":finite" or ":fnuz", ":unsigned"; "fixedN.F"; "positN:es=E". rounding: rne, rna, rz, rp, rm, odd or sr
    (random words of seed and offset, by element); ``saturate``: what overflows becomes the largest number. x of any
    floating-point type; codes are uint8, uint16 or uint32, values float64.

    >>> import numpy as np, nvfp4
    >>> nvfp4.convert(np.array([0.3, 500.0], np.float32), "cvt.rn.satfinite.e4m3x2.f32", values=True)
    array([3.125e-01, 4.480e+02], dtype=float32)
    >>> nvfp4.convert(np.array([0.3, 500.0], np.float32), to="posit8:es=0", values=True)
    array([ 0.296875, 64.      ])
    """
    array = _arrays.read(x, "x")
    if cvt is not None and to is None:
        return array.wrap(core.convert(array.arg, cvt, values, progress)[0])
    if to is not None and cvt is None:
        return array.wrap(core.convert_to(array.arg, to, rounding, saturate, seed, offset, values, progress)[0])
    raise ValueError("convert: expected either cvt, an instruction, or to, a format")


def mma(
    unit: str,
    a: Any,
    b: Any,
    c: Any = None,
    scale_a: Any = None,
    scale_b: Any = None,
    accumulation: str = "mmasim",
    exact: bool = False,
    progress: Progress = None,
) -> Any:
    """n independent dot products on one unit, raw words in and out.

    a, b: (n, K) words of the unit's element formats (for 4-bit ones uint8 (n, K / 2), low nibble first), or of the formats' own
    dtypes. scale_a, scale_b: uint8 (n, K / block) for units with block scales. c: (n) words of the accumulator; without it sums
    start at +0. Result: (n) unsigned words of the accumulator's format. exact: with the multiprecision oracle (slow, same
    bits). ValueError for an operand of another type or shape.

    >>> import numpy as np, nvfp4
    >>> one = np.full((1, 16), 0x3F80, np.uint16)  # BF16 ones
    >>> nvfp4.mma("sm_90:wgmma.k16.f32.bf16", one, one).view(np.float32)
    array([16.], dtype=float32)
    """
    operands = {"a": a, "b": b, "c": c, "scale_a": scale_a, "scale_b": scale_b}
    arrays = {name: _arrays.read(value, name) for name, value in operands.items() if value is not None}
    d = core.mma(unit, {name: array.arg for name, array in arrays.items()}, accumulation, exact, progress)
    return arrays["a"].wrap(d)


def gemm(
    a: Any,
    b: Any,
    unit: str = NVFP4_SM120,
    out: str = "f32",
    alpha: float = 1.0,
    beta: float = 0.0,
    c: Any = None,
    bias: Any = None,
    accumulation: str = "mmasim",
    exact: bool = False,
    alpha_rule: str = "by_convention",
    accumulate: Any = None,
    row_factors: Any = None,
    column_factors: Any = None,
    row_scales: Ranges = (),
    column_scales: Ranges = (),
    groups: Sequence[int] = (),
    threads: int = 0,
    progress: Progress = None,
    report: bool = False,
) -> Any:
    """D = alpha * A * B^T + beta * C in the exact arithmetic of one unit.

    a (M, K), b (N, K): quantized tensors, or dense matrices for units without block scales. unit: ``ARCH:INSTRUCTION``
    (:func:`units`). out: ``f32``, ``bf16`` or ``f16``; FP64 units give F64. The operands' global scales come on top of alpha, as
    alpha_rule says. c (M, N) needs beta. accumulate (M, N): accumulators, of the unit's type, that the chains continue. bias
    (N), row_factors (M), column_factors (N): F32. row_scales, column_scales: global decode scales of ranges of rows, in place
    of the tensors' own. groups: rows of A per group; b stacks a block of N rows per group. accumulation: model of FP4 units.
    exact: with the multiprecision oracle (slow, same bits). progress gets the fraction done; what it raises ends the work.

    Tensors on one GPU are multiplied there, on the current stream, where the package was built with nvcc: quantized there, or
    dense in the unit's own format, with c, bias and factors of F32 there too. The CPU computes the rest through a copy:
    accumulate, row_scales, column_scales, groups, exact, an alpha_rule, and quantized tensors made of parts.

    Result: (M, N) of a's kind; with ``report`` also a :class:`Report`. BF16 without ml_dtypes is uint16 words. ValueError where
    operands do not fit the unit or each other.

    >>> import numpy as np, nvfp4
    >>> q = nvfp4.quantize(np.eye(16, 64, dtype=np.float32))
    >>> nvfp4.gemm(q, q).diagonal()[:3]
    array([1., 1., 1.], dtype=float32)
    """
    check_epilogue(alpha, beta, c)
    plain = accumulate is None and not (row_scales or column_scales or groups or exact) and alpha_rule == "by_convention"
    if plain:
        a_side, b_side = ((x._device or x) if isinstance(x, QuantizedTensor) else x for x in (a, b))
        there = _cuda.gemm(a_side, b_side, unit, out, alpha, beta, accumulation, (c, bias, row_factors, column_factors))
        if there is not None:
            _cuda.tell_end(progress)
            return (there[0], Report("cuda", there[1], -1)) if report else there[0]
    keep: list[object] = []
    a_arg, wrap = operand(a, "a", keep)
    b_arg, _ = operand(b, "b", keep)
    extras = (
        _arrays.read_optional(accumulate, "accumulate", keep),
        _arrays.read_optional(c, "c", keep),
        _arrays.read_optional(bias, "bias", keep),
        _arrays.read_optional(row_factors, "row_factors", keep),
        _arrays.read_optional(column_factors, "column_factors", keep),
    )
    d, engine, isa, by_definition = core.gemm(
        a_arg, b_arg, unit, out, alpha, beta, accumulation, exact, alpha_rule, threads, groups, row_scales, column_scales,
        extras, progress,
    )  # fmt: skip
    return (wrap(d), Report(engine, isa, by_definition)) if report else wrap(d)


def check_epilogue(alpha: float, beta: float, c: Any) -> None:
    """ValueError for C without beta and beta without C."""
    if beta == 0 and c is not None:
        raise ValueError("c has no effect without beta")
    if beta != 0 and c is None:
        raise ValueError(f"beta {beta} needs c")


__all__ = ["NVFP4_SM120", "Report", "convert", "gemm", "mma", "operand"]
