# SPDX-License-Identifier: Apache-2.0
"""The operators of torch.library that a layer is made of. All their state is in their arguments: `clock` says which step
it is (_clock.py), `spec` is a layer's place and recipe as JSON, channels are -1 where none are chosen.

Who calls choose_channels, linear and linear_backward meets the operators where something looks at operators: compilers,
export, dispatch modes, subclasses of tensors, torch.func. Elsewhere the same functions run without PyTorch's dispatcher, which
in Python costs more than all else that a call of a small layer does on the host.

No `from __future__ import annotations` here: torch.library reads the annotations.
"""

import collections
import ctypes
import functools
import importlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple, Optional, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import Parameter
from torch.utils.weak import WeakTensorKeyDictionary

from nvfp4 import _nvfp4
from nvfp4.torch import _clock, _ranks

F = TypeVar("F", bound=Callable[..., Any])
_library = torch.library.Library("nvfp4", "FRAGMENT")


def _operator(mutates: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Makes a function the operator nvfp4::NAME on every device; the function stays what it was. (torch.library.custom_op
    would look for aliases at each call; here tests do, by opcheck.)"""
    def register(body: F) -> F:
        name = body.__name__.removeprefix("_run_")
        _library.define(name + torch.library.infer_schema(body, mutates_args=mutates), tags=(torch.Tag.pt2_compliant_tag,))
        _library.impl(name, body, "CompositeExplicitAutograd")
        return body

    return register


def _fake(name: str) -> Callable[[F], F]:
    """Registers what an operator does to shapes and dtypes."""
    def register(body: F) -> F:
        torch.library.register_fake(f"nvfp4::{name}", body, lib=_library)
        return body

    return register


def _nothing_looks(*tensors: Optional[Tensor]) -> bool:
    """Whether a call of an operator and a call of its function are the same to everybody."""
    if torch.compiler.is_compiling():
        return False
    c = torch._C
    return (c._len_torch_dispatch_stack() == 0 and c._len_torch_function_stack() == 0
            and c._functorch.peek_interpreter_stack() is None and not c._is_tracing()
            and all(t is None or type(t) is Tensor or type(t) is Parameter for t in tensors))


# What a recorder keeps of calls: (spec, name of the pass, tensors by name). Set by _record.py.
observer: Optional[Callable[[str, str, dict[str, Optional[Tensor]]], None]] = None


class Layer(NamedTuple):
    module: Any  # _nvfp4, or its CUDA twin
    handle: object
    channels: int  # hot ones of fprop
    dgrad_channels: int
    choice: str
    reduces: bool  # global amaxes over ranks
    group: str


@functools.lru_cache(maxsize=None)
def _module(kind: str) -> Any:
    if kind != "cuda":
        return _nvfp4
    try:
        return importlib.import_module("nvfp4._nvfp4_cuda")
    except ImportError as error:
        raise ValueError("expected a tensor on the CPU, for this build of nvfp4 has no CUDA part; build the package with nvcc "
                         f"or move the model to the CPU ({error})") from error


@functools.lru_cache(maxsize=None)
def _device(name: str, threads: int) -> object:
    kind = name.partition(":")[0]
    return _module(kind).linear_device(kind, threads)


@functools.lru_cache(maxsize=4096)
def _made(device: torch.device, threads: int, spec: str, inputs: int, outputs: int) -> Layer:
    s = json.loads(spec)
    module = _module(device.type)
    handle = module.linear_layer(_device(str(device), threads), s["recipe"], s["family"], s["role"], s["layer"], s["layers"],
                                 s["id"], inputs, outputs)
    channels, dgrad_channels, choice, reduces = module.linear_facts(handle)
    return Layer(module, handle, channels, dgrad_channels, choice, reduces, s["group"])


_CPU = torch.device("cpu")


def layer(device: torch.device, spec: str, inputs: int, outputs: int) -> Layer:
    """The C++ layer on a device; on the CPU with as many threads as PyTorch takes, which change no bit."""
    return _made(device, torch.get_num_threads() if device == _CPU else 0, spec, inputs, outputs)


def _layer_of(spec: str, weight: Tensor) -> Layer:
    outputs, inputs = weight.shape
    if weight.is_cuda:
        _module("cuda").use_device(weight.get_device())  # the twin's memory is that GPU's
    return layer(weight.device, spec, inputs, outputs)


def _dense(t: Tensor) -> Tensor:
    if t.dtype == torch.float32 and t.is_contiguous():
        return t  # functions of layers read addresses only
    return t.detach().to(torch.float32).contiguous()


def _narrow(t: Tensor, dtype: torch.dtype) -> Tensor:
    """FP32 results in a tensor's dtype: nearest even, every NaN 7fc0 (PyTorch's conversion has several words for it)."""
    if t.dtype == dtype:
        return t
    if t.is_cuda and dtype == torch.bfloat16:
        out = torch.empty(t.shape, dtype=dtype, device=t.device)
        _module("cuda").narrow(_address(t), t.numel(), _address(out), torch.cuda.current_stream(t.device).cuda_stream)
        return out
    narrow = t.to(dtype)
    return narrow.masked_fill_(narrow.isnan(), float("nan"))


def _address(t: Optional[Tensor]) -> Optional[int]:
    return None if t is None else t.data_ptr() or None  # of an empty one 0


def _floats(memory: tuple[int, int, object]) -> Tensor:
    address, size, _owner = memory
    return torch.frombuffer((ctypes.c_float * (size // 4)).from_address(address), dtype=torch.float32).clone()


def _integers(memory: tuple[int, int, object]) -> Tensor:
    address, size, _owner = memory
    return torch.frombuffer((ctypes.c_int32 * (size // 4)).from_address(address), dtype=torch.int32).clone()


_NONE = torch.empty(0, dtype=torch.int32)


class _HotChannels:
    """What buffers of hot channels hold, in host memory. Reading one from a GPU waits for all that it has to do, so the first
    that a pass of a model asks for brings all that layers have asked for, and each is read again where it has changed since.
    (Writing through `.data` or by a collective does not count as a change, but no pass begins without a new look.)
    """

    def __init__(self) -> None:
        self.passes = 0  # that have begun
        self._held: Any = WeakTensorKeyDictionary()  # buffer: (pass, version, channels)

    def __call__(self, buffer: Optional[Tensor]) -> Tensor:
        """To be read only."""
        if buffer is None:
            return _NONE
        if buffer.is_inference():  # without a version
            return self._chosen(buffer.cpu())
        looked, version, channels = self._held.get(buffer, (-1, 0, None))
        if looked != self.passes:
            self._held[buffer] = (-1, 0, None)
            self._look(buffer.device)
            channels = self._held[buffer][2]
        elif version != buffer._version:
            channels = self._chosen(buffer.detach().cpu())
            self._held[buffer] = (self.passes, buffer._version, channels)
        assert channels is not None
        return channels

    def _look(self, device: torch.device) -> None:
        buffers = [each for each in list(self._held.keys()) if each.device == device]
        host = torch.cat([each.detach() for each in buffers]).cpu().split([each.numel() for each in buffers])
        for each, values in zip(buffers, host, strict=True):
            self._held[each] = (self.passes, each._version, self._chosen(values))

    @staticmethod
    def _chosen(values: Tensor) -> Tensor:
        return values[values >= 0].contiguous()


_hot_channels = _HotChannels()


class _Contents:
    """Numbers what tensors hold, so that q, k and v quantize their input once: equal numbers for the same memory that nothing
    has written between two calls of a training pass. What autograd has saved may not be written but for what versions tell, so
    these are trusted there, and nowhere else.
    """

    def __init__(self) -> None:
        self.training = False
        self._last = 0
        self._known: collections.deque[tuple[Any, StorageWeakRef, int]] = collections.deque(maxlen=2)

    def begin(self, training: bool) -> None:
        self.training = training
        self._known.clear()

    def __call__(self, t: Tensor, shares: bool) -> int:
        """0: not known."""
        if not (self.training and shares) or t.is_inference():
            return 0
        storage = t.untyped_storage()
        key = (storage._cdata, t.storage_offset(), t.shape, t.stride(), t.dtype, t._version)
        for known, memory, number in self._known:
            if known == key and not memory.expired():
                return number
        self._last += 1
        self._known.append((key, StorageWeakRef(storage), self._last))
        return self._last


_contents = _Contents()


def _reduction(ours: Layer) -> Optional[_ranks.LargestOverRanks]:
    group = _ranks.find(ours.group) if ours.reduces else None
    return None if group is None else _ranks.LargestOverRanks(group)


class _Stream:
    """The twin works on the default stream: after what the current stream has, and before what it gets next."""

    def __init__(self, t: Tensor) -> None:
        self._waits: Optional[tuple[Any, Any]] = None
        if t.is_cuda and torch._C._cuda_getCurrentRawStream(t.get_device()) != 0:  # 0: the default one
            self._waits = torch.cuda.current_stream(t.device), torch.cuda.default_stream(t.device)

    def __enter__(self) -> None:
        if self._waits is not None:
            self._waits[1].wait_stream(self._waits[0])

    def __exit__(self, kind: object, *_: object) -> None:
        if self._waits is not None and kind is None:
            self._waits[0].wait_stream(self._waits[1])


class _Note(NamedTuple):
    """What a clock says."""

    clock: Tensor
    version: int  # at which it said so; -1: unknown
    micro_batch: int
    step: int
    key: tuple[int, int, int]
    copy: Optional[Tensor]  # of the clock, for a backward pass


_last_note: Optional[_Note] = None  # of this pass


def _read(clock: Tensor, copy: Optional[Tensor] = None) -> _Note:
    words = clock.tolist()
    return _Note(clock, -1 if clock.is_inference() else clock._version, words[_clock.MICRO_BATCH], words[_clock.STEP],
                 _clock.key(clock), copy)


def _note(clock: Tensor) -> _Note:
    """Read once in a pass, as long as nothing writes the clock; not for compiled graphs, whose kernels count no versions."""
    global _last_note
    known = _last_note
    if known is not None and known.clock is clock and known.version >= 0 and known.version == clock._version:
        return known
    with torch.inference_mode(False):
        _last_note = _read(clock, clock.clone())
    return _last_note


def _begin_pass(training: bool) -> None:
    global _last_note
    _last_note = None
    _hot_channels.passes += 1
    _contents.begin(training)


@_operator(mutates=("clock",))
def tick(clock: Tensor, group: str) -> None:
    """A training pass of the clock's model begins."""
    _begin_pass(training=True)
    _clock.tick(clock, group)


