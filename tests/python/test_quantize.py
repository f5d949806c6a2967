# SPDX-License-Identifier: Apache-2.0
"""Quantization gives the program's files, byte for byte."""

import json

import numpy as np
import nvfp4
import pytest
from conftest import calm, hard
from nvfp4 import QuantizedTensor
from nvfp4.testing import assert_bits_equal

CONVENTIONS = [c["convention"] for c in nvfp4.conventions()]


def special(rows=32, k=64):
    x = hard(rows, k)
    x[1, 3], x[2, 5], x[3, 7] = np.nan, np.inf, -np.inf
    return x


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_convention_writes_the_programs_file(program, tmp_path, convention):
    for name, x in {"hard": hard(37, 80), "calm": calm(32, 64), "zeros": np.zeros((16, 32), np.float32), "special": special()}.items():
        np.save(tmp_path / "x.npy", x)
        program("quantize", tmp_path / "x.npy", "-o", tmp_path / "a.safetensors", "--convention", convention)
        q = nvfp4.quantize(x, convention)
        q.save(tmp_path / "b.safetensors")
        assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes(), name
        program("dequantize", tmp_path / "a.safetensors", "-o", tmp_path / "y.npy")
        assert_bits_equal(q.dequantize(), np.load(tmp_path / "y.npy"))


@pytest.mark.parametrize(
    "options",
    [
        dict(axis="col"),
        dict(block=(16, 16)),
        dict(hadamard=True),
        dict(scale_layout="128x4"),
        dict(rounding="sr-carry8", seed=7, offset=9),
        dict(rounding="sr-te", seed=2**63),
        dict(rounding="sr-exact", seed=1, axis="col"),
        dict(global_amax=3.5),
        dict(convention="flashinfer", global_scale=123.25),
        dict(convention="mxfp4", block=(32, 32)),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(16, 64), (48, 32), (3, 5, 16), (112,)], ids=str)
