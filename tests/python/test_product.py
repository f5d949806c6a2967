# SPDX-License-Identifier: Apache-2.0
"""Conversions, dot products and products give the program's bits."""

import numpy as np
import nvfp4
import pytest
from conftest import BF16, NVFP4, calm, hard
from nvfp4.testing import assert_bits_equal

st = pytest.importorskip("safetensors.numpy")


def special(rows, k, seed=0):
    x = hard(rows, k, seed)
    x[1, 3], x[2, 5], x[3, 7] = np.nan, np.inf, -np.inf
    return x


@pytest.fixture
def files(tmp_path, program):
    """Saves arrays and quantized tensors under names; returns their paths."""

    def save(**arrays):
        for name, x in arrays.items():
            if isinstance(x, nvfp4.QuantizedTensor):
                x.save(tmp_path / f"{name}.safetensors")
            elif isinstance(x, dict):
                st.save_file(x, tmp_path / f"{name}.safetensors")
            else:
                np.save(tmp_path / f"{name}.npy", x)
        return tmp_path

    return save


UNITS = [
    NVFP4,
    "sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16",
    "sm_90:wgmma.k16.f16.f16",
    "sm_90:wgmma.k32.f32.e4m3",
    "sm_90:mma.m16n8k8.f64.f64",
    BF16,
]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("shape", [(16, 16, 64), (5, 37, 96), (33, 7, 130)], ids=str)
@pytest.mark.parametrize("data", [hard, calm, special])
def test_gemm(program, files, unit, shape, data):
    known = [u for u in nvfp4.units() if u["unit"] == unit]
    m, n, k = shape
    a, b = data(max(m, 8), k)[:m], data(max(n, 8), k, 1)[:n]
    if unit.endswith("f64"):
        a, b = a.astype(np.float64), b.astype(np.float64)
    if known[0].get("scale_block"):
        a, b = nvfp4.quantize(a), nvfp4.quantize(b)
    where = files(a=a, b=b)
    kind = "safetensors" if known[0].get("scale_block") else "npy"
    program("gemm", where / f"a.{kind}", where / f"b.{kind}", "-o", where / "d.npy", "--unit", unit)
    d, report = nvfp4.gemm(a, b, unit, report=True)
    assert_bits_equal(d, np.load(where / "d.npy"))
    assert report.engine in ("definition", "fp4", "fdpa")
    assert_bits_equal(nvfp4.gemm(a, b, unit, threads=1), d)
    if m * n * k < 20000:
        assert_bits_equal(nvfp4.gemm(a, b, unit, exact=True), d)


def test_gemm_takes_all_that_the_program_takes(program, files):
    x, w = hard(24, 64), calm(12, 64)
    a, b, c = nvfp4.quantize(x), nvfp4.quantize(w), calm(24, 12)
    bias, rows, columns = calm(1, 12)[0], np.abs(calm(1, 24)[0]), calm(1, 12, 4)[0]
    where = files(a=a, b=b, c=c, bias=bias, rows=rows, columns=columns)
    options = {
        ("--out", "bf16", "--alpha", "0.37"): dict(out="bf16", alpha=0.37),
        ("--out", "f16", "--bias", where / "bias.npy"): dict(out="f16", bias=bias),
        ("--beta", "-1.5", "--c", where / "c.npy", "--alpha-rule", "div"): dict(beta=-1.5, c=c, alpha_rule="div"),
        ("--row-factors", where / "rows.npy", "--column-factors", where / "columns.npy"): dict(row_factors=rows, column_factors=columns),
        ("--row-scales", "0:10=0.5,10:24=0.25"): dict(row_scales=[(0, 10, 0.5), (10, 24, 0.25)]),
        ("--groups", "20,0,4"): dict(groups=[20, 0, 4]),
        ("--accumulation", "nadpe"): dict(accumulation="nadpe"),
    }
    for flags, named in options.items():
        program("gemm", where / "a.safetensors", where / "b.safetensors", "-o", where / "d.safetensors", "--unit", NVFP4, *flags)
        d = nvfp4.gemm(a, b, NVFP4, **named)
        words = nvfp4.golden.load(where / "d.safetensors").tensors["d"]
        assert_bits_equal(d, words)