@_fake("tick")
def _(clock: Tensor, group: str) -> None:
    return None


@_operator(mutates=("clock",))
def look(clock: Tensor) -> None:
    """Another pass begins. The clock stays; it is named so that compilers keep the call."""
    _begin_pass(training=False)


@_fake("look")
def _(clock: Tensor) -> None:
    return None


def _choose(data: Tensor, weight: Tensor, channels: Tensor, scores: Tensor, now: _Note, product: str, spec: str) -> None:
    if now.micro_batch != 0:
        return
    ours = _layer_of(spec, weight)
    if not ours.module.linear_choice_is_due(ours.handle, now.step):
        return
    x, w = _dense(data), _dense(weight)
    rows = x.numel() // x.shape[-1]
    own = torch.zeros(x.shape[-1])  # of no rows; other ranks may have some
    with _Stream(x):
        if rows > 0:
            own = _floats(ours.module.linear_scores(ours.handle, now.key, product, _address(x), rows, _address(w),
                                                    _reduction(ours)))
    agreed = _ranks.agree_on_scores(own, ours.choice, _ranks.find(ours.group)).contiguous()
    chosen = _integers(ours.module.linear_select(ours.handle, product, _address(agreed), agreed.numel()))
    channels.fill_(-1)
    channels[:chosen.numel()].copy_(chosen)
    scores.copy_(agreed)


