# SPDX-License-Identifier: Apache-2.0
"""A pytest for a kernel: is its output what the tensor core gives, word for word?

    pytest test_kernel.py

Put your kernel where `tiled_gemm` is. When a word differs, the failure says which mistake explains it.
"""

import numpy as np
import nvfp4
import pytest
from nvfp4.testing import assert_bits_equal

UNIT = "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"  # nvfp4.units() lists them


def tiled_gemm(a, b, block_m=32, block_n=32, block_k=128, bug=None):
    """A kernel as one writes it in Triton: a program for each tile of D, a loop over K, an accumulator, an epilogue."""
    m, n, k = a.rows, b.rows, a.k
    d = np.zeros((m, n), np.float32)
    for i in range(0, m, block_m):
        for j in range(0, n, block_n):
            accumulator = np.zeros((min(block_m, m - i), min(block_n, n - j)), np.uint32)
            for kk in range(0, k, block_k):
                last = min(k, kk + block_k)
                accumulator = dot_scaled(
                    a.codes[i : i + block_m, kk // 2 : last // 2],
                    a.block_scales[i : i + block_m, kk // 16 : last // 16],
                    b.codes[j : j + block_n, kk // 2 : last // 2],
                    b.block_scales[j : j + block_n, kk // 16 : last // 16],
                    np.zeros_like(accumulator) if bug == "accumulator" else accumulator,
                )
            alpha = np.float32(1 if bug == "alpha" else scale_of(a, b))
            d[i : i + block_m, j : j + block_n] = accumulator.view(np.float32) * alpha
    return d


def dot_scaled(a, scale_a, b, scale_b, c):
    """One tile's step, here by the unit itself: (m, n) accumulator words from (m, k) and (n, k) codes."""
    m, n = len(a), len(b)
    pairs = [np.repeat(x, n, axis=0) for x in (a, scale_a)] + [np.tile(x, (m, 1)) for x in (b, scale_b)]
    return nvfp4.mma(UNIT, pairs[0], pairs[2], c.reshape(-1), pairs[1], pairs[3]).reshape(m, n)


def scale_of(a, b):
    """TransformerEngine's factor of the accumulator: ((amax_a * amax_b) * f32(1 / (6 * 448)^2))."""
    return np.float32(a.global_amax) * np.float32(b.global_amax) * np.float32(1 / (6 * 448) ** 2)


@pytest.fixture
def operands():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((48, 256), (40, 256)))
    x[3, 7] = 300  # an outlier
    x[5] = 0
    return nvfp4.quantize(x), nvfp4.quantize(w)


def test_kernel(operands):
    assert_bits_equal(tiled_gemm(*operands), operands, unit=UNIT)


@pytest.mark.parametrize("bug, diagnosis", [
    ("accumulator", "only k >= 128 of 256 is summed: explains all"),
    ("alpha", "the global scale of A and B is not applied: explains all"),
])
def test_a_bug_is_found_and_explained(operands, bug, diagnosis):
    with pytest.raises(AssertionError, match=diagnosis):
        assert_bits_equal(tiled_gemm(*operands, bug=bug), operands, unit=UNIT)