def test_gemm_continues_accumulators(program, files):
    a, b = calm(16, 64), calm(8, 64, 1)
    first = nvfp4.gemm(a[:, :32], b[:, :32], BF16)
    whole = nvfp4.gemm(a[:, 32:], b[:, 32:], BF16, accumulate=first)
    assert_bits_equal(whole, nvfp4.gemm(a, b, BF16))


@pytest.mark.parametrize("cvt", [c["conversion"] for c in nvfp4.conversions() if c["from"] in ("f32", "f16")])
def test_convert(program, files, cvt):
    kind = np.float16 if "f16" == next(c["from"] for c in nvfp4.conversions(cvt) if c["conversion"] == cvt) else np.float32
    with np.errstate(over="ignore"):
        x = special(9, 33).astype(kind)
    where = files(x=x)
    program("convert", where / "x.npy", "-o", where / "y.safetensors", "--cvt", cvt)
    program("convert", where / "x.npy", "-o", where / "v.npy", "--cvt", cvt, "--values")
    y = nvfp4.golden.load(where / "y.safetensors").tensors["data"]
    assert_bits_equal(nvfp4.convert(x, cvt), y)
    assert_bits_equal(nvfp4.convert(x, cvt, values=True), np.load(where / "v.npy"))


@pytest.mark.parametrize("rounding", ["rne", "rna", "rz", "rp", "rm", "odd", "sr"])
def test_convert_to_a_format_of_ones_own(program, files, rounding):
    x = special(9, 33)
    where = files(x=x)
    for to in ("e3m4:nan", "e4m3:fnuz", "e6m9", "fixed12.5"):
        options = dict(rounding=rounding, saturate=to == "e6m9", seed=7, offset=3)
        given = ["--to", to, "--rounding", rounding, "--seed", "7", "--offset", "3"] + ["--saturate"] * options["saturate"]
        program("convert", where / "x.npy", "-o", where / "y.npy", *given)
        program("convert", where / "x.npy", "-o", where / "v.npy", "--values", *given)
        assert_bits_equal(nvfp4.convert(x, to=to, **options), np.load(where / "y.npy"))
        assert_bits_equal(nvfp4.convert(x, to=to, values=True, **options), np.load(where / "v.npy"))


@pytest.mark.parametrize("dtype, to", [
    ("float8_e4m3fnuz", "e4m3:fnuz"), ("float8_e5m2fnuz", "e5m2:fnuz"), ("float8_e4m3b11fnuz", "e4m3:bias=11:fnuz"),
    ("float8_e3m4", "e3m4"), ("float8_e4m3", "e4m3:ieee"), ("float8_e4m3fn", "e4m3:nan"), ("float8_e5m2", "e5m2"),
    ("float6_e2m3fn", "e2m3:finite"), ("float6_e3m2fn", "e3m2:finite"), ("float4_e2m1fn", "e2m1:finite"),
])
def test_formats_of_ones_own_are_those_of_ml_dtypes(dtype, to):
    ml = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(20000) * np.exp(6 * rng.standard_normal(20000))).astype(np.float32)
    x = np.concatenate([x, np.array([0.0, -0.0, np.inf, -np.inf, 240, 248, -247.9, 1e-9, -1e-9], np.float32)])
    with np.errstate(all="ignore"):
        assert_bits_equal(nvfp4.convert(x, to=to), x.astype(getattr(ml, dtype)).view(np.uint8))


def test_convert_refuses(program):
    x = calm(2, 8)
    for kwargs, part in [({}, "either cvt"), (dict(cvt=nvfp4.conversions()[0]["conversion"], to="e4m3"), "either cvt"),
                         (dict(to="e4"), "expected eXmY"), (dict(to="e4m3", rounding="up"), "unknown rounding"),
                         (dict(to="posit8", rounding="rp"), "rne, rz and sr")]:
        with pytest.raises(ValueError, match=part):
            nvfp4.convert(x, **kwargs)