def test_every_option_writes_the_programs_file(program, tmp_path, options, shape):
    x = hard(int(np.prod(shape[:-1], initial=1)), shape[-1]).reshape(shape)
    flags = []
    for key, value in options.items():
        flag = "--" + key.replace("_", "-")
        flags += [flag] if value is True else [flag, "x".join(map(str, value)) if key == "block" else str(value)]
    if options.get("rounding") and "seed" not in options:
        flags += ["--seed", "0"]
    if "convention" not in options:
        flags += ["--convention", "te"]
    np.save(tmp_path / "x.npy", x)
    done = program("quantize", tmp_path / "x.npy", "-o", tmp_path / "a.safetensors", "--json", *flags, check=False)
    if done.returncode != 0:
        with pytest.raises(ValueError) as error:
            nvfp4.quantize(x, **options)
        assert done.stderr.strip() == f"nvfp4: {error.value}"
        return
    q = nvfp4.quantize(x, **options)
    q.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert q.shape == shape
    assert q.stats == json.loads(done.stdout)["statistics"]
    assert len(q.statistics(by_row=True)) == -(-q.rows // q.block[0])


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"])
def test_other_types_are_the_programs_types(program, tmp_path, dtype):
    ml = pytest.importorskip("ml_dtypes")
    x = calm(20, 48).astype(getattr(ml, dtype, None) or dtype)
    q = nvfp4.quantize(x, "compressed-tensors")
    assert q.source == {"float16": "f16", "bfloat16": "bf16"}.get(dtype, "f32")
    wide = nvfp4.quantize(x.astype(np.float32), "compressed-tensors")
    if q.source == "f32":
        assert_bits_equal(q, wide)
    st = pytest.importorskip("safetensors.numpy") if dtype in ("float64", "float16") else None
    if st is not None:
        st.save_file({"data": x}, tmp_path / "x.safetensors")
        program("quantize", tmp_path / "x.safetensors", "-o", tmp_path / "a.safetensors", "--convention", "compressed-tensors")
        q.save(tmp_path / "b.safetensors")
        assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_views_are_read_as_they_lie():
    x = hard(40, 96)
    expected = nvfp4.quantize(np.ascontiguousarray(x[3:35, 16:80]))
    assert_bits_equal(nvfp4.quantize(x[3:35, 16:80]), expected)
    assert_bits_equal(nvfp4.quantize(np.asfortranarray(x)[3:35, 16:80]), expected)
    assert_bits_equal(nvfp4.quantize(x.astype(">f4")[3:35, 16:80]), expected)
    backwards = x[::-1, ::-1][::2, ::3]
    assert_bits_equal(nvfp4.quantize(backwards), nvfp4.quantize(backwards.copy()))
    overlapping = np.lib.stride_tricks.sliding_window_view(x.reshape(-1), 64)[:8]
    assert_bits_equal(nvfp4.quantize(overlapping), nvfp4.quantize(overlapping.copy()))
    locked = x.copy()
    locked.setflags(write=False)
    assert_bits_equal(nvfp4.quantize(locked), nvfp4.quantize(x))


def test_empty_tensors():
    q = nvfp4.quantize(np.zeros((0, 16), np.float32))
    assert q.codes.shape == (0, 8) and q.dequantize().shape == (0, 16)
    q = nvfp4.quantize(np.zeros((4, 0), np.float32))
    assert q.dequantize().size == 0


@pytest.mark.parametrize("convention, options", [("te", dict(rounding="sr-te", seed=5, offset=6, hadamard=True)), ("row-scaled", {})])
def test_files_keep_all(tmp_path, convention, options):
    x = hard(32, 64).reshape(2, 16, 64)
    q = nvfp4.quantize(x, convention, **options)
    q.save(tmp_path / "q.safetensors", name="w")
    again = QuantizedTensor.load(tmp_path / "q.safetensors")
    assert_bits_equal(again, q)
    for field in "convention element scale_format block axis source scale_layout rounding rows k shape hadamard sign_mask seed offset".split():
        assert getattr(again, field) == getattr(q, field), field
    again.save(tmp_path / "r.safetensors", name="w")
    assert (tmp_path / "q.safetensors").read_bytes() == (tmp_path / "r.safetensors").read_bytes()
    with pytest.raises(ValueError, match="r.npy"):
        np.save(tmp_path / "r.npy", x)
        QuantizedTensor.load(tmp_path / "r.npy")


def test_memory_outlives_the_tensor():
    x = calm(256, 256)
    expected = nvfp4.quantize(x).codes.copy()
    codes = nvfp4.quantize(x).codes
    for _ in range(50):
        nvfp4.quantize(hard(256, 256))
    assert_bits_equal(codes, expected)


def test_columnwise_copy_and_stats_need_the_input():
    x = hard(32, 48)
    q = nvfp4.quantize(x, rounding="sr-carry8", seed=3)
    assert_bits_equal(q.columnwise(), nvfp4.quantize(x, rounding="sr-carry8", seed=3, axis="col"))
    assert q.columnwise().columnwise(x).axis == "row"
    for given in (dict(global_amax=3.5), dict(convention="flashinfer", global_scale=123.25)):
        assert_bits_equal(nvfp4.quantize(x, **given).columnwise(), nvfp4.quantize(x, **given, axis="col"))
    del x
    with pytest.raises(ValueError, match="no longer there"):
        q.stats


def test_low_bit_types(tmp_path):
    ml = pytest.importorskip("ml_dtypes")
    x = hard(16, 40)
    q = nvfp4.quantize(x)
    codes, scales = q.typed()
    assert codes.dtype == ml.float4_e2m1fn and codes.shape == (16, 40) and scales.dtype == ml.float8_e4m3fn
    # the product of typed parts is what the library dequantizes, up to the global scale
    values = codes.astype(np.float32).reshape(16, -1)
    blocks = np.repeat(scales.astype(np.float32), 16, axis=1)[:, :40]
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(values * blocks * np.float32(q.global_decode_scale), q.dequantize(), rtol=1e-5)
    again = QuantizedTensor.from_parts(np.pad(codes.view(np.uint8), ((0, 0), (0, 8))), scales, q.global_amax, unpacked=True, k=40)
    assert_bits_equal(again, q)


PARTS = {
    "te": lambda q: QuantizedTensor.from_transformer_engine(
        q.codes, np.pad(q.block_scales, ((0, -q.rows % 128), (0, -q.block_scales.shape[1] % 4))), np.float32(q.global_amax)
    ),
    "torchao": lambda q: QuantizedTensor.from_torchao(q.codes, q.block_scales, np.float32(q.global_decode_scale)),
    "modelopt": lambda q: QuantizedTensor.from_modelopt(q.codes, q.block_scales, np.float32(q.global_decode_scale)),
    "compressed-tensors": lambda q: QuantizedTensor.from_compressed_tensors(q.codes, q.block_scales, np.float32(q.global_encode_scale)),
    "flashinfer": lambda q: QuantizedTensor.from_flashinfer(q.codes, q.block_scales, np.float32(q.global_encode_scale)),
}


@pytest.mark.parametrize("convention", PARTS)
def test_raw_parts_of_other_libraries(convention):
    x = hard(24, 64)
    q = nvfp4.quantize(x, convention, scale_layout="128x4" if convention == "flashinfer" else "linear")
    again = PARTS[convention](q)
    assert_bits_equal(again.codes, q.codes)
    assert_bits_equal(again.block_scales, q.block_scales)
    assert_bits_equal(again.dequantize(), q.dequantize())
    assert_bits_equal(nvfp4.gemm(again, again), nvfp4.gemm(q, q))


def test_leading_axes_of_transformer_engines_tensor_are_rows():
    x = hard(6, 64).reshape(2, 3, 64)
    q = nvfp4.quantize(x, scale_layout="linear")
    padded = np.pad(q.block_scales, ((0, 122), (0, 0)))
    again = QuantizedTensor.from_transformer_engine(q.codes.reshape(2, 3, 32), padded, np.float32(q.global_amax))
    assert_bits_equal(again, q)
    turned = nvfp4.quantize(x, axis="col")
    again = QuantizedTensor.from_transformer_engine(
        turned.codes, np.pad(turned.block_scales, ((0, 64), (0, 3))), np.float32(turned.global_amax), columnwise=True, k=6
    )
    assert_bits_equal(again.dequantize(), turned.dequantize().reshape(6, 64))


def test_parts_with_the_other_nibble_first():
    q = nvfp4.quantize(hard(8, 32))
    swapped = (q.codes << 4) | (q.codes >> 4)
    assert_bits_equal(QuantizedTensor.from_parts(swapped, q.block_scales, q.global_amax, nibbles="high-first").codes, q.codes)


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda x: nvfp4.quantize(x, "tee"), ValueError, "tee"),
        (lambda x: nvfp4.quantize(x, block=(3, 3)), ValueError, "block 3x3"),
        (lambda x: nvfp4.quantize(x, block=3), TypeError, "block"),
        (lambda x: nvfp4.quantize(x, block=x), TypeError, "block"),
        (lambda x: nvfp4.quantize(x, rounding="up"), ValueError, "up"),
        (lambda x: nvfp4.quantize(x, seed=-1), ValueError, "seed"),
        (lambda x: nvfp4.quantize(x, seed=1.5), TypeError, "seed"),
        (lambda x: nvfp4.quantize(x, global_amax=float("nan")), ValueError, "global_amax"),
        (lambda x: nvfp4.quantize(x, global_amax=-1), ValueError, "global_amax"),
        (lambda x: nvfp4.quantize(x, global_amax=1, global_scale=1), ValueError, "not both"),
        (lambda x: nvfp4.quantize(x, "row-scaled", rounding="sr-te"), ValueError, "row-scaled"),
        (lambda x: nvfp4.quantize(x, convention=3), TypeError, "convention"),
        (lambda x: nvfp4.quantize(x.tolist()), TypeError, "list"),
        (lambda x: nvfp4.quantize(x.astype(complex)), TypeError, "complex128"),
        (lambda x: nvfp4.quantize(x.astype(np.int32)), ValueError, "I32"),
        (lambda x: nvfp4.quantize(x[0, 0:1].reshape(())), ValueError, "scalar"),
        (lambda x: nvfp4.quantize(None), TypeError, "NoneType"),
        (lambda x: nvfp4.quantize(x, threads=-1), ValueError, "threads"),
        (lambda x: QuantizedTensor.load("/nowhere"), ValueError, "/nowhere"),
        (lambda x: nvfp4.quantize(x).save("/nowhere/q.safetensors"), ValueError, "/nowhere"),
        (lambda x: QuantizedTensor.from_transformer_engine(None, x, 1.0), TypeError, "codes"),
        (lambda x: QuantizedTensor.from_transformer_engine(np.zeros((2, 8), np.uint8), x[0], 1.0), ValueError, "block_scales"),
        (lambda x: QuantizedTensor.from_parts(np.zeros((2, 8), np.uint8), np.zeros((2, 2), np.uint8), 1.0), ValueError, "block_scales"),
    ],
)
def test_errors_are_one_line(call, kind, text):
    with pytest.raises(kind) as error:
        call(calm(16, 64))
    assert text in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("options", [{}, dict(axis="col"), dict(scale_layout="128x4")], ids=str)