@_operator(mutates=("channels", "scores"))
def _run_choose_channels(data: Tensor, weight: Tensor, channels: Tensor, scores: Tensor, clock: Tensor, product: str,
                         spec: str) -> None:
    _choose(data, weight, channels, scores, _read(clock), product, spec)


@_fake("choose_channels")
def _(data: Tensor, weight: Tensor, channels: Tensor, scores: Tensor, clock: Tensor, product: str, spec: str) -> None:
    return None


def choose_channels(data: Tensor, weight: Tensor, channels: Tensor, scores: Tensor, clock: Tensor, product: str,
                    spec: str) -> None:
    """Chooses the hot channels of fprop (data is x) or dgrad (dy) where the step's first micro-batch does; else nothing."""
    if _nothing_looks(data, weight):
        _choose(data, weight, channels, scores, _note(clock), product, spec)
    else:
        torch.ops.nvfp4.choose_channels.default(data.detach(), weight.detach(), channels, scores, clock, product, spec)


def _forward(x: Tensor, weight: Tensor, bias: Optional[Tensor], channels: Optional[Tensor], now: _Note, shares: bool,
             spec: str) -> Tensor:
    ours = _layer_of(spec, weight)
    dense, w = _dense(x), _dense(weight)
    b = None if bias is None else _dense(bias)
    rows = x.numel() // x.shape[-1]
    y = torch.empty((*x.shape[:-1], weight.shape[0]), dtype=torch.float32, device=x.device)
    hot = _hot_channels(channels)
    if rows > 0:
        with _Stream(dense):
            ours.module.linear_forward(ours.handle, now.key, _address(dense), rows, _contents(x, shares), _address(w), _address(b),
                                       _address(hot), hot.numel(), _address(y), _reduction(ours))
    out = _narrow(y, x.dtype)
    if observer is not None:
        observer(spec, "forward", {"input": x, "weight": weight, "bias": bias, "output": out, "hot_channels": hot,
                                   "clock": now.clock})
    return out


