# SPDX-License-Identifier: Apache-2.0
"""Tables, golden files, runs and reports are the program's; the examples in docstrings run."""

import doctest
import importlib.util
import inspect
import json

import numpy as np
import nvfp4
import pytest
from conftest import ROOT, run_examples
from nvfp4.testing import assert_bits_equal

GOLDEN = ROOT / "golden"


def test_tables_are_the_programs(program):
    assert nvfp4.units() == json.loads(program("info", "--units", "--json"))
    assert nvfp4.units("sm_120") == json.loads(program("info", "--units", "--json", "--match", "sm_120"))
    assert nvfp4.conversions() == json.loads(program("info", "--conversions", "--json"))
    assert nvfp4.conventions() == json.loads(program("info", "--conventions", "--json"))
    assert nvfp4.units("no such") == []
    assert {"chon", "nvfp4", "bf16"} <= set(nvfp4.recipes())
    assert nvfp4.__version__ in program("--version")


def test_golden_files(program, monkeypatch):
    listed = json.loads(program("golden", "list", "--json", "--dir", GOLDEN))
    files = nvfp4.golden.files(folder=GOLDEN)
    assert [[f.kind, f.subject, f.provenance, f.source, f.cases, f.sha256] for f in files] == [
        [e["kind"], e["subject"], e["provenance"], e["source"], e["cases"], e["sha256"]] for e in listed
    ]
    monkeypatch.setenv("NVFP4_GOLDEN_DIR", str(GOLDEN))
    monkeypatch.chdir("/")
    assert nvfp4.golden.files() == files
    assert all(f.provenance == "hardware" for f in nvfp4.golden.files(kind="mma", provenance="hardware"))


def test_stored_hardware_words_are_recomputed():
    files = nvfp4.golden.files("sm_90", kind="mma", provenance="hardware", folder=GOLDEN)
    assert len(files) >= 40
    fp4 = nvfp4.golden.files("mxf4nvf4.ue4m3.block16", kind="mma", provenance="published", folder=GOLDEN)
    for file in files[::8] + fp4[:1]:
        tensors = nvfp4.golden.load(file).tensors
        d = nvfp4.mma(file.subject, **{name: words[:64] for name, words in tensors.items() if name != "d"})
        assert_bits_equal(d, tensors["d"][:64])


def test_stored_conversions_are_recomputed():
    for file in nvfp4.golden.files(kind="convert", provenance="hardware", folder=GOLDEN)[::6]:
        loaded = nvfp4.golden.load(file)
        row = nvfp4.conversions(file.subject)[0]
        kind = {"f32": np.float32, "f16": np.float16}.get(row["from"])
        if kind is not None:
            words = nvfp4.convert(loaded.tensors["in"].view(kind), file.subject)
            assert_bits_equal(words.view(loaded.tensors["out"].dtype), loaded.tensors["out"])


def test_a_changed_golden_file_is_refused(tmp_path):
    file = nvfp4.golden.files(kind="mma", folder=GOLDEN)[0]
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(file.path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="sha256"):
        nvfp4.golden.load(file._replace(path=changed))
    with pytest.raises(ValueError, match="golden"):
        nvfp4.golden.files(folder=tmp_path)


TRAINING = dict(model="gla", size="tiny", data="task:copy,vocab=200", steps=3, batch=2, sequence=32, seed=4)


def test_training_forward_and_report(program, tmp_path):
    seen = []
    options = {**TRAINING, "recipe": "nvfp4"}
    result = nvfp4.train(tmp_path / "a", progress=lambda *step: seen.append(step[:2]), **options)
    flags = [text for key, value in options.items() for text in ("--" + key, value)]
    expected = json.loads(program("train", *flags, "--out", tmp_path / "b", "--json"))
    for changing in ("tokens_per_s", "out"):
        del result[changing], expected[changing]
    assert result == expected
    assert seen == [(1, 3), (2, 3), (3, 3)]

    tokens = np.arange(2 * 33, dtype=np.int32).reshape(2, 33) % 200
    np.save(tmp_path / "t.npy", tokens)
    checkpoint = tmp_path / "a" / "checkpoint.safetensors"
    text = program("forward", "--checkpoint", checkpoint, "--recipe", "chon", "--tokens", tmp_path / "t.npy", "--grads", "--json",
                   "--dump", tmp_path / "f.safetensors")  # fmt: skip
    told = []
    passed = nvfp4.forward(checkpoint, tokens, "chon", grads=True, progress=told.append)
    assert len(told) > 1 and told == sorted(told) and told[-1] == 1.0

    def stop(fraction):
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        nvfp4.forward(checkpoint, tokens, "chon", progress=stop)
    dumped = nvfp4.golden.load(tmp_path / "f.safetensors")
    assert set(passed.tensors) == set(dumped.tensors) and passed.metadata == dumped.metadata
    for name, tensor in dumped.tensors.items():
        assert_bits_equal(passed.tensors[name], tensor)
    assert passed.result["loss"] == json.loads(text)["loss"]

    summary = nvfp4.report(tmp_path / "a", tmp_path / "r.html")
    assert summary == json.loads(program("report", tmp_path / "a", "-o", tmp_path / "r.html", "--json"))