def test_a_described_tensor_with_its_bytes_is_the_tensor(convention, options):
    """What tensors on a GPU are made of: the shapes of their memory before there are bytes, and the way back to the host."""
    core = nvfp4._quantized.core
    x = special(37, 80)
    q = nvfp4.quantize(x, convention, **options)
    axis, layout = options.get("axis", "row"), options.get("scale_layout", "linear")
    plan = core.quantize_plan(convention, 1, 16, axis, "rne", 0, 0, False, layout, None, None, 0)
    described, codes, scales, per_row = core.describe(plan, "F32", [37, 80])
    assert (codes, scales) == (list(q.codes.shape), list(q.block_scales.shape))
    assert per_row == (q.row_amax is not None)
    if per_row:
        words = np.full((q.rows, 3), 77, np.float32)
        words[:, 0] = q.row_amax
    else:
        words = np.array([[q.global_amax, q.global_encode_scale, q.global_decode_scale]], np.float32)
    memory = [np.ascontiguousarray(part) for part in (q.codes, q.block_scales, words)]
    again = QuantizedTensor(core.filled(described, *(part.ctypes.data for part in memory)))
    assert_bits_equal(again, q)
    assert_bits_equal(again.dequantize(), q.dequantize())
    assert (again.shape, again.convention, again.axis, again.scale_layout) == (q.shape, q.convention, q.axis, q.scale_layout)
