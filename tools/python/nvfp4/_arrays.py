# SPDX-License-Identifier: Apache-2.0
"""Arrays of callers as memory for the library, and results of the library as arrays of the caller's kind.

Internal. An input is NumPy, PyTorch or anything with ``__dlpack__``; CPU memory in C order is read where it lies, other
arrays are copied first. A result is NumPy, PyTorch on the caller's device, or what the caller's array namespace makes of
a DLPack capsule.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Callable, Iterable, NamedTuple, Optional

import numpy as np

from . import _nvfp4 as core

#: dtype, shape, address, as the library reads an array
ArrayArg = tuple[str, list[int], int]
#: (dtype, shape, (address, bytes, owner)), as the library returns one
ArrayResult = tuple[str, list[int], tuple[int, int, object]]
#: makes the caller's kind of array from a result
Wrap = Callable[[ArrayResult], Any]

# NumPy dtypes, those of ml_dtypes by their names, as safetensors calls them
_NUMPY = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
# one code a byte in ml_dtypes: read as raw codes
_NUMPY_CODES = {"float6_e2m3fn": "U8", "float6_e3m2fn": "U8"}
_TORCH = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn_x2": "F4",
}  # fmt: skip
# results: the NumPy dtype, that of ml_dtypes, and words where ml_dtypes is not there
_RESULTS: dict[str, tuple[str, Optional[str]]] = {
    "U8": ("<u1", None), "U16": ("<u2", None), "U32": ("<u4", None), "U64": ("<u8", None), "I32": ("<i4", None),
    "I64": ("<i8", None), "F16": ("<f2", None), "F32": ("<f4", None), "F64": ("<f8", None), "BOOL": ("|b1", None),
    "I8": ("<i1", None), "I16": ("<i2", None),
    "BF16": ("<u2", "bfloat16"), "F8_E4M3": ("<u1", "float8_e4m3fn"), "F8_E5M2": ("<u1", "float8_e5m2"),
    "F8_E8M0": ("<u1", "float8_e8m0fnu"), "F8_E4M3FNUZ": ("<u1", "float8_e4m3fnuz"), "F8_E5M2FNUZ": ("<u1", "float8_e5m2fnuz"),
    "C64": ("<c8", None),
}  # fmt: skip


class Array(NamedTuple):
    """An input: what the library reads, elements from row to row, and how results are made."""

    arg: ArrayArg
    stride: int
    wrap: Wrap
    keep: object  # holds the memory


class _Memory:
    """Memory of the library, which NumPy keeps through this object."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, typestr: str, shape: Iterable[int], address: int, owner: object):
        self.__array_interface__ = {"typestr": typestr, "shape": tuple(shape), "data": (address, False), "version": 3}
        self.owner = owner


def to_numpy(result: ArrayResult) -> Any:
    """A result as a NumPy array over the library's memory."""
    dtype, shape, (address, size, owner) = result
    typestr, extension = _RESULTS[dtype]
    array = np.empty(shape, typestr) if size == 0 else np.asarray(_Memory(typestr, shape, address, owner))
    if extension is not None:
        low_bit = ml_dtype(extension)
        if low_bit is not None:
            return array.view(low_bit)
    return array


def ml_dtype(name: str) -> Optional[Any]:
    """The dtype of ml_dtypes, or None where that package or the type is not there."""
    try:
        module = importlib.import_module("ml_dtypes")
    except ImportError:
        return None
    scalar = getattr(module, name, None)
    return None if scalar is None else np.dtype(scalar)


def _pack(codes: Any) -> Any:
    """4-bit codes, one a byte, two to a byte, the even index in the low nibble."""
    return (codes[..., 0::2] & 15) | ((codes[..., 1::2] & 15) << 4)


def unpack(codes: Any) -> Any:
    """The reverse: (..., n) bytes as (..., 2 n) codes."""
    out = np.empty((*codes.shape[:-1], 2 * codes.shape[-1]), np.uint8)
    out[..., 0::2] = codes & 15
    out[..., 1::2] = codes >> 4
    return out


def _from_numpy(x: Any, name: str, wrap: Wrap, rows_may_be_apart: bool) -> Array:
    dtype = _NUMPY.get(x.dtype.name)
    if dtype is None:
        if x.dtype.name == "float4_e2m1fn":
            if x.ndim == 0 or x.shape[-1] % 2:
                raise ValueError(f"{name}: rows of float4_e2m1fn must have an even number of elements, got shape {x.shape}")
            packed = np.ascontiguousarray(_pack(x.view(np.uint8)))
            return Array(("F4", list(x.shape), packed.__array_interface__["data"][0]), x.shape[-1], wrap, packed)
        dtype = _NUMPY_CODES.get(x.dtype.name)
        if dtype is None:
            raise TypeError(f"{name}: arrays of {x.dtype} are not read; convert it to one of {', '.join(sorted(_NUMPY))}")
    if not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="))
    interface = x.__array_interface__
    shape = list(interface["shape"])
    stride = shape[-1] if shape else 1
    if interface["strides"] is not None:
        size = x.itemsize
        if rows_may_be_apart and len(shape) == 2 and x.strides[1] == size and x.strides[0] >= shape[1] * size and x.strides[0] % size == 0:
            stride = x.strides[0] // size
        else:
            x = np.ascontiguousarray(x)
            interface = x.__array_interface__
    return Array((dtype, shape, interface["data"][0]), stride, wrap, x)


_torch_dtypes: dict[Any, str] = {}


