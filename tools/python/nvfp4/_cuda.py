# SPDX-License-Identifier: Apache-2.0
"""Tensors on a GPU: quantize, dequantize and gemm where they lie, on the current stream, by the CUDA module.

Internal. Each function returns None for what the CUDA module does not do: other dtypes, options, units and operands, and a
build without it. The caller then computes on the CPU, through a copy, and refuses what does not fit.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from ._arrays import ArrayArg, Progress, Wrap, core, dlpack_on_cuda, torch_dtype, torch_dtype_names, torch_wrap

#: a tensor of PyTorch as the caller's kind of array
Give = Callable[[Any], Any]


class DeviceParts(NamedTuple):
    """A quantized tensor whose bytes lie in a GPU's memory."""

    described: Any  #: the tensor without its bytes
    codes: Any  #: torch.uint8
    scales: Any  #: torch.uint8
    globals: Any  #: torch.float32 (1 or rows, 3): amax, encode and decode scale
    per_row: bool
    give: Give

    def wrap(self) -> Wrap:
        """Results of the CPU as arrays of the caller's kind, where the tensor lies."""
        to_torch = torch_wrap(self.codes)
        return lambda result: self.give(to_torch(result))

    def arg(self) -> tuple[Any, int, int, int]:
        return (self.described, self.codes.data_ptr(), self.scales.data_ptr(), self.globals.data_ptr())

    def to_cpu(self) -> Any:
        """The tensor with its bytes in host memory, as the library holds it."""
        held = [part.cpu() for part in (self.codes, self.scales, self.globals)]  # waits for the current stream
        return core.filled(self.described, *(part.data_ptr() for part in held))


@functools.lru_cache(maxsize=None)
def module() -> Any:
    """The CUDA module, or None where this build has none or it does not load here."""
    try:
        return importlib.import_module("nvfp4._nvfp4_cuda")
    except ImportError:
        return None


def _same(x: Any) -> Any:
    return x


def tensor(x: Any) -> Optional[tuple[Any, Give]]:
    """x as a dense CUDA tensor of PyTorch over its memory, and how results are given; None for everything else."""
    if type(x) is np.ndarray:
        return None
    torch = sys.modules.get("torch")
    give: Give = _same
    if torch is None or not isinstance(x, torch.Tensor):
        elsewhere = dlpack_on_cuda(x)
        if elsewhere is None:
            return None
        x, give = elsewhere
        torch = sys.modules["torch"]
    if not x.is_cuda or x.layout is not torch.strided or module() is None:
        return None
    x = x.detach()
    return x.resolve_neg() if x.is_neg() else x, give


def _stream(torch: Any, device: Any) -> int:
    module().use_device(device.index)
    return int(torch.cuda.current_stream(device).cuda_stream)


def _rows_apart(x: Any) -> tuple[Any, int]:
    """A matrix whose rows may lie apart, and how far; others without gaps."""
    if x.dim() == 2 and x.stride(1) == 1 and x.stride(0) >= x.shape[1]:
        return x, x.stride(0)
    return x.contiguous(), x.shape[-1]


def tell_end(progress: Progress) -> None:
    """Work on a GPU is told when it is in the stream."""
    if progress is not None:
        progress(1.0)


def _widened(x: Any, torch: Any) -> Any:
    """FP32 values; as where the CPU reads BF16 and F16, a NaN is the positive one."""
    if x.dtype == torch.float32:
        return x
    return x.to(torch.float32).nan_to_num_(nan=float("nan"), posinf=float("inf"), neginf=float("-inf"))


def quantize(x: Any, plan: Any) -> Optional[DeviceParts]:
    """F32, BF16 and F16; the last two are widened on the device first."""
    found = tensor(x)
    if found is None or found[0].dim() == 0:
        return None
    x, give = found
    torch = sys.modules["torch"]
    dtype = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}.get(x.dtype)
    if dtype is None:
        return None
    described, codes_shape, scales_shape, per_row = core.describe(plan, dtype, list(x.shape))
    with torch.cuda.device(x.device):
        values, stride = _rows_apart(_widened(x, torch))
        codes, scales = (torch.empty(shape, dtype=torch.uint8, device=x.device) for shape in (codes_shape, scales_shape))
        words = torch.empty((codes_shape[0] if per_row else 1, 3), dtype=torch.float32, device=x.device)
        parts = DeviceParts(described, codes, scales, words, per_row, give)
        module().quantize(plan, values.data_ptr(), stride, parts.arg(), _stream(torch, x.device))
    return parts


def dequantize(parts: DeviceParts, undo_hadamard: bool, shape: tuple[int, ...]) -> Any:
    torch = sys.modules["torch"]
    out = torch.empty(shape, dtype=torch.float32, device=parts.codes.device)
    with torch.cuda.device(out.device):
        module().dequantize(parts.arg(), undo_hadamard, out.data_ptr(), _stream(torch, out.device))
    return parts.give(out)


def _dense(x: Any, keep: list[object]) -> Optional[ArrayArg]:
    """A CUDA tensor as an array argument, in 16-byte alignment."""
    dtype = torch_dtype_names(sys.modules["torch"]).get(x.dtype)
    if dtype is None or x.dim() == 0:
        return None
    x = x.contiguous()
    if x.data_ptr() % 16:
        x = x.clone()
    keep.append(x)
    shape = list(x.shape)
    if dtype == "F4":
        shape[-1] *= 2
    return (dtype, shape, x.data_ptr())


def gemm(a: Any, b: Any, unit: str, out: str, alpha: float, beta: float, accumulation: str, arrays: tuple[Any, ...]) -> Any:
    """a, b: DeviceParts or arrays; arrays: C, bias, row and column factors. Result: the product and the name of the GPU's
    architecture."""
    gives: list[Give] = []
    keep: list[object] = []
    devices = set()
    quantized: list[Any] = []
    dense: list[Any] = []
    for operand in (a, b):
        if isinstance(operand, DeviceParts):
            devices.add(operand.codes.device)
            gives.append(operand.give)
            quantized.append(operand.arg())
            dense.append(None)
            continue
        found = tensor(operand)
        words = None if found is None else _dense(found[0], keep)
        if found is None or words is None:
            return None
        devices.add(found[0].device)
        gives.append(found[1])
        quantized.append(None)
        dense.append(words)
    extras: list[Any] = []
    for array in arrays:
        found = None if array is None else tensor(array)
        words = None if found is None else _dense(found[0], keep)
        if array is not None and (found is None or words is None):
            return None
        if found is not None:
            devices.add(found[0].device)
        extras.append(words)
    if len(devices) != 1:
        return None
    device = devices.pop()
    torch = sys.modules["torch"]
    with torch.cuda.device(device):
        plan = module().gemm_plan(*quantized, *dense, unit, out, alpha, beta, accumulation, tuple(extras))
        if plan is None:
            return None
        product, dtype, shape = plan
        d = torch.empty(shape, dtype=torch_dtype(torch, dtype), device=device)
        module().gemm(product, d.data_ptr(), _stream(torch, device))
    major, minor = torch.cuda.get_device_capability(device)
    return gives[0](d), f"sm_{major}{minor}"
