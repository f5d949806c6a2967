# SPDX-License-Identifier: Apache-2.0
"""Arrays of other kinds: read without a detour, answered in kind, low-bit types understood both ways."""

import numpy as np
import nvfp4
import pytest
from conftest import BF16, NVFP4, calm, hard
from nvfp4.testing import assert_bits_equal

CVT = "cvt.rn.satfinite.e4m3x2.f32"


class Opaque:
    """Nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack():
    x = hard(16, 64)
    assert_bits_equal(nvfp4.quantize(Opaque(x)), nvfp4.quantize(x))
    assert_bits_equal(nvfp4.gemm(Opaque(x), Opaque(x), BF16), nvfp4.gemm(x, x, BF16))
    with pytest.raises(TypeError, match="DLPack"):
        nvfp4.quantize(Opaque(np.array([object()])))


def test_subclasses_of_numpy_arrays():
    x = hard(16, 64)
    assert_bits_equal(nvfp4.quantize(np.matrix(x)), nvfp4.quantize(x))
    assert_bits_equal(nvfp4.quantize(np.ma.array(x)), nvfp4.quantize(x))


def test_ml_dtypes_in_and_out():
    ml = pytest.importorskip("ml_dtypes")
    x = calm(16, 64)
    q = nvfp4.quantize(x)
    assert nvfp4.gemm(q, q, out="bf16").dtype == ml.bfloat16
    for cvt, dtype in ((CVT, ml.float8_e4m3fn), ("cvt.rn.satfinite.e5m2x2.f32", ml.float8_e5m2), ("cvt.rn.bf16x2.f32", ml.bfloat16)):
        y = nvfp4.convert(x, cvt)
        assert y.dtype == dtype
        assert_bits_equal(y, x.astype(dtype))  # both round to nearest even, and nothing here overflows
    e4m3 = x.astype(ml.float8_e4m3fn)
    assert_bits_equal(nvfp4.gemm(e4m3, e4m3, "sm_90:wgmma.k32.f32.e4m3"), nvfp4.gemm(x, x, "sm_90:wgmma.k32.f32.e4m3"))
    fp4 = x.astype(ml.float4_e2m1fn)
    dense = next(u["unit"] for u in nvfp4.units("sm_120") if u["a"] == u["b"] == "e2m1" and "scale" not in u)
    assert_bits_equal(nvfp4.gemm(fp4, fp4, dense), nvfp4.gemm(fp4.astype(np.float32), fp4.astype(np.float32), dense))
    with pytest.raises(ValueError, match="even number"):
        nvfp4.gemm(fp4[:, :63], fp4, dense)


def test_words_without_ml_dtypes(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    q = nvfp4.quantize(calm(16, 64))
    assert nvfp4.gemm(q, q, out="bf16").dtype == np.uint16
    assert nvfp4.convert(calm(1, 4), CVT).dtype == np.uint8
    with pytest.raises(TypeError, match="ml_dtypes"):
        q.typed()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(TypeError, match="torch"):
        q.typed("torch")


class TestTorch:
    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip("torch", reason="PyTorch is not there")

    def test_results_are_tensors_with_the_same_bits(self):
        torch = self.torch
        x = hard(24, 64)
        t = torch.from_numpy(x.copy())
        q, p = nvfp4.quantize(x), nvfp4.quantize(t)
        assert_bits_equal(p, q)
        assert isinstance(p.codes, torch.Tensor) and p.codes.dtype == torch.uint8
        assert_bits_equal(p.dequantize(), torch.from_numpy(q.dequantize()))
        for out, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16)):
            d = nvfp4.gemm(p, p, out=out)
            assert d.dtype == dtype and d.shape == (24, 24)
            assert_bits_equal(d.float().numpy(), np.asarray(nvfp4.gemm(q, q, out=out)).astype(np.float32))
        assert nvfp4.check(nvfp4.gemm(p, p), p, p)

    def test_views_parameters_and_gradients(self):
        torch = self.torch
        x = torch.from_numpy(hard(40, 96))
        assert_bits_equal(nvfp4.quantize(x[3:35, 16:80]), nvfp4.quantize(x[3:35, 16:80].contiguous()))
        assert_bits_equal(nvfp4.quantize(x.t()), nvfp4.quantize(x.t().contiguous()))
        parameter = torch.nn.Parameter(x.clone())
        assert_bits_equal(nvfp4.quantize(parameter), nvfp4.quantize(x))
        assert not nvfp4.quantize(parameter).dequantize().requires_grad
        assert nvfp4.quantize(torch.empty(0, 16)).dequantize().shape == (0, 16)

    def test_low_bit_types(self):
        torch = self.torch
        x = torch.from_numpy(calm(16, 64))
        assert_bits_equal(nvfp4.convert(x, CVT), x.to(torch.float8_e4m3fn))
        bf16 = x.bfloat16()
        assert nvfp4.quantize(bf16).source == "bf16"
        assert_bits_equal(nvfp4.gemm(bf16, bf16, BF16, out="bf16"), nvfp4.gemm(bf16.float(), bf16.float(), BF16, out="bf16"))
        q = nvfp4.quantize(x)
        codes, scales = q.typed("torch")
        assert codes.dtype == torch.float4_e2m1fn_x2 and scales.dtype == torch.float8_e4m3fn
        again = nvfp4.QuantizedTensor.from_parts(codes, scales, torch.tensor(q.global_amax))
        assert_bits_equal(again, q)
        assert isinstance(again.codes, torch.Tensor)
        mx = nvfp4.quantize(x, "mxfp8-e4m3").typed("torch")
        assert (mx[0].dtype, mx[1].dtype) == (torch.float8_e4m3fn, torch.float8_e8m0fnu)
        with pytest.raises(TypeError, match="complex"):
            nvfp4.quantize(x.to(torch.complex64))
        with pytest.raises(TypeError, match="sparse"):
            nvfp4.quantize(x.to_sparse())

    def test_a_fake_tensor_is_refused(self):
        with self.torch.device("meta"):
            x = self.torch.empty(16, 16)
        with pytest.raises(TypeError, match="x: a tensor on the meta device has no values"):
            nvfp4.quantize(x)
        with self.torch._subclasses.FakeTensorMode() as mode:
            x = mode.from_tensor(self.torch.ones(16, 16))
        with pytest.raises(TypeError, match="x: a FakeTensor has no memory that can be read"):
            nvfp4.quantize(x)

    def test_cuda_tensors_are_answered_on_their_device(self):
        torch = self.torch
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        x = torch.from_numpy(hard(16, 64)).cuda()
        q = nvfp4.quantize(x)
        assert q.codes.device == x.device
        assert_bits_equal(nvfp4.gemm(q, q, NVFP4).cpu(), nvfp4.gemm(nvfp4.quantize(x.cpu()), nvfp4.quantize(x.cpu()), NVFP4))