def torch_dtype_names(torch: Any) -> dict[Any, str]:
    if not _torch_dtypes:
        for name, stored in _TORCH.items():
            if hasattr(torch, name):
                _torch_dtypes[getattr(torch, name)] = stored
    return _torch_dtypes


def torch_dtype(torch: Any, dtype: str) -> Any:
    """The dtype of torch for one of the library."""
    return next(t for t, stored in torch_dtype_names(torch).items() if stored == dtype)


def _to_torch(result: ArrayResult, torch: Any, device: Any) -> Any:
    dtype, shape, (address, size, owner) = result
    wanted = torch_dtype(torch, dtype)
    if size == 0:
        return torch.empty(shape, dtype=wanted, device=device)
    raw = torch.from_numpy(np.asarray(_Memory("|u1", (size,), address, owner)))
    tensor = raw.view(wanted).reshape(shape)
    return tensor if device.type == "cpu" else tensor.to(device)


def torch_wrap(x: Any) -> Wrap:
    """Results as tensors on the device of the tensor x."""
    torch, device = sys.modules["torch"], x.device
    return lambda result: _to_torch(result, torch, device)


def _from_torch(x: Any, name: str, torch: Any, rows_may_be_apart: bool) -> Array:
    device, wrap = x.device, torch_wrap(x)
    dtype = torch_dtype_names(torch).get(x.dtype)
    if dtype is None:
        raise TypeError(f"{name}: tensors of {x.dtype} are not read; convert it to one of {', '.join(sorted(_TORCH))}")
    x = x.detach()
    if x.layout is not torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {x.layout}")
    if device.type == "meta":
        raise TypeError(f"{name}: a tensor on the meta device has no values; give one with values")
    if device.type != "cpu":
        x = x.cpu()  # waits for the current stream
    if x.is_neg():
        x = x.resolve_neg()
    shape = list(x.shape)
    stride = shape[-1] if shape else 1
    if not x.is_contiguous():
        if rows_may_be_apart and len(shape) == 2 and x.stride(1) == 1 and x.stride(0) >= shape[1]:
            stride = x.stride(0)
        else:
            x = x.contiguous()
    if dtype == "F4":
        if not shape:
            raise ValueError(f"{name}: expected at least one axis")
        shape[-1] *= 2
    try:
        address = x.data_ptr()
    except RuntimeError:
        address = 0
    if address == 0 and x.numel() > 0:
        raise TypeError(f"{name}: a {type(x).__name__} has no memory that can be read; give a plain tensor")
    return Array((dtype, shape, address), stride, wrap, x)


def _namespace_wrap(x: Any) -> Wrap:
    namespace = getattr(x, "__array_namespace__", None)
    from_dlpack = None if namespace is None else getattr(namespace(), "from_dlpack", None)
    if from_dlpack is None:
        return to_numpy
    return lambda result: from_dlpack(to_numpy(result))


def dlpack_on_cuda(x: Any) -> Optional[tuple[Any, Callable[[Any], Any]]]:
    """An array of another library in a GPU's memory as PyTorch's tensor over it, and the way back, where PyTorch is there."""
    device = getattr(x, "__dlpack_device__", None)
    if device is None or device()[0] != 2:  # kDLCUDA
        return None
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        return None
    namespace = getattr(x, "__array_namespace__", None)
    library = importlib.import_module(type(x).__module__.partition(".")[0]) if namespace is None else namespace()
    return torch.from_dlpack(x), getattr(library, "from_dlpack", lambda tensor: tensor)


def read(x: Any, name: str, rows_may_be_apart: bool = False) -> Array:
    """An input of any kind; TypeError for what is no array of a known dtype. ``name`` is the argument's."""
    if type(x) is np.ndarray:
        return _from_numpy(x, name, to_numpy, rows_may_be_apart)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _from_torch(x, name, torch, rows_may_be_apart)
    if isinstance(x, np.ndarray):
        return _from_numpy(np.asarray(x), name, to_numpy, rows_may_be_apart)
    if hasattr(x, "__dlpack__"):
        elsewhere = dlpack_on_cuda(x)
        if elsewhere is not None:
            tensor, give = elsewhere
            array = _from_torch(tensor, name, sys.modules["torch"], rows_may_be_apart)
            return array._replace(wrap=lambda result: give(array.wrap(result)))
        try:
            return _from_numpy(np.from_dlpack(x), name, _namespace_wrap(x), rows_may_be_apart)
        except (BufferError, RuntimeError, TypeError) as error:
            raise TypeError(f"{name}: its DLPack memory cannot be read here ({error}); copy it to the CPU first") from None
    if isinstance(x, (list, tuple, int, float)):
        raise TypeError(f"{name}: expected an array, got {type(x).__name__}; make it numpy.asarray(..., dtype=numpy.float32)")
    raise TypeError(f"{name}: expected a NumPy array, a torch tensor or an object with __dlpack__, got {type(x).__name__}")


def read_optional(x: Any, name: str, keep: list[object]) -> Optional[ArrayArg]:
    """The same, or None; what holds the memory goes to ``keep``."""
    if x is None:
        return None
    array = read(x, name)
    keep.append(array.keep)
    return array.arg


def whole(value: Any, name: str) -> int:
    """An int that is no float in disguise."""
    if isinstance(value, (bool, float)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    return int(value.__index__())


Progress = Optional[Callable[[float], Any]]

__all__ = [
    "Array", "ArrayArg", "ArrayResult", "Progress", "Wrap", "core", "dlpack_on_cuda", "ml_dtype", "read", "read_optional", "to_numpy", "torch_dtype",
    "torch_dtype_names", "torch_wrap", "unpack", "whole",
]  # fmt: skip
