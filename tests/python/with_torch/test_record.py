# SPDX-License-Identifier: Apache-2.0
"""Files of record(): the C++ program repeats them word by word, finds a changed word, and measures other recipes on them."""

from __future__ import annotations

import json
import pathlib

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from bits import hard
from test_convert import Toy, toy

from nvfp4.torch import record, replay, step


def rewrite(path: pathlib.Path, name: str) -> pathlib.Path:
    """A copy whose tensor `name` has another first word."""
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    begin = json.loads(data[8:8 + length])[name]["data_offsets"][0]
    data[8 + length + begin] ^= 1
    other = path.with_name("changed.safetensors")
    other.write_bytes(data)
    return other


@pytest.mark.parametrize("recipe", ["fp32", "bf16", "nvfp4", "hcp", "chon", "mxfp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_program_repeats_a_recorded_step(tmp_path, nvfp4_run, recipe, dtype):
    model = toy(recipe).to(dtype)
    x = hard(2, 9, 64, special=True).to(dtype).requires_grad_()
    file = tmp_path / "step.safetensors"
    with step(2**40 + 1, 50, 3):
        model(x).float().nan_to_num().square().mean().backward()  # not the one
    model.zero_grad()
    with step(2**40 + 1, 0, 0), record(model, file):
        model(x).float().nan_to_num().square().mean().backward()
    told: list[float] = []
    assert replay(file, told.append) == []
    assert told == sorted(told) and told[-1] == 1
    said = json.loads(nvfp4_run("replay", file, "--json"))
    assert said["identical"] and said["operators"] == 9
    assert said["tensors"] == 9 * 3 + 6  # y, dx, dW of all, db of those with a bias
    assert "9 operators under" in nvfp4_run("replay", file) and not list(tmp_path.glob("*.part"))
    changed = rewrite(file, "weight_grad/layers.0.mlp.up_proj")
    mismatch, = replay(changed)
    assert (mismatch.name, mismatch.index, mismatch.differing) == ("weight_grad/layers.0.mlp.up_proj", "[0, 0]", 1)
    assert "NOT identical, first at weight_grad/layers.0.mlp.up_proj" in nvfp4_run("replay", changed, code=1)
    text = nvfp4_run("replay", file, "--recipe", "nvfp4-plain", "--against", "bf16", code=4)  # the NaN is told
    assert "mlp.up_proj" in text and "NOT FINITE" in text


def test_checkpoints_and_eval(tmp_path, nvfp4_run):
    model = toy("hcp", checkpoints=True)
    with record(model, tmp_path / "a.safetensors"):
        model(hard(8, 64)).square().mean().backward()
    assert replay(tmp_path / "a.safetensors") == []
    with record(model, tmp_path / "b.safetensors"), torch.no_grad():
        model.eval()(hard(8, 64))
    said = json.loads(nvfp4_run("replay", tmp_path / "b.safetensors", "--json"))
    assert said["identical"] and said["tensors"] == 9


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="no converted layer ran"), record(toy(), tmp_path / "x"):
        pass
    with pytest.raises(ValueError, match="expected a model that convert"), record(Toy(), tmp_path / "x"):
        pass
    model = toy()
    with (pytest.raises(ValueError, match="one record\\(\\) at a time"), record(model, tmp_path / "x"),
          record(model, tmp_path / "y")):
        pass
    (tmp_path / "z").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="expected operators of format nvfp4-operators and version 1"):
        replay(tmp_path / "z")
