# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and comparisons give the program's text, JSON and files."""

import json
import struct

import numpy as np
import nvfp4
import pytest
from conftest import calm, hard
from nvfp4.testing import assert_bits_equal


def write(path, tensors):
    """A .safetensors file of (dtype, shape, bytes)."""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def bf16(x):
    return ("BF16", x.shape, (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes())


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "bf16"
    folder.mkdir()
    outliers = calm(48, 64)
    outliers[:, 7] *= 300
    outliers[3] = 0
    write(folder / "model.safetensors", {
        "model.layers.0.self_attn.q_proj.weight": bf16(outliers), "model.layers.0.self_attn.k_proj.weight": bf16(calm(16, 64, 2)),
        "model.norm.weight": bf16(np.ones(64, np.float32)),
    })  # fmt: skip
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    return folder


def printed(program, *arguments, code=0):
    done = program(*arguments, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.parametrize("to, convention", [("modelopt", "te"), ("compressed-tensors", "te"), ("compressed-tensors", "mxfp4"), ("hf-bf16", "")])
def test_export_writes_the_programs_files(program, model, tmp_path, to, convention):
    options = ["--convention", convention] if convention else []
    theirs = json.loads(printed(program, "export", model, "-o", tmp_path / "a", "--to", to, "--json", *options))
    told = []
    mine = nvfp4.checkpoints.export(model, tmp_path / "b", to=to, convention=convention, progress=told.append)
    assert {**theirs, "output": ""} == {**mine, "output": ""}
    assert told and told == sorted(told) and told[-1] <= 1
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "b").iterdir())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize("to", ["modelopt", "compressed-tensors", "gguf"])
def test_weights_are_read_as_they_are_stored(model, tmp_path, to):
    path = tmp_path / ("m.gguf" if to == "gguf" else "m")
    nvfp4.checkpoints.export(model, path, to=to, convention="te")
    c, plain = nvfp4.checkpoints.open(path), nvfp4.checkpoints.open(model)
    assert set(c) == set(plain) and len(c) == 3
    name = "model.layers.0.self_attn.q_proj.weight"
    w = c[name]
    assert w.shape == (48, 64) and w.block_scaled and w.decodable and not w.faults
    q = w.quantized()
    x = plain[name].values()
    expected = nvfp4.quantize(x)
    assert_bits_equal(q.codes, expected.codes)
    assert_bits_equal(q.block_scales, expected.block_scales)
    means = q.dequantize() * np.float32(w.global_scale) if to == "gguf" else q.dequantize()  # GGUF applies it to a product
    assert_bits_equal(means, w.values())
    assert_bits_equal(w.values(first=5, count=7), w.values()[5:12])
    assert w.values(first=48).shape == (0, 64)
    told: list[float] = []
    assert w.values(progress=told.append).shape[0] == 48 and told[-1] == 1
    assert not plain[name].block_scaled and plain[name].kind == "BF16" and plain[name].global_scale is None
    stored = c.tensors
    assert sum(t.shape == (64,) for t in stored.values()) == 1
    if to == "modelopt":
        assert_bits_equal(c.tensor(name), expected.codes)
        assert stored[name].type == "U8"
        assert w.global_scale == float(c.tensor(name + "_scale_2"))
    if to == "gguf":
        assert c.tensor(name).dtype == np.uint8  # blocks of GGUF are bytes


def test_inspect_has_the_programs_text_and_json(program, model, tmp_path):
    nvfp4.checkpoints.export(model, tmp_path / "m", to="modelopt", convention="te")
    c = nvfp4.checkpoints.open(tmp_path / "m")
    for arguments, options, code in [
        ([], {}, 0), (["--details"], dict(details=True), 0), (["--tensor", "*q_proj*"], dict(tensor="*q_proj*"), 0),
        (["--against", model], dict(against=model), 0), (["--against", model, "--convention", "te"], dict(against=model, convention="te"), 0),
        (["--against", model, "--convention", "ggml"], dict(against=model, convention="ggml"), 1),
    ]:  # fmt: skip
        told = []
        mine = c.inspect(**options, progress=told.append)
        assert str(mine) == printed(program, "inspect", tmp_path / "m", *arguments, code=code)
        assert mine.json == json.loads(printed(program, "inspect", tmp_path / "m", *arguments, "--json", code=code))
        assert bool(mine) == (code == 0) and len([f for f in mine.findings if f["wrong"]]) == mine.wrong
        assert told[-1] == 1.0