def test_lab(program, tmp_path, monkeypatch):
    options = dict(data="task:copy", recipes=["nvfp4"], seeds=2, steps=4, draws=2, batch=1, sequence=16)
    stages = []
    result = nvfp4.lab(tmp_path / "lab", progress=lambda stage, fraction: stages.append((stage, fraction)), **options)
    flags = [text for key, value in {**options, "recipes": "nvfp4"}.items() for text in ("--" + key, value)]
    expected = json.loads(program("lab", *flags, "--out", tmp_path / "b", "--json"))
    for r in (result, expected):
        del r["options"]["out"]
    assert result == expected
    assert [r["recipe"] for r in result["recipes"]].count("bf16") == 1
    assert {stage for stage, _ in stages} >= {"runs", "sweeps", "figures", "recipe-nvfp4"}

    monkeypatch.chdir(tmp_path)
    assert run_examples(nvfp4.lab) == 3  # the same call: it takes up what is in "lab"

    def stop(stage, fraction):
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        nvfp4.lab(tmp_path / "c", progress=stop, **options)


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda out: nvfp4.train(out, stepz=3), TypeError, "stepz"),
        (lambda out: nvfp4.train(out, steps="3"), ValueError, "steps"),
        (lambda out: nvfp4.train(out, steps=0), ValueError, "steps"),
        (lambda out: nvfp4.train(out, **{**TRAINING, "recipe": "nope"}), ValueError, "nope"),
        (lambda out: nvfp4.train(out, **{**TRAINING, "data": "/nowhere"}), ValueError, "/nowhere"),
        (lambda out: nvfp4.train(out, **{**TRAINING, "device": "cuda"}), ValueError, "CUDA"),
        (lambda out: nvfp4.forward("/nowhere", np.zeros((1, 3), np.int32)), ValueError, "/nowhere"),
        (lambda out: nvfp4.lab(out, stepz=3), TypeError, "stepz"),
        (lambda out: nvfp4.lab(out, data="task:copy", recipes=["nope"]), ValueError, "nope"),
        (lambda out: nvfp4.lab(out, data="task:copy", rates=["x"]), ValueError, "rates"),
        (lambda out: nvfp4.report("/nowhere", out), ValueError, "/nowhere"),
    ],
)
def test_errors_are_one_line(tmp_path, call, kind, text):
    with pytest.raises(kind) as error:
        call(tmp_path / "out")
    assert text in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("module", ["_quantized", "_product", "_check", "_tables", "_models", "checkpoints", "golden", "testing"])
def test_the_examples_in_docstrings_run(module, monkeypatch):
    monkeypatch.setenv("NVFP4_GOLDEN_DIR", str(GOLDEN))
    found = doctest.DocTestFinder().find(importlib.import_module(f"nvfp4.{module}"))
    runner = doctest.DocTestRunner()
    for examples in found:
        elsewhere = examples.name == "nvfp4._models.lab"  # test_lab runs it
        needs_ml_dtypes = examples.name.endswith(".typed") and importlib.util.find_spec("ml_dtypes") is None
        if not elsewhere and not needs_ml_dtypes:
            runner.run(examples)
    assert runner.tries > 0 and runner.failures == 0


def test_every_public_function_has_an_example():
    places = [nvfp4, nvfp4.golden, nvfp4.testing, nvfp4.checkpoints]
    public = [getattr(place, name) for place in places for name in place.__all__]
    functions = [thing for thing in public if inspect.isfunction(thing)]
    functions += [thing for name, thing in vars(nvfp4.checkpoints.Checkpoint).items() if not name.startswith("_")]
    functions += [thing for thing in vars(nvfp4.QuantizedTensor).values() if inspect.isfunction(thing) and not thing.__name__.startswith("_")]
    functions += [thing for thing in vars(nvfp4.QuantizedTensor).values() if isinstance(thing, classmethod)]
    assert len(functions) > 35
    assert not [thing for thing in functions if ">>>" not in (thing.__doc__ or "")]
