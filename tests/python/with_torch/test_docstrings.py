# SPDX-License-Identifier: Apache-2.0
"""The examples in the docstrings of nvfp4.torch run."""

from __future__ import annotations

import doctest

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

import nvfp4.torch


@pytest.mark.parametrize("name", [name for name in nvfp4.torch.__all__ if name != "Roles"])  # a name of types
def test_the_example_in_the_docstring_runs(name: str) -> None:
    (examples,) = doctest.DocTestFinder(recurse=False).find(getattr(nvfp4.torch, name), name, globs={})
    result = doctest.DocTestRunner().run(examples)
    assert result.attempted > 1 and result.failed == 0
