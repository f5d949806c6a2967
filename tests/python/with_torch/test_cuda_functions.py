# SPDX-License-Identifier: Apache-2.0
"""quantize, dequantize and gemm of CUDA tensors: the CPU's words, computed where the tensors lie."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import nvfp4
from bits import hard, words

pytest.importorskip("nvfp4._nvfp4_cuda", reason="this build has no CUDA part")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CONVENTIONS = [c["convention"] for c in nvfp4.conventions()]
NVFP4 = "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"
MXFP4 = "sm_120:mma.m16n8k64.f32.mxf4.ue8m0.block32"
BF16 = "sm_90:wgmma.k16.f32.bf16"
OPTIONS = [
    dict(), dict(axis="col"), dict(block=(16, 16)), dict(hadamard=True), dict(scale_layout="128x4"), dict(global_amax=3.5),
    dict(rounding="sr-carry8", seed=7, offset=9), dict(rounding="sr-te", seed=2**63), dict(rounding="sr-exact", seed=1, axis="col"),
]  # fmt: skip


def same(there: torch.Tensor, here: torch.Tensor, what: object = "") -> None:
    """Equal words; any NaN for any NaN, for a GPU's has another word than a CPU's."""
    assert there.is_cuda and there.dtype == here.dtype and there.shape == here.shape, (what, there.dtype, there.shape, here.shape)
    there = there.cpu()
    if there.is_floating_point():
        assert torch.equal(there.isnan(), here.isnan()), what
        there, here = (x.masked_fill(x.isnan(), 0) for x in (there, here))
    equal = torch.equal(there, here) if there.element_size() == 1 else torch.equal(words(there), words(here))
    assert equal, what


def assert_same_tensor(there: nvfp4.QuantizedTensor, here: nvfp4.QuantizedTensor, what: object = "") -> None:
    assert there._device is not None, f"{what}: it was computed on the CPU"
    for part in ("codes", "block_scales", "row_amax"):
        mine, other = getattr(there, part), getattr(here, part)
        assert (mine is None) == (other is None), (what, part)
        if mine is not None:
            same(mine, other, (what, part))
    for name in ("global_amax", "global_encode_scale", "global_decode_scale"):
        mine, other = getattr(there, name), getattr(here, name)
        assert mine == other or (mine != mine and other != other), (what, name, mine, other)
    for name in ("shape", "rows", "k", "axis", "convention", "scale_layout", "rounding", "seed", "offset", "hadamard", "source", "block"):
        assert getattr(there, name) == getattr(here, name), (what, name)


def refusal(call, *args, **named) -> str:
    with pytest.raises(ValueError) as error:
        call(*args, **named)
    return str(error.value)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_quantize_and_dequantize_have_the_words_of_the_cpu(convention, options):
    for at, shape in enumerate([(64, 128), (33, 80), (17, 35), (3, 5, 48), (112,), (0, 32), (272, 256)]):
        x = hard(*shape, seed=at, special=at == 1) if 0 not in shape else torch.zeros(shape)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            mine = x.to(dtype)
            if at == 1:  # NaN of both signs
                mine[2, 0], mine[5, 7] = -float("nan"), float("nan")
            try:
                here = nvfp4.quantize(mine, convention, **options)
            except ValueError as error:
                assert refusal(nvfp4.quantize, mine.cuda(), convention, **options) == str(error)
                continue
            there = nvfp4.quantize(mine.cuda(), convention, **options)
            assert_same_tensor(there, here, (shape, dtype))
            for keep in (False, True):
                same(there.dequantize(keep_rotation=keep), here.dequantize(keep_rotation=keep), (shape, dtype, "values"))


def test_rows_apart_and_views():
    x = hard(64, 160)
    for view in (lambda t: t[:, 16:144], lambda t: t[::2], lambda t: t.t(), lambda t: t[3:, 1:17]):
        assert_same_tensor(nvfp4.quantize(view(x.cuda())), nvfp4.quantize(view(x)))


def test_a_tensor_on_the_gpu_is_one_for_every_other_function(tmp_path):
    x = hard(48, 64)
    on_gpu = x.cuda()  # stats reads it later
    here, there = nvfp4.quantize(x), nvfp4.quantize(on_gpu)
    nvfp4.testing.assert_bits_equal(there, here)
    there.save(tmp_path / "there.safetensors"), here.save(tmp_path / "here.safetensors")
    assert (tmp_path / "there.safetensors").read_bytes() == (tmp_path / "here.safetensors").read_bytes()
    assert there.stats == here.stats
    assert_same_tensor(there.columnwise(), here.columnwise())
    d = nvfp4.gemm(there, there)
    assert nvfp4.check(d, there, there, unit=NVFP4)
    assert nvfp4.check_quantized(there, on_gpu)
    d[3, 5] += 1
    assert not nvfp4.check(d, there, there, unit=NVFP4)
    codes, scales = there.typed("torch")
    assert codes.is_cuda and scales.dtype == torch.float8_e4m3fn


@pytest.mark.parametrize("shape", [(1, 1, 32), (17, 9, 96), (128, 128, 64), (129, 257, 224), (33, 100, 2048), (40, 24, 8192), (5, 7, 0), (0, 8, 64)])
def test_gemm_has_the_words_of_the_cpu(shape):
    m, n, k = shape
    for convention, unit in (("te", NVFP4), ("row-scaled", NVFP4), ("torchao", NVFP4), ("compressed-tensors", NVFP4), ("mxfp4", MXFP4)):
        a, b = (hard(rows, k, seed=rows) if rows * k else torch.zeros(rows, k) for rows in (m, n))
        here = [nvfp4.quantize(x, convention) for x in (a, b)]
        there = {layout: [nvfp4.quantize(x.cuda(), convention, scale_layout=layout) for x in (a, b)] for layout in ("linear", "128x4")}
        for accumulation in ("mmasim", "nadpe", "exact"):
            for named in (dict(), dict(out="bf16", alpha=0.37), dict(out="f16")):
                expected = nvfp4.gemm(*here, unit, accumulation=accumulation, **named)
                for layout, sides in there.items():
                    d, report = nvfp4.gemm(*sides, unit, accumulation=accumulation, report=True, **named)
                    assert report.engine == "cuda" and report.isa.startswith("sm_")
                    same(d, expected, (shape, convention, layout, accumulation, named))


@pytest.mark.parametrize("row_scaled", [False, True])
def test_epilogues(row_scaled):
    convention = "row-scaled" if row_scaled else "te"
    a, b = (nvfp4.quantize(hard(rows, 128, seed=rows), convention) for rows in (70, 45))
    x, y = (nvfp4.quantize(hard(rows, 128, seed=rows).cuda(), convention) for rows in (70, 45))
    c, bias, rows, columns = hard(70, 45), hard(1, 45)[0], hard(1, 70)[0], hard(1, 45, seed=4)[0]
    rows[1] = -0.0
    for out in ("f32", "bf16", "f16"):
        for named in (dict(), dict(bias=bias), dict(beta=-1.25, c=c), dict(beta=0.5, c=c, bias=bias), dict(row_factors=rows),
                      dict(column_factors=columns, bias=bias), dict(row_factors=rows, column_factors=columns, alpha=3e-3)):
            moved = {key: v.cuda() if isinstance(v, torch.Tensor) else v for key, v in named.items()}
            if row_scaled and any(key in named for key in ("c", "row_factors", "column_factors")):
                assert refusal(nvfp4.gemm, x, y, out=out, **moved) == refusal(nvfp4.gemm, a, b, out=out, **named)
                continue
            d, report = nvfp4.gemm(x, y, out=out, report=True, **moved)
            assert report.engine == "cuda", named
            same(d, nvfp4.gemm(a, b, out=out, **named), (out, list(named)))


@pytest.mark.parametrize("unit, dtype", [
    (BF16, torch.bfloat16), ("sm_80:mma.m16n8k16.f32.f16", torch.float16), ("sm_90:wgmma.k32.f32.e4m3", torch.float8_e4m3fn),
    ("sm_90:mma.m8n8k4.f64.f64", torch.float64), ("sm_90:wgmma.k16.f16.f16", torch.float16),
])
def test_dense_units(unit, dtype):
    name = nvfp4.units(unit)[0]["unit"]
    a, b = (hard(rows, 96, seed=rows).clamp(-100, 100).to(dtype) for rows in (65, 33))
    bias = hard(1, 33)[0]
    for named in (dict(), dict(bias=bias), dict(alpha=-0.5)):
        moved = {key: v.cuda() if isinstance(v, torch.Tensor) else v for key, v in named.items()}
        d, report = nvfp4.gemm(a.cuda(), b.cuda(), name, report=True, **moved)
        assert report.engine == "cuda"
        same(d, nvfp4.gemm(a, b, name, **named), (name, list(named)))
    odd = torch.cat([a.flatten()[:1], a.flatten()])[1:].view(a.shape)  # not 16-byte aligned
    same(nvfp4.gemm(odd.cuda(), b.cuda(), name), nvfp4.gemm(a, b, name))


def test_what_the_gpu_does_not_do_is_done_on_the_cpu():
    x = hard(32, 64)
    here, there = nvfp4.quantize(x), nvfp4.quantize(x.cuda())
    start = hard(32, 32, seed=9)
    for named in (dict(exact=True), dict(alpha_rule="div"), dict(groups=[16, 16]), dict(row_scales=[(0, 32, 0.5)], column_scales=[(0, 32, 0.25)]),
                  dict(accumulate=start)):
        d, report = nvfp4.gemm(there, there, report=True, **{k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in named.items()})
        assert report.engine != "cuda"
        same(d, nvfp4.gemm(here, here, **named), list(named))
    wide = nvfp4.quantize(x.double().cuda())
    assert wide._device is None and wide.codes.is_cuda
    nvfp4.testing.assert_bits_equal(wide, nvfp4.quantize(x.double()))
    mixed, report = nvfp4.gemm(there, here, report=True)
    assert report.engine != "cuda" and mixed.is_cuda
    for call in (lambda t, u: nvfp4.gemm(t, u, BF16), lambda t, u: nvfp4.gemm(t, u, out="f8"), lambda t, u: nvfp4.gemm(t, u, bias=t.dequantize()[0]),
                 lambda t, u: nvfp4.gemm(t, u, alpha=float("inf")), lambda t, u: nvfp4.gemm(t, nvfp4.quantize(u.dequantize()[:, :32]))):
        assert refusal(call, there, there) == refusal(call, here, here)


def test_no_value_goes_through_the_host():
    """The profiler sees every copy between host and device, also the twin's own."""
    from torch.profiler import ProfilerActivity, profile

    x, bias = hard(512, 1024).cuda(), hard(1, 512)[0].cuda()

    def work():
        q = nvfp4.quantize(x)
        half = nvfp4.quantize(x.bfloat16(), "torchao", axis="col", rounding="sr-te")
        return q.dequantize(), half.dequantize(), nvfp4.gemm(q, q, bias=bias), nvfp4.gemm(q, q, out="bf16")

    def copies(call) -> list[str]:
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
            call()
            torch.cuda.synchronize()
        names = [event.name for event in seen.events()]
        assert any("kernel" in name for name in names), "the profiler sees no kernel"
        return [name for name in names if "Memcpy" in name and ("HtoD" in name or "DtoH" in name)]

    work()
    assert copies(lambda: (work(), x.cpu())), "the profiler does not see a copy that is made"
    assert copies(work) == []


