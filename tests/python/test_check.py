# SPDX-License-Identifier: Apache-2.0
"""Checks say what the program says, and assertions print it."""

import copy
import json
import pickle

import numpy as np
import nvfp4
import pytest
from conftest import BF16, NVFP4, calm, hard
from nvfp4.testing import assert_bits_equal


@pytest.fixture
def operands():
    return nvfp4.quantize(hard(24, 128)), nvfp4.quantize(calm(16, 128))


def outputs(a, b):
    right = nvfp4.gemm(a, b)
    wrong = right.copy()
    wrong[3, 4] *= 1.5
    nan = right.copy()
    nan[8:12] = np.nan
    dense = nvfp4.gemm(a.dequantize(), b.dequantize(), BF16)
    return {"right": right, "wrong": wrong, "nan": nan, "dense": dense, "transposed tile": np.roll(right, 1, axis=1)}


def test_text_and_json_are_the_programs(program, tmp_path, operands):
    a, b = operands
    a.save(tmp_path / "a.safetensors")
    b.save(tmp_path / "b.safetensors")
    for name, d in outputs(a, b).items():
        np.save(tmp_path / "d.npy", d)
        flags = ["--a", tmp_path / "a.safetensors", "--b", tmp_path / "b.safetensors", "--d", tmp_path / "d.npy", "--unit", NVFP4]
        result = nvfp4.check(d, a, b, NVFP4)
        text = program("check", *flags, check=False)
        assert str(result) == text.stdout, name
        assert result.equal == bool(result) == (text.returncode == 0), name
        assert result.json == json.loads(program("check", *flags, "--json", check=False).stdout), name
        assert result.verdict == result["verdict"]


def test_the_dense_mistake_is_named(operands):
    a, b = operands
    result = nvfp4.check(nvfp4.gemm(a.dequantize(), b.dequantize(), BF16), a, b)
    assert not result and [c["name"] for c in result.candidates] == ["dequantize-bf16-gemm"]
    with pytest.raises(AttributeError, match="no field 'candidate'"):
        result.candidate


def test_quantizers(program, tmp_path):
    x = hard(16, 64)
    np.save(tmp_path / "x.npy", x)
    for convention in ("te", "torchao", "vllm"):
        mine = nvfp4.quantize(x, convention)
        mine.save(tmp_path / "q.safetensors")
        flags = ["--quantized", tmp_path / "q.safetensors", "--source", tmp_path / "x.npy", "--convention", "te"]
        result = nvfp4.check_quantized(mine, x, "te")
        assert str(result) == program("check", *flags, check=False).stdout
        assert result.json == json.loads(program("check", *flags, "--json", check=False).stdout)
    assert nvfp4.check_quantized(nvfp4.quantize(x, rounding="sr-te", seed=4), x)


def test_a_result_is_copied_and_pickled():
    x = calm(16, 16)
    result = nvfp4.compare(x, x + 1)
    for other in (copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert str(other) == str(result) and other.json == result.json and not other
    with pytest.raises(AttributeError, match="no field 'nothing'; it has equal"):
        result.nothing


def test_assertions_pass_and_fail(operands):
    a, b = operands
    d = nvfp4.gemm(a, b)
    assert_bits_equal(d, (a, b), unit=NVFP4)
    assert_bits_equal(d, d.copy())
    wrong = d.copy()
    wrong[1, 2] = np.nextafter(wrong[1, 2], np.float32(np.inf))
    with pytest.raises(AssertionError, match=r"1 of 384 words differ; first at \(1, 2\): got [0-9a-f]{8}, want [0-9a-f]{8}"):
        assert_bits_equal(wrong, d)
    with pytest.raises(AssertionError, match="outputs differ"):
        assert_bits_equal(wrong, (a, b), unit=NVFP4)
    with pytest.raises(AssertionError, match="float64"):
        assert_bits_equal(d.astype(np.float64), d)
    with pytest.raises(AssertionError, match="shape"):
        assert_bits_equal(d, d[:, :-1])
    for x, y in ((0.0, -0.0), (np.float32(np.nan), np.array(0x7FC00001, np.uint32).view(np.float32))):
        with pytest.raises(AssertionError):
            assert_bits_equal(np.array([x], np.float32), np.array([y], np.float32))
    with pytest.raises(TypeError, match="unit"):
        assert_bits_equal(d, (a, b))
    for x, y in ((d, a), (a, d)):
        with pytest.raises(AssertionError, match="actual is .*, expected is"):
            assert_bits_equal(x, y)
    other = nvfp4.quantize(hard(24, 128) * np.float32(1.001))
    with pytest.raises(AssertionError):
        assert_bits_equal(other, a)


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda a, b, d: nvfp4.check(d.T, a, b), ValueError, "D must have shape"),
        (lambda a, b, d: nvfp4.check(d.astype(np.float64), a, b), ValueError, "F64"),
        (lambda a, b, d: nvfp4.check(d, a, b, out="f64"), ValueError, "out"),
        (lambda a, b, d: nvfp4.check(d, a, b, sample=3), ValueError, "sample"),
        (lambda a, b, d: nvfp4.check(d, a, b, sample=8.0), TypeError, "sample"),
        (lambda a, b, d: nvfp4.check(d, a, b, beta=1), ValueError, "needs c"),
        (lambda a, b, d: nvfp4.check(d, a, b, a_source=calm(3, 3)), ValueError, "a_source"),
        (lambda a, b, d: nvfp4.check_quantized(d, d), TypeError, "QuantizedTensor"),
        (lambda a, b, d: nvfp4.check_quantized(a, d), ValueError, ""),
    ],
)
def test_errors_are_one_line(operands, call, kind, text):
    a, b = operands
    with pytest.raises(kind) as error:
        call(a, b, nvfp4.gemm(a, b))
    assert text in str(error.value) and "\n" not in str(error.value)
