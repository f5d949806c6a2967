# SPDX-License-Identifier: Apache-2.0
"""Block-scaled tensors: quantize, dequantize, files."""

from __future__ import annotations

import importlib
import json
import math
import os
import weakref
from typing import Any, Optional, Union

import numpy as np

from . import _arrays, _cuda
from ._arrays import Progress, core


class QuantizedTensor:
    """Codes, block scales and global scale, and what is needed to read them.

    Made by :func:`quantize`, :meth:`load` or one of the ``from_...`` constructors. Arrays that it gives out are of the kind of
    what was quantized (NumPy, or PyTorch on its device) and the tensor's own memory. One that was quantized on a GPU stays there;
    what only the CPU does (:meth:`save`, :attr:`stats`, :func:`check`) copies it once.

    ``rows`` and ``k`` are the matrix as it is stored: for ``axis="col"`` (columnwise, stored transposed) rows are the input's
    columns. ``shape`` is the input's.
    """

    __slots__ = ("_held", "_device", "_wrap", "_input", "_given", "_names", "_numbers", "__weakref__")

    def __init__(
        self, handle: Any, wrap: _arrays.Wrap = _arrays.to_numpy, source: Any = None, device: Optional[_cuda.DeviceParts] = None
    ):
        """Internal: use quantize(), load() or a from_... constructor. Either handle or device is there."""
        self._held = handle
        self._device = device
        self._wrap = wrap
        self._input = None if source is None else weakref.ref(source)
        self._given: tuple[Optional[float], Optional[float]] = (None, None)  # amax or scale in place of the input's own
        self._names: Optional[tuple[Any, ...]] = None
        self._numbers: Optional[tuple[Any, ...]] = None

    @property
    def _core(self) -> Any:
        """The library's tensor in host memory; of one on a GPU a copy, made when it is first asked for."""
        if self._held is None and self._device is not None:
            self._held = self._device.to_cpu()
        return self._held

    @property
    def _described(self) -> Any:
        return self._held if self._device is None else self._device.described

    def _name(self, i: int) -> Any:
        if self._names is None:
            self._names = core.names(self._described)
        return self._names[i]

    def _number(self, i: int) -> Any:
        if self._numbers is None:
            self._numbers = core.numbers(self._described)
        if 3 <= i < 6 and self._device is not None and not self._device.per_row:
            return self._device.globals[0, i - 3].item()  # waits for the current stream
        return self._numbers[i]

    @property
    def convention(self) -> str:
        """Name of the preset whose arithmetic this is (:func:`conventions`)."""
        return str(self._name(0))

    @property
    def element(self) -> str:
        """Format of the elements, such as ``e2m1``."""
        return str(self._name(1))

    @property
    def scale_format(self) -> str:
        """Format of the block scales, such as ``ue4m3``."""
        return str(self._name(2))

    @property
    def block(self) -> tuple[int, int]:
        """(rows, elements along a row) that share a scale."""
        return (int(self._name(4)), int(self._name(3)))

    @property
    def axis(self) -> str:
        """``row``, or ``col`` for the columnwise copy, which is stored transposed."""
        return str(self._name(5))

    @property
    def source(self) -> str:
        """Type of what was quantized: ``f32``, ``bf16`` or ``f16``."""
        return str(self._name(6))

    @property
    def scale_layout(self) -> str:
        """``linear`` or ``128x4``."""
        return str(self._name(7))

    @property
    def rounding(self) -> str:
        """How elements were rounded: ``rne`` or one of the stochastic roundings."""
        return str(self._name(8))

    @property
    def rows(self) -> int:
        """Rows of the matrix as it is stored."""
        return int(self._number(0))

    @property
    def k(self) -> int:
        """Elements of a row, without the padding to whole blocks."""
        return int(self._number(1))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what was quantized."""
        return tuple(self._number(2))

    @property
    def global_amax(self) -> float:
        """Largest magnitude of what was quantized, after a rotation; NaN where the scale was given instead."""
        return float(self._number(3))

    @property
    def global_encode_scale(self) -> float:
        """S, by which values were multiplied; 1 without a second level."""
        return float(self._number(4))

    @property
    def global_decode_scale(self) -> float:
        """1 / S or what the convention stores; 1 without a second level."""
        return float(self._number(5))

    @property
    def hadamard(self) -> bool:
        """Whether the values are rotated along k in groups of 16."""
        return bool(self._number(6))

    @property
    def sign_mask(self) -> int:
        """16 bits; bit i set: the rotation turns the sign of element i of a group of 16. Without a rotation it says nothing."""
        return int(self._number(7))

    @property
    def seed(self) -> int:
        """Of the random words of stochastic rounding."""
        return int(self._number(8))

    @property
    def offset(self) -> int:
        """Of the random words, beside the seed."""
        return int(self._number(9))

    @property
    def codes(self) -> Any:
        """uint8 (rows, bytes), the tensor's own memory: 4-bit codes two to a byte, the even element in the low nibble; others one to a byte."""
        return self._wrap(core.parts(self._core)[0]) if self._device is None else self._device.give(self._device.codes)

    @property
    def block_scales(self) -> Any:
        """uint8 (rows, blocks), four bytes a block of HiFloat4, or in the 128x4 layout (rows, bytes) padded to multiples of 128 and 4."""
        return self._wrap(core.parts(self._core)[1]) if self._device is None else self._device.give(self._device.scales)

    @property
    def row_amax(self) -> Any:
        """float32 (rows) where each row has a global scale of its own, else None."""
        if self._device is not None:
            return self._device.give(self._device.globals[:, 0].contiguous()) if self._device.per_row else None
        amax = core.parts(self._core)[2]
        return None if amax is None else self._wrap(amax)

    def typed(self, library: str = "ml_dtypes") -> tuple[Any, Any]:
        """Codes and scales in the low-bit dtypes of ``ml_dtypes`` or ``torch``.

        ml_dtypes has one element a byte: FP4 codes are unpacked into a copy. torch has float4_e2m1fn_x2 (since 2.8), packed.
        UE4M3 scales become float8_e4m3fn, UE8M0 float8_e8m0fnu. TypeError where the library or the type is not there.

        >>> import numpy as np, nvfp4
        >>> codes, scales = nvfp4.quantize(np.full((1, 16), 3, np.float32)).typed()
        >>> codes.dtype, scales.dtype
        (dtype(float4_e2m1fn), dtype(float8_e4m3fn))
        """
        numpy_names = {"e2m1": "float4_e2m1fn", "e3m2": "float6_e3m2fn", "e2m3": "float6_e2m3fn", "e4m3": "float8_e4m3fn",
                       "e5m2": "float8_e5m2", "ue4m3": "float8_e4m3fn", "ue8m0": "float8_e8m0fnu"}  # fmt: skip
        torch_names = {**numpy_names, "e2m1": "float4_e2m1fn_x2"}
        if library == "torch":
            try:
                torch: Any = importlib.import_module("torch")
            except ImportError:
                raise TypeError("there are no dtypes of torch, which is not installed; 'ml_dtypes' has some too") from None

            def view(array: Any, format_name: str) -> Any:
                dtype = getattr(torch, torch_names.get(format_name, "none"), None)
                if dtype is None:
                    raise TypeError(f"torch {torch.__version__} has no dtype for {format_name}")
                return array.view(dtype)

            if self._device is not None:
                return view(self._device.codes, self.element), view(self._device.scales, self.scale_format)
            codes, scales = (torch.from_numpy(_arrays.to_numpy(part)) for part in core.parts(self._core)[:2])
            return view(codes, self.element), view(scales, self.scale_format)
        if library != "ml_dtypes":
            raise ValueError(f"library is {library!r}; expected 'ml_dtypes' or 'torch'")

        def low_bit(array: Any, format_name: str) -> Any:
            dtype = _arrays.ml_dtype(numpy_names.get(format_name, "none"))
            if dtype is None:
                raise TypeError(f"there is no dtype for {format_name}: install ml_dtypes of a version that has it")
            return array.view(dtype)

        codes, scales = (_arrays.to_numpy(part) for part in core.parts(self._core)[:2])
        if self.element == "e2m1":
            codes = np.ascontiguousarray(_arrays.unpack(codes)[:, : self.k])
        return low_bit(codes, self.element), low_bit(scales, self.scale_format)

    def dequantize(self, keep_rotation: bool = False, threads: int = 0, progress: Progress = None) -> Any:
        """The values, float32, in the shape of what was quantized, by the rule of the convention.

        A rotated tensor is rotated back in FP32 unless ``keep_rotation``. On a GPU a NaN has the GPU's word. progress
        gets the fraction done; what it raises ends the work. ValueError where sizes do not fit.

        >>> import numpy as np, nvfp4
        >>> nvfp4.quantize(np.array([[6, 1, -3] + [0] * 13], np.float32)).dequantize()[0, :3]
        array([ 6.,  1., -3.], dtype=float32)
        """
        if self._device is not None:
            values = _cuda.dequantize(self._device, not keep_rotation, self.shape)
            _cuda.tell_end(progress)
            return values
        return self._wrap(("F32", list(self.shape), core.values(self._core, not keep_rotation, threads, progress)))

    def columnwise(self, x: Any = None) -> QuantizedTensor:
        """The columnwise copy: the same input under the same options, blocks along its columns, stored transposed.

        ``x`` is what was quantized; without it, the array that :func:`quantize` was given, while it lives. A global_amax or
        global_scale that was given to it is used again; of a tensor that was loaded or made of parts the amax is that of x.

        >>> import numpy as np, nvfp4
        >>> x = np.ones((32, 16), np.float32)
        >>> q = nvfp4.quantize(x)
        >>> q.columnwise().axis, q.columnwise().codes.shape
        ('col', (16, 16))
        """
        source = self._source(x)
        return quantize(
            source, self.convention, block=self.block, axis="row" if self.axis == "col" else "col", rounding=self.rounding,
            seed=self.seed, offset=self.offset, hadamard=self.hadamard, scale_layout=self.scale_layout,
            global_amax=self._given[0], global_scale=self._given[1],
        )  # fmt: skip

    def _source(self, x: Any) -> Any:
        if x is not None:
            return x
        source = None if self._input is None else self._input()
        if source is None:
            raise ValueError("the array that was quantized is no longer there; give it as x")
        return source

    @property
    def stats(self) -> dict[str, Any]:
        """What the quantization did: NaN, Inf, blocks of zeros, scales and elements at the ends of their formats, SNR in dB.

        The keys of ``nvfp4 quantize --json``. Reads the array that was quantized, as it is now; ValueError where it is gone:
        use :meth:`statistics`.

        >>> import numpy as np, nvfp4
        >>> x = np.array([[6, 1, -3] + [0] * 13], np.float32)
        >>> q = nvfp4.quantize(x)
        >>> q.stats["blocks"], q.stats["flushed"], q.stats["snr_db"]
        (1, 0, None)
        """
        return dict(self.statistics())

    def statistics(self, x: Any = None, by_row: bool = False, threads: int = 0, progress: Progress = None) -> Any:
        """The same for ``x``; by_row: a list, one for each block row. progress gets the fraction done; what it raises, and Ctrl-C,
        end the work. ValueError where x's shape is not the tensor's.

        >>> import numpy as np, nvfp4
        >>> x = np.eye(4, 64, dtype=np.float32)
        >>> [row["blocks"] for row in nvfp4.quantize(x).statistics(x, by_row=True)]
        [4, 4, 4, 4]
        """
        array = _arrays.read(self._source(x), "x", rows_may_be_apart=True)
        total, rows = core.statistics(self._core, array.arg, array.stride, threads, progress)
        return [json.loads(row) for row in rows] if by_row else json.loads(total)

    def save(self, path: Union[str, os.PathLike[str]], name: str = "data") -> None:
        """Writes the .safetensors file that ``nvfp4 quantize`` writes; ``name`` is the tensor's. It appears whole or not at all.
        ValueError where it cannot be written. Format: golden/README.md.

        >>> import numpy as np, nvfp4, os, tempfile
        >>> q = nvfp4.quantize(np.ones((1, 16), np.float32))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     q.save(os.path.join(folder, "q.safetensors"))
        ...     print(nvfp4.QuantizedTensor.load(os.path.join(folder, "q.safetensors")))
        QuantizedTensor(te, shape=(1, 16), e2m1, ue4m3 per 1x16)
        """
        core.save(self._core, os.fspath(path), name)

    @classmethod
    def load(cls, path: Union[str, os.PathLike[str]]) -> QuantizedTensor:
        """Reads what :meth:`save` or ``nvfp4 quantize`` wrote. ValueError naming file, tensor or key otherwise.

        >>> import numpy as np, nvfp4, os, tempfile
        >>> q = nvfp4.quantize(np.eye(4, 64, dtype=np.float32), "mxfp4")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     q.save(os.path.join(folder, "q.safetensors"))
        ...     nvfp4.compare(q, nvfp4.QuantizedTensor.load(os.path.join(folder, "q.safetensors"))).equal
        True
        """
        return cls(core.load(os.fspath(path)))

    @classmethod
    def from_parts(
        cls,
        codes: Any,
        block_scales: Any,
        global_scale: Any = None,
        convention: str = "te",
        global_is: str = "amax",
        scale_layout: str = "linear",
        nibbles: str = "low-first",
        unpacked: bool = False,
        k: int = 0,
        block_rows: int = 1,
        axis: str = "row",
        source: str = "f32",
        hadamard: bool = False,
    ) -> QuantizedTensor:
        """Of raw parts, as kernels and checkpoints have them. Words are taken as they are; nothing is rounded.

        codes: uint8 (rows, bytes), FP4 two to a byte (``nibbles``: ``low-first`` or ``high-first``) or one to a byte
        (``unpacked``), or a low-bit dtype. block_scales: uint8 or float8 words, or F32, BF16, F16 values that are such numbers;
        ``linear`` (rows, blocks) or all bytes of the ``128x4`` tiles. global_scale: one number, or an amax a row where the
        convention has them; global_is: ``amax``, ``encode`` (S, by which values were multiplied) or ``decode`` (its reciprocal,
        by which they are multiplied back): 1 / x twice is not x, so give the word that is stored. k: length of a row where the
        codes are padded. axis, block_rows, source, hadamard: how it was quantized. ValueError for what does not fit and for a
        word from which the convention's own does not follow to the last bit.

        >>> import numpy as np, nvfp4
        >>> q = nvfp4.quantize(np.arange(32, dtype=np.float32).reshape(2, 16))
        >>> again = nvfp4.QuantizedTensor.from_parts(q.codes, q.block_scales, q.global_amax)
        >>> bool((again.dequantize() == q.dequantize()).all())
        True
        """
        code_array, scale_array = _arrays.read(codes, "codes"), _arrays.read(block_scales, "block_scales")
        word = None
        if global_scale is not None:
            if isinstance(global_scale, (int, float)):
                global_scale = np.array([global_scale], np.float32)
            elif isinstance(global_scale, np.generic):
                global_scale = np.asarray(global_scale)
            word = _arrays.read(global_scale, "global_scale")
        handle = core.from_parts(code_array.arg, scale_array.arg, None if word is None else word.arg, convention, global_is,
                                 scale_layout, nibbles, unpacked, k, block_rows, axis, source, hadamard)  # fmt: skip
        return cls(handle, code_array.wrap)

    @classmethod
    def from_transformer_engine(
        cls, data: Any, scale_inv: Any, amax: Any, columnwise: bool = False, swizzled: bool = False, convention: str = "te", **options: Any
    ) -> QuantizedTensor:
        """Of TransformerEngine's NVFP4Tensor: ``_rowwise_data``, ``_rowwise_scale_inv``, ``_amax_rowwise``, or the columnwise ones.

        data: uint8 (..., K / 2), leading axes are rows; columnwise (K, M / 2). scale_inv is linear, padded to multiples of 128 rows
        and 4 blocks, as TransformerEngine keeps it; ``swizzled``: in 128x4 tiles, as its GEMM reads it. amax: F32 (1). options and
        errors: those of :meth:`from_parts`. Source: transformer_engine/pytorch/tensor/nvfp4_tensor.py.

        >>> import numpy as np, nvfp4
        >>> q = nvfp4.quantize(np.eye(16, 32, dtype=np.float32))
        >>> padded = np.pad(q.block_scales, ((0, 112), (0, 2)))
        >>> nvfp4.QuantizedTensor.from_transformer_engine(q.codes, padded, np.float32(1)).shape
        (16, 32)
        """
        shape = tuple(getattr(data, "shape", ()))
        if len(shape) > 2:  # leading axes are rows
            data = data.reshape(math.prod(shape[:-1]), shape[-1])
            shape = tuple(data.shape)
        if not swizzled and len(shape) == 2 and len(getattr(scale_inv, "shape", ())) == 2:
            scale_inv = scale_inv[: shape[0], : -(-2 * shape[1] // 16)]
        layout = "128x4" if swizzled else "linear"
        return cls.from_parts(data, scale_inv, amax, convention, "amax", layout, axis="col" if columnwise else "row", **options)

    @classmethod
    def from_torchao(
        cls, qdata: Any, scale: Any, per_tensor_scale: Any = None, is_swizzled_scales: bool = False, convention: str = "torchao", **options: Any
    ) -> QuantizedTensor:
        """Of torchao's NVFP4Tensor: ``qdata``, ``scale``, ``per_tensor_scale`` (a multiplier; None means 1).

        qdata: (rows, K / 2). scale: (rows, K / 16), with ``is_swizzled_scales`` all bytes of the 128x4 tiles. options and errors:
        those of :meth:`from_parts`. Source: torchao/prototype/mx_formats/nvfp4_tensor.py.

        >>> import numpy as np, nvfp4
        >>> q = nvfp4.quantize(np.eye(16, 32, dtype=np.float32), "torchao")
        >>> nvfp4.QuantizedTensor.from_torchao(q.codes, q.block_scales, q.global_decode_scale).convention
        'torchao'
        """
        word = 1.0 if per_tensor_scale is None else per_tensor_scale
        return cls.from_parts(qdata, scale, word, convention, "decode", "128x4" if is_swizzled_scales else "linear", **options)

    @classmethod
    def from_modelopt(cls, weight: Any, weight_scale: Any, weight_scale_2: Any, **options: Any) -> QuantizedTensor:
        """Of a Model-Optimizer checkpoint: ``weight`` (rows, K / 2), ``weight_scale`` (rows, K / 16), ``weight_scale_2`` (a multiplier).

        options and errors: those of :meth:`from_parts`. Source: modelopt/torch/quantization/qtensor/nvfp4_tensor.py.

        >>> import numpy as np, nvfp4
        >>> q = nvfp4.quantize(np.eye(16, 32, dtype=np.float32), "modelopt")
        >>> nvfp4.QuantizedTensor.from_modelopt(q.codes, q.block_scales, q.global_decode_scale).convention
        'modelopt'
        """
        return cls.from_parts(weight, weight_scale, weight_scale_2, "modelopt", "decode", **options)

    @classmethod
    def from_compressed_tensors(cls, weight_packed: Any, weight_scale: Any, weight_global_scale: Any, **options: Any) -> QuantizedTensor:
        """Of a compressed-tensors checkpoint (llm-compressor, vLLM): ``weight_packed`` (rows, K / 2), ``weight_scale`` (rows, K / 16)
        and ``weight_global_scale``, a divisor.

        options and errors: those of :meth:`from_parts`. Source: compressed_tensors/quantization/utils/helpers.py.

        >>> import numpy as np, nvfp4
        >>> q = nvfp4.quantize(np.eye(16, 32, dtype=np.float32), "compressed-tensors")
        >>> nvfp4.QuantizedTensor.from_compressed_tensors(q.codes, q.block_scales, q.global_encode_scale).convention
        'compressed-tensors'
        """
        return cls.from_parts(weight_packed, weight_scale, weight_global_scale, "compressed-tensors", "encode", **options)

    @classmethod
    def from_flashinfer(
        cls, codes: Any, scales: Any, global_scale: Any, scale_layout: str = "128x4", convention: str = "flashinfer", **options: Any
    ) -> QuantizedTensor:
        """Of what flashinfer's fp4_quantize returned, and the global scale that it was given (S = 448 * 6 / amax).

        codes: (rows, K / 2). scales: all bytes of the ``128x4`` tiles, or ``linear`` (rows, K / 16). options and errors: those of
        :meth:`from_parts`. Source: csrc/nv_internal/tensorrt_llm/kernels/quantization_utils.cuh.

        >>> import numpy as np, nvfp4
        >>> q = nvfp4.quantize(np.eye(16, 32, dtype=np.float32), "flashinfer", scale_layout="128x4")
        >>> nvfp4.QuantizedTensor.from_flashinfer(q.codes, q.block_scales, q.global_encode_scale).scale_layout
        '128x4'
        """
        return cls.from_parts(codes, scales, global_scale, convention, "encode", scale_layout, **options)

    def __repr__(self) -> str:
        rows, length = self.block
        return (
            f"QuantizedTensor({self.convention}, shape={self.shape}, {self.element}, {self.scale_format} per {rows}x{length}"
            + (", columnwise" if self.axis == "col" else "") + (", rotated" if self.hadamard else "") + ")"
        )  # fmt: skip


def quantize(
    x: Any,
    convention: str = "te",
    block: tuple[int, int] = (1, 16),
    axis: str = "row",
    rounding: str = "rne",
    seed: int = 0,
    offset: int = 0,
    hadamard: bool = False,
    scale_layout: str = "linear",
    global_amax: Optional[float] = None,
    global_scale: Optional[float] = None,
    threads: int = 0,
    progress: Progress = None,
) -> QuantizedTensor:
    """Block-scales a tensor as a named implementation does, to the bit.

    x: F32, BF16, F16, F64 (rounded to FP32), F8 or F4; leading axes become rows, one axis is one row. Blocks lie along the last
    axis, or with ``axis="col"`` along the rows. convention: a name of :func:`conventions`. block: (1, length) or (length,
    length), length 16, 32 for MX ((1, 16) means (1, 32) there). rounding: ``rne``, ``sr-carry8``, ``sr-te``, ``sr-mid8`` or ``sr-exact``, the last
    four stochastic with words of (seed, offset, element). hadamard: 16-point random rotation along the blocks first.
    scale_layout: ``linear`` or ``128x4``. global_amax: instead of the tensor's own. global_scale: the word that the convention
    stores, for those whose caller gives it. threads: 0 for all; changes no bit. progress gets the fraction done; what it
    raises, and Ctrl-C, end the work.

    F32, BF16 and F16 tensors on a GPU are quantized there, on the current stream, where the package was built with nvcc.

    ValueError for options that the convention cannot take.

    >>> import numpy as np, nvfp4
    >>> q = nvfp4.quantize(np.arange(32, dtype=np.float32).reshape(2, 16))
    >>> q.codes.shape, q.block_scales.shape, q.global_amax
    ((2, 8), (2, 1), 31.0)
    """
    try:
        block_rows, length = block
    except (TypeError, ValueError):
        raise TypeError(f"block: expected (rows, length), got {' '.join(repr(block).split())[:60]}") from None
    plan = core.quantize_plan(convention, block_rows, length, axis, rounding, seed, offset, hadamard, scale_layout, global_amax,
                              global_scale, threads)  # fmt: skip
    on_device = _cuda.quantize(x, plan)
    if on_device is not None:
        _cuda.tell_end(progress)
        made = QuantizedTensor(None, on_device.wrap(), x, on_device)
    else:
        array = _arrays.read(x, "x", rows_may_be_apart=True)
        made = QuantizedTensor(core.quantize(array.arg, array.stride, plan, progress), array.wrap, x)
    made._given = (global_amax, global_scale)
    return made
