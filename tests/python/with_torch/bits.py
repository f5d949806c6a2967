# SPDX-License-Identifier: Apache-2.0
"""Equality of words, and hard data."""

from __future__ import annotations

import pytest
import torch


def words(t: torch.Tensor) -> torch.Tensor:
    """The bits of a tensor."""
    return t.detach().contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()])


def assert_same_bits(actual: torch.Tensor, expected: torch.Tensor, what: str = "") -> None:
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, (what, actual.dtype, actual.shape, expected.shape)
    differ = words(actual) != words(expected)
    if differ.any():
        where = tuple(int(i) for i in differ.nonzero()[0])
        pytest.fail(f"{what}: {int(differ.sum())} of {differ.numel()} words differ, first at {where}: "
                    f"{actual[where].item()} instead of {expected[where].item()}")


def hard(*shape: int, seed: int = 0, special: bool = False) -> torch.Tensor:
    """Values with a channel of outliers, a row of zeros, tiny ones, and, if asked, a NaN and an infinity."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    flat = x.view(-1, shape[-1])
    flat[:, 3 % shape[-1]] *= 100
    flat[1 % len(flat)] = 0
    flat[:, 5 % shape[-1]] *= 1e-6
    if special:
        flat[2 % len(flat), 0], flat[-1, -1] = float("nan"), float("inf")
    return x