def test_what_cannot_be_read_is_said_in_the_programs_line(program, model, tmp_path):
    def refused(call, *arguments):
        with pytest.raises(ValueError) as error:
            call()
        assert program(*arguments, check=False).stderr.strip().endswith(str(error.value))

    refused(lambda: nvfp4.checkpoints.open(tmp_path / "nothing"), "inspect", tmp_path / "nothing")
    (tmp_path / "cut.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:300])
    refused(lambda: nvfp4.checkpoints.open(tmp_path / "cut.safetensors"), "inspect", tmp_path / "cut.safetensors")
    c = nvfp4.checkpoints.open(model)
    refused(lambda: c.inspect(tensor="x*"), "inspect", model, "--tensor", "x*")
    refused(lambda: c.inspect(convention="te"), "inspect", model, "--convention", "te")
    refused(lambda: c.export(tmp_path / "new", "modelopt", convention="mxfp4"), "export", model, "-o", tmp_path / "new", "--to", "modelopt", "--convention", "mxfp4")
    with pytest.raises(ValueError, match="no block scales"):
        c["model.norm.weight"].quantized()
    with pytest.raises(ValueError, match="rows 40 to 60"):
        c["model.layers.0.self_attn.q_proj.weight"].values(first=40, count=20)
    with pytest.raises(ValueError, match="index is 1"):
        c["model.norm.weight"].values(index=1)
    with pytest.raises(ValueError, match="no tensor 'zzz'"):
        c.tensor("zzz")
    with pytest.raises(KeyError):
        c["zzz"]


def test_compare_has_the_programs_verdict_text_and_json(program, tmp_path):
    x = hard(33, 64)
    y = x.copy()
    y[7, 9] = np.nextafter(x[7, 9], np.float32(np.inf))
    x[2, 3] = y[2, 3] = np.nan
    np.save(tmp_path / "x.npy", x), np.save(tmp_path / "y.npy", y)
    nvfp4.quantize(x).save(tmp_path / "x.q.safetensors"), nvfp4.quantize(y, "fouroversix").save(tmp_path / "y.q.safetensors")
    nvfp4.quantize(x, scale_layout="128x4").save(tmp_path / "tiled.q.safetensors")
    (tmp_path / "a.jsonl").write_text('{"step":1,"loss":2.5}\n'), (tmp_path / "b.jsonl").write_text('{"step":1,"loss":2.25}\n')
    for a, b in [("x.npy", "x.npy"), ("x.npy", "y.npy"), ("x.q.safetensors", "y.q.safetensors"), ("x.q.safetensors", "tiled.q.safetensors"),
                 ("x.q.safetensors", "x.npy"), ("a.jsonl", "b.jsonl")]:  # fmt: skip
        result = nvfp4.compare(tmp_path / a, tmp_path / b)
        code = 0 if result else 1
        assert str(result) == printed(program, "compare", tmp_path / a, tmp_path / b, code=code)
        assert str(nvfp4.compare(tmp_path / a, tmp_path / b, all=True)) == printed(program, "compare", tmp_path / a, tmp_path / b, "--all", code=code)
        assert result.json == json.loads(printed(program, "compare", tmp_path / a, tmp_path / b, "--json", code=code))
    assert nvfp4.compare(x, x) and not nvfp4.compare(x, y)
    assert "first at row 7, column 9" in str(nvfp4.compare(x, y))
    assert nvfp4.compare(nvfp4.quantize(x), nvfp4.quantize(x, scale_layout="128x4"))
    differ = nvfp4.compare(nvfp4.quantize(x), nvfp4.quantize(y, "fouroversix"))
    assert not differ and "'codes'" in str(differ)
    assert not nvfp4.compare(x, x.astype(np.float64))  # another type is another tensor
    with pytest.raises(TypeError, match="two paths, two quantized tensors or two arrays"):
        nvfp4.compare(x, nvfp4.quantize(x))
    with pytest.raises(ValueError, match="cannot open"):
        nvfp4.compare(tmp_path / "nothing.npy", tmp_path / "x.npy")