@_operator()
def _run_linear(x: Tensor, weight: Tensor, bias: Optional[Tensor], channels: Optional[Tensor], dgrad_channels: Optional[Tensor],
                dgrad_scores: Optional[Tensor], clock: Tensor, chooses: bool, shares: bool, spec: str) -> tuple[Tensor, Tensor]:
    """y, and the clock as it was read."""
    return _forward(x, weight, bias, channels, _read(clock), shares, spec), clock.clone()


@_fake("linear")
def _(x: Tensor, weight: Tensor, bias: Optional[Tensor], channels: Optional[Tensor], dgrad_channels: Optional[Tensor],
      dgrad_scores: Optional[Tensor], clock: Tensor, chooses: bool, shares: bool, spec: str) -> tuple[Tensor, Tensor]:
    return x.new_empty((*x.shape[:-1], weight.shape[0])), torch.empty_like(clock)


def _gradients(dy: Tensor, x: Tensor, weight: Tensor, bias: Optional[Tensor], channels: Optional[Tensor], now: _Note,
               wanted: list[bool], shares: bool, spec: str) -> tuple[Tensor, Tensor, Tensor]:
    ours = _layer_of(spec, weight)
    grad, dense, w = _dense(dy), _dense(x), _dense(weight)
    rows = x.numel() // x.shape[-1]

    def gradient(of: Optional[Tensor], needed: bool, make: Callable[..., Tensor]) -> Tensor:
        shape = of.shape if needed and of is not None else (0,)
        return make(shape, dtype=torch.float32, device=x.device)

    # dx is written, the others are added to
    dx = gradient(x, wanted[0], torch.empty)
    dw, db = gradient(weight, wanted[1], torch.zeros), gradient(bias, wanted[2], torch.zeros)
    hot = _hot_channels(channels)
    if rows > 0:
        with _Stream(grad):
            ours.module.linear_backward(ours.handle, now.key, _address(dense), rows, _contents(x, shares), _address(w),
                                        _address(hot), hot.numel(), _address(grad), _address(dx), _address(dw), _address(db),
                                        _reduction(ours))
    out = (_narrow(dx, x.dtype), _narrow(dw, weight.dtype),
           _narrow(db, weight.dtype if bias is None else bias.dtype))
    if observer is not None:
        observer(spec, "backward", {"input": x, "output_grad": dy, "input_grad": out[0], "weight_grad": out[1], "bias_grad": out[2],
                                    "hot_channels_dgrad": hot, "clock": now.clock})
    return out