def words_for(unit, n, chains, rng):
    """Random words of every operand, NaN and Inf among them."""
    size = {"e2m1": 4, "e1m2": 4, "int4": 4, "f16": 16, "bf16": 16, "tf32": 32, "f32": 32, "f64": 64}
    k = unit["k"] * chains

    def words(format_name, shape):
        bits = size.get(format_name, 8)
        if bits == 4:
            return rng.integers(0, 256, (*shape[:-1], shape[-1] // 2), np.uint8)
        return rng.integers(0, 2**bits, shape, f"u{bits // 8}")

    operands = dict(a=words(unit["a"], (n, k)), b=words(unit["b"], (n, k)), c=words(unit["accumulator"], (n,)))
    if "scale_block" in unit:
        for side in "ab":
            operands["scale_" + side] = rng.integers(0, 256, (n, k // unit["scale_block"]), np.uint8)
    return operands


@pytest.mark.parametrize("unit", [u for u in nvfp4.units()][::25], ids=lambda u: u["unit"])
def test_mma(program, files, unit):
    rng = np.random.default_rng(3)
    operands = words_for(unit, 50, 2, rng)
    where = files(**{"in": operands})
    program("mma", "--unit", unit["unit"], where / "in.safetensors", "-o", where / "out.safetensors")
    d = nvfp4.mma(unit["unit"], **operands)
    assert_bits_equal(d, nvfp4.golden.load(where / "out.safetensors").tensors["d"])
    assert_bits_equal(nvfp4.mma(unit["unit"], **operands, exact=True), d)


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda x, q: nvfp4.gemm(x, x), ValueError, "a: operand A is dense"),
        (lambda x, q: nvfp4.gemm(q, q, BF16), ValueError, "a: "),
        (lambda x, q: nvfp4.gemm(q, x), ValueError, "b: "),
        (lambda x, q: nvfp4.gemm(x, x[:, :32], BF16), ValueError, "32"),
        (lambda x, q: nvfp4.gemm(x[0], x, BF16), ValueError, "expected a matrix"),
        (lambda x, q: nvfp4.gemm(q, q, "sm_120:nothing"), ValueError, "nothing"),
        (lambda x, q: nvfp4.gemm(q, q, out="e4m3"), ValueError, "e4m3"),
        (lambda x, q: nvfp4.gemm(q, q, out="f31"), ValueError, "f31"),
        (lambda x, q: nvfp4.gemm(q, q, alpha=float("inf")), ValueError, "alpha"),
        (lambda x, q: nvfp4.gemm(q, q, alpha="1"), TypeError, "alpha"),
        (lambda x, q: nvfp4.gemm(q, q, beta=1), ValueError, "needs c"),
        (lambda x, q: nvfp4.gemm(q, q, c=x), ValueError, "without beta"),
        (lambda x, q: nvfp4.gemm(q, q, beta=1, c=x), ValueError, "c: "),
        (lambda x, q: nvfp4.gemm(q, q, bias=x), ValueError, "bias"),
        (lambda x, q: nvfp4.gemm(q, q, accumulation="guess"), ValueError, "guess"),
        (lambda x, q: nvfp4.gemm(q, q, groups=[1, 2]), ValueError, ""),
        (lambda x, q: nvfp4.gemm(q, q, row_scales=[(0, 1)]), TypeError, "row_scales"),
        (lambda x, q: nvfp4.convert(x, "cvt.up"), ValueError, "cvt.up"),
        (lambda x, q: nvfp4.convert(x.astype(np.float64), "cvt.rn.satfinite.e4m3x2.f32"), ValueError, "F64"),
        (lambda x, q: nvfp4.mma(BF16, x, x), ValueError, "'a'"),
        (lambda x, q: nvfp4.mma(NVFP4, np.zeros((1, 32), np.uint8), np.zeros((1, 32), np.uint8)), ValueError, "scale_a"),
    ],
)
def test_errors_are_one_line(call, kind, text):
    x = calm(16, 64)
    with pytest.raises(kind) as error:
        call(x, nvfp4.quantize(x))
    assert text in str(error.value) and "\n" not in str(error.value)
