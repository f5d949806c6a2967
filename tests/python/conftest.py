# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the program to compare with, and hard data."""

import doctest
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
NVFP4 = "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"
BF16 = "sm_90:wgmma.k16.f32.bf16"


@pytest.fixture(scope="session")
def program():
    """Runs the program nvfp4; NVFP4_PROGRAM names it. Returns its standard output, or the process with check=False."""
    path = os.environ.get("NVFP4_PROGRAM") or shutil.which("nvfp4")
    if path is None or not Path(path).exists():
        pytest.skip("the program nvfp4 is not there: set NVFP4_PROGRAM")

    def run(*arguments, check=True):
        done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True)
        if not check:
            return done
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def run_examples(thing):
    """Runs the examples in an object's docstring; how many there are."""
    (examples,) = doctest.DocTestFinder(recurse=False).find(thing, thing.__qualname__, globs={})
    result = doctest.DocTestRunner().run(examples)
    assert result.failed == 0
    return result.attempted


def hard(rows, k, seed=0):
    """Outliers of up to 2^100, zeros of both signs, blocks of zeros, subnormals, one value of every magnitude."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, k)) * np.exp2(rng.integers(-20, 20, (rows, k)))).astype(np.float32)
    flat = x.reshape(-1)
    flat[rng.integers(0, flat.size, flat.size // 10)] = 0.0
    flat[rng.integers(0, flat.size, flat.size // 20)] = -0.0
    flat[rng.integers(0, flat.size, max(1, flat.size // 50))] *= np.float32(2.0**60)
    flat[rng.integers(0, flat.size, max(1, flat.size // 50))] = np.float32(1e-42)
    x[rows // 2, : min(k, 16)] = 0
    return x


def calm(rows, k, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, k)).astype(np.float32)
