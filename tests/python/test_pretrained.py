# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders: forward, evaluate and generate have the program's words; what does not fit is one line."""

import importlib
import json

import numpy as np
import nvfp4
import pytest
from conftest import run_examples
from nvfp4.testing import assert_bits_equal

VOCABULARY, HIDDEN, LAYERS, HEADS, KV, DIM, INNER = 97, 48, 2, 4, 2, 16, 80


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(x.tobytes() for x in tensors.values()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama with an outlier channel and zeros."""
    place = tmp_path_factory.mktemp("llama")
    rng = np.random.default_rng(5)

    def matrix(rows, cols):
        x = (rng.standard_normal((rows, cols)) * 0.1).astype(np.float32)
        x[:, 7] *= 20
        x[rng.random((rows, cols)) < 0.02] = 0
        return x

    tensors = {"model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN), "model.norm.weight": np.ones(HIDDEN, np.float32),
               "lm_head.weight": matrix(VOCABULARY, HIDDEN)}
    shapes = {"self_attn.q_proj": (HEADS * DIM, HIDDEN), "self_attn.k_proj": (KV * DIM, HIDDEN), "self_attn.v_proj": (KV * DIM, HIDDEN),
              "self_attn.o_proj": (HIDDEN, HEADS * DIM), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
              "mlp.down_proj": (HIDDEN, INNER)}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}."
        for name, shape in shapes.items():
            tensors[f"{block}{name}.weight"] = matrix(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{block}{name}.weight"] = np.ones(HIDDEN, np.float32)
    write_safetensors(place / "model.safetensors", tensors)
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": DIM, "intermediate_size": INNER,
              "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
    (place / "config.json").write_text(json.dumps(config))
    words = {chr(33 + i): i for i in range(VOCABULARY - 4)} | {"<s>": VOCABULARY - 1, "<unk>": VOCABULARY - 2}
    (place / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}, "post_processor": None,
        "decoder": None, "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}}))
    return place


PROMPT = [3, 96, 0, 17, 17, 42]
WAYS = [({}, []), ({"recipe": "fp32", "kv": "e4m3"}, ["--recipe", "fp32", "--kv", "e4m3"]),
        ({"preset": "te", "patch": True, "kv": "nvfp4"}, ["--preset", "te", "--patch", "--kv", "nvfp4"]),
        ({"preset": "mxfp4", "rotate": True}, ["--preset", "mxfp4", "--rotate"])]


@pytest.mark.parametrize("options, flags", WAYS)
def test_generate_has_the_programs_tokens(folder, tmp_path, program, options, flags):
    np.save(tmp_path / "p.npy", np.array(PROMPT, np.int32))
    told = []
    made = nvfp4.generate(folder, PROMPT, new=6, temperature=0.8, seed=4, logits=True, progress=told.append, **options)
    printed = json.loads(program("generate", folder, "--tokens", tmp_path / "p.npy", "--new", 6, "--temperature", 0.8, "--seed", 4, "--json", *flags))
    assert made.result == printed
    assert made.tokens.tolist() == printed["tokens"] and made.text is None
    assert made.logits.shape == (6, VOCABULARY) and told[-1] == 1
    for ids in (np.array(PROMPT, np.int64), np.array([PROMPT], np.uint8), tuple(PROMPT)):
        assert nvfp4.generate(folder, ids, new=6, temperature=0.8, seed=4, **options).tokens.tolist() == printed["tokens"]


@pytest.mark.parametrize("options, flags", WAYS)
def test_forward_and_evaluate_have_the_programs_words(folder, tmp_path, program, options, flags):
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, VOCABULARY, (2, 14)).astype(np.int32)
    np.save(tmp_path / "t.npy", tokens)
    program("forward", "--checkpoint", folder, "--tokens", tmp_path / "t.npy", "--dump", tmp_path / "d.safetensors", *flags)
    passed = nvfp4.forward(folder, tokens, **options)
    dumped = nvfp4.golden.load(tmp_path / "d.safetensors")
    assert set(passed.tensors) == set(dumped.tensors) and passed.metadata == dumped.metadata
    for name, tensor in dumped.tensors.items():
        assert_bits_equal(passed.tensors[name], tensor)
    ids = rng.integers(0, VOCABULARY, 70).astype(np.int32)
    np.save(tmp_path / "e.npy", ids)
    printed = json.loads(program("eval", "--checkpoint", folder, "--data", tmp_path / "e.npy", "--validation-data", tmp_path / "e.npy", "--batch", 2,
                                 "--sequence", 16, "--batches", 2, "--bos", 1, "--json", *flags))
    assert nvfp4.evaluate(folder, ids, sequence=16, batch=2, bos=1, **options) == printed
    assert nvfp4.evaluate(folder, tmp_path / "e.npy", validation_data=tmp_path / "e.npy", sequence=16, batch=2, batches=2, bos=1,
                          **options) == printed


@pytest.mark.parametrize("kv", ["f32", "bf16", "e4m3", "nvfp4"])
def test_a_cache_changes_no_word(folder, kv):
    a = nvfp4.generate(folder, PROMPT, new=8, kv=kv, logits=True)
    b = nvfp4.generate(folder, PROMPT, new=8, kv=kv, logits=True, recompute=True)
    assert a.tokens.tolist() == b.tokens.tolist() and np.array_equal(a.logits.view(np.uint32), b.logits.view(np.uint32))
    row = nvfp4.forward(folder, np.array([[*PROMPT, 0]], np.int32), kv=kv).tensors["logits"][0, -1]
    assert np.array_equal(row.view(np.uint32), a.logits[0].view(np.uint32))


def test_texts_go_through_the_folders_tokenizer(folder):
    pytest.importorskip("tokenizers")
    ids = [ord(c) - 33 for c in "stream"]
    made = nvfp4.generate(folder, "stream", new=4)
    assert made.tokens.tolist() == nvfp4.generate(folder, ids, new=4).tokens.tolist() and isinstance(made.text, str)
    a, b = nvfp4.forward(folder, "stream").result, nvfp4.forward(folder, np.array([ids], np.int32)).result
    assert a == b
    assert nvfp4.evaluate(folder, text="stream", sequence=5) == nvfp4.evaluate(folder, ids, sequence=5)


def test_what_does_not_fit_is_one_line(folder, tmp_path, monkeypatch):
    cases = [
        (lambda: nvfp4.generate(folder, PROMPT, kv="fp5"), ValueError, "expected f32, bf16, e4m3 or nvfp4"),
        (lambda: nvfp4.generate(folder, []), ValueError, "a prompt of at least one token"),
        (lambda: nvfp4.generate(folder, [1.5]), TypeError, "whole numbers"),
        (lambda: nvfp4.generate(folder, [97]), ValueError, "token 97"),
        (lambda: nvfp4.generate(folder, [-1]), ValueError, "expected ids from 0"),
        (lambda: nvfp4.generate(folder, [[1], [2]]), ValueError, r"of shape \[T\]"),
        (lambda: nvfp4.generate(folder, PROMPT, new=500), ValueError, "max_position_embeddings 128"),
        (lambda: nvfp4.generate(tmp_path, PROMPT), ValueError, "without config.json"),
        (lambda: nvfp4.generate(folder, PROMPT, recipe="bf16", preset="te"), ValueError, "give --recipe or --preset"),
        (lambda: nvfp4.forward(folder, np.zeros((1, 3), np.int32), grads=True), ValueError, "runs forward alone"),
        (lambda: nvfp4.forward(folder / "model.safetensors", np.zeros((1, 3), np.int32), kv="bf16"), ValueError, "kv is for Hugging Face"),
        (lambda: nvfp4.evaluate(folder), TypeError, "give data or text"),
        (lambda: nvfp4.evaluate(folder, PROMPT, sequence=0), ValueError, "expected at least 1"),
        (lambda: nvfp4.evaluate(folder, PROMPT, sequence=50), ValueError, "too short"),
    ]
    for call, kind, pattern in cases:
        with pytest.raises(kind, match=pattern) as caught:
            call()
        assert "\n" not in str(caught.value)

    def nothing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", nothing)
    with pytest.raises(ValueError, match="pip install tokenizers"):
        nvfp4.generate(folder, "text")
    with pytest.raises(ValueError, match="tokenizer.json, which is not there"):
        nvfp4.generate(tmp_path, "text")


def test_export_by_recipe_is_alike(folder, tmp_path):
    c = nvfp4.checkpoints.open(folder)
    made = c.export(tmp_path / "served", to="modelopt", recipe="nvfp4-plain")
    assert made["quantized"] > 0
    served = nvfp4.checkpoints.open(tmp_path / "served")
    found = served.alike(folder, "nvfp4-plain")
    assert found["differing"] == 0 and len(found["layers"]) == 7 * LAYERS + 1
    assert served.alike(folder, "nvfp4")["differing"] > 0
    with pytest.raises(ValueError, match="no container holds"):
        c.export(tmp_path / "no", to="modelopt", recipe="hcp")


@pytest.mark.parametrize("function", [nvfp4.generate, nvfp4.evaluate])
def test_the_examples_in_docstrings_run(folder, tmp_path, monkeypatch, function):
    (tmp_path / "model").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert run_examples(function) > 2


def test_a_callback_ends_the_work(folder):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nvfp4.generate(folder, PROMPT, new=4, progress=stop)