def test_current_stream_and_many_threads():
    import threading

    x = hard(1024, 1024).cuda()
    expected = nvfp4.quantize(x)
    product = nvfp4.gemm(expected, expected)
    torch.cuda.synchronize()
    failures = []

    def work():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(10):
                late = x * 1.0  # made on this stream, just before
                q = nvfp4.quantize(late)
                del late
                d = nvfp4.gemm(q, q)
                if not torch.equal(words(d), words(product)) or not torch.equal(q.codes, expected.codes):
                    failures.append("another word")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert torch.cuda.current_device() == x.device.index


class Foreign:
    """An array of some library that speaks DLPack and no more."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **named):
        return self.tensor.__dlpack__(**named)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def __array_namespace__(self):
        class Namespace:
            from_dlpack = staticmethod(lambda other: Foreign(torch.from_dlpack(other)))

        return Namespace


def test_arrays_of_other_libraries():
    x = hard(32, 64)
    here, there = nvfp4.quantize(x), nvfp4.quantize(Foreign(x.cuda()))
    assert there._device is not None and type(there.codes) is Foreign
    same(there.codes.tensor, here.codes)
    same(nvfp4.gemm(there, there).tensor, nvfp4.gemm(here, here))
    same(there.dequantize().tensor, here.dequantize())
    words = nvfp4.convert(Foreign(x.cuda()), "cvt.rn.satfinite.e4m3x2.f32", values=True)  # by the CPU
    same(words.tensor, nvfp4.convert(x, "cvt.rn.satfinite.e4m3x2.f32", values=True))
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    q = nvfp4.quantize(cupy.asarray(x.numpy()))
    assert q._device is not None and isinstance(q.codes, cupy.ndarray)
    same(torch.from_dlpack(q.codes), here.codes)


def test_progress_is_told():
    told = []
    q = nvfp4.quantize(hard(64, 64).cuda())
    nvfp4.gemm(q, q, progress=told.append)
    assert told == [1.0]