@_operator()
def _run_linear_backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Optional[Tensor], channels: Optional[Tensor],
                         clock: Tensor, wanted: list[bool], shares: bool, spec: str) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(dy, x, weight, bias, channels, _read(clock), wanted, shares, spec)


@_fake("linear_backward")
def _(dy: Tensor, x: Tensor, weight: Tensor, bias: Optional[Tensor], channels: Optional[Tensor], clock: Tensor,
      wanted: list[bool], shares: bool, spec: str) -> tuple[Tensor, Tensor, Tensor]:
    def like(of: Optional[Tensor], needed: bool) -> Tensor:
        if of is None:
            return weight.new_empty((0,))
        return of.new_empty(of.shape if needed else (0,))

    return like(x, wanted[0]), like(weight, wanted[1]), like(bias, wanted[2])


def linear_backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Optional[Tensor], channels: Optional[Tensor], clock: Tensor,
                    wanted: list[bool], shares: bool, spec: str) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dW and db in their tensors' dtypes; of size 0 where they are not wanted."""
    if not torch.is_grad_enabled() and _nothing_looks(dy, x, weight, bias):
        return _gradients(dy, x, weight, bias, channels, _note(clock), wanted, shares, spec)
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.nvfp4.linear_backward.default(dy, x, weight, bias, channels, clock, wanted,
                                                                                   shares, spec)
    return grads


def _no_second(ctx: Any, *_: Tensor) -> None:
    raise RuntimeError("expected a first derivative of a layer under a recipe, which is the only one that it has")


torch.library.register_autograd("nvfp4::linear_backward", _no_second, lib=_library)


def _save(ctx: Any, inputs: tuple[Any, ...], clock: Tensor) -> None:
    x, weight, bias, _channels, dgrad_channels, dgrad_scores, _now, chooses, shares, spec = inputs
    ctx.save_for_backward(x, weight, bias, clock)
    # not saved tensors: a layer that is called twice chooses, and so writes them, between two backward passes
    ctx.dgrad_channels, ctx.dgrad_scores = dgrad_channels, dgrad_scores
    ctx.chooses, ctx.shares, ctx.spec = chooses, shares, spec


def _save_of_operator(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _save(ctx, inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Optional[Tensor], ...]:
    x, weight, bias, clock = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:3])
    if wanted[0] and ctx.chooses and ctx.dgrad_channels is not None:
        choose_channels(dy, weight, ctx.dgrad_channels, ctx.dgrad_scores, clock, "dgrad", ctx.spec)
    grads = linear_backward(dy, x, weight, bias, ctx.dgrad_channels, clock, wanted, ctx.shares, ctx.spec)
    return (*(g if needed else None for g, needed in zip(grads, wanted, strict=True)), *[None] * 7)


torch.library.register_autograd("nvfp4::linear", _backward, setup_context=_save_of_operator, lib=_library)


class Nvfp4Linear(torch.autograd.Function):
    """The operator's autograd without the operator."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, weight, bias, channels, _, _, clock, _, shares, spec = inputs
        now = _note(clock)
        y = _forward(x, weight, bias, channels, now, shares, spec)
        assert now.copy is not None
        _save(ctx, inputs, now.copy)
        return y

    backward = staticmethod(_backward)


def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor], channels: Optional[Tensor], dgrad_channels: Optional[Tensor],
           dgrad_scores: Optional[Tensor], clock: Tensor, chooses: bool, shares: bool, spec: str) -> Tensor:
    """y (..., out) of x (..., in), in x's dtype. chooses: hot channels of dgrad, where it is time; shares: x is saved for a
    backward pass, and no compiled graph, which may use its memory for something else unseen, has it."""
    inputs = (x, weight, bias, channels, dgrad_channels, dgrad_scores, clock, chooses, shares, spec)
    if _nothing_looks(x, weight, bias):
        y: Tensor = Nvfp4Linear.apply(*inputs)
        return y
    y, _ = torch.ops.nvfp4.linear.default(*inputs)
    return y
