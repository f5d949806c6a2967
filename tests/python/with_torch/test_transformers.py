# SPDX-License-Identifier: Apache-2.0
"""Models of transformers: which modules are taken, a Qwen3 that trains, and the C++ trainer's model beside it."""

from __future__ import annotations

import itertools
import json
import struct

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from bits import assert_same_bits

from nvfp4 import _nvfp4
from nvfp4.torch import convert, converted, revert, step

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

SMALL = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "use_cache": False,
         "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
KINDS = {"qwen3": ("Qwen3", "qwen3"), "qwen2": ("Qwen2", "qwen2.5"), "llama": ("Llama", "qwen2.5"),
         "gemma": ("Gemma", "qwen2.5"), "gemma2": ("Gemma2", "qwen2.5"), "gemma3_text": ("Gemma3", "qwen3")}
CONFIGS = {"gemma3_text": "Gemma3TextConfig"}


def small(kind: str = "qwen3", **changes) -> torch.nn.Module:
    name, _ = KINDS[kind]
    torch.manual_seed(3)
    config = getattr(transformers, CONFIGS.get(kind, f"{name}Config"))(**{**SMALL, **changes})
    return getattr(transformers, f"{name}ForCausalLM")._from_config(config, attn_implementation="eager")


def text(step_: int, batch: int = 4, length: int = 32) -> torch.Tensor:
    """Tokens that can be learned: each is a function of the one before, from a random start."""
    start = torch.randint(0, 64, (batch, 1), generator=torch.Generator().manual_seed(step_))
    return (start * 5 ** torch.arange(length) % 61).long()


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_table_knows_the_modules(kind):
    model = small(kind)
    keys = list(model.state_dict())
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied
    convert(model, "chon", seed=1)
    layers = converted(model)
    assert len(layers) == 3 * 7 + 1
    by_role = {}
    for path, module in layers.items():
        spec = json.loads(module._spec)
        by_role.setdefault(spec["role"], []).append((spec["layer"], spec["id"], module))
        assert spec["family"] == KINDS[kind][1] and spec["layers"] == 3 and path.endswith(spec["role"].removeprefix("attn."))
    numbers = dict(_nvfp4.linear_numbers(KINDS[kind][1]))
    for role, found in by_role.items():
        assert [(layer, id) for layer, id, _ in found] == (
            [(3, 16 * 3 + 15)] if role == "lm_head" else [(i, 16 * i + numbers[role]) for i in range(3)])
        for layer, _, module in found:
            bf16 = role in ("lm_head", "attn.v_proj") or layer == 2
            assert ("formats=bf16" in module.extra_repr()) == bf16, (role, layer)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    loss = model(text(0), labels=text(0)).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert [k for k in model.state_dict() if "hot_" not in k] == keys
    revert(model)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("recipe", ["nvfp4", "chon"])
def test_qwen3_trains_50_steps(recipe):
    losses = {}
    for name in ("fp32 PyTorch", recipe):
        model = small()
        if name == recipe:
            convert(model, recipe, seed=1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses[name] = []
        for at in range(50):
            tokens = text(at)
            loss = model(tokens, labels=tokens).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[name].append(loss.item())
    plain, ours = losses["fp32 PyTorch"], losses[recipe]
    assert all(np.isfinite(ours)) and ours != plain
    assert ours[0] == pytest.approx(plain[0], rel=0.02)
    assert np.mean(ours[-5:]) < 0.7 * ours[0]  # it learns
    assert np.mean(ours[-5:]) == pytest.approx(np.mean(plain[-5:]), rel=0.25)
    if recipe == "chon":
        assert any((m.hot_channels >= 0).all() for m in converted(model).values() if m.hot_channels is not None)


@pytest.mark.parametrize("family, recipe", list(itertools.product(["qwen3", "qwen2.5"], ["fp32", "bf16", "nvfp4", "chon"])))
def test_loss_beside_the_cpp_model(tmp_path, nvfp4_run, family, recipe):
    """Same weights, tokens, recipe and random words. The layers' products are the same arithmetic; norms, rotary embedding,
    softmax, SiLU and cross-entropy are FP32 on both sides but round in other orders, so a layer's input differs in its last
    bits (under 1e-6 relative), and where it stands beside a rounding boundary of BF16 or of FP4 its rounded value steps.
    Tolerances, relative: of the loss 1e-6 under fp32 and 2e-5 otherwise (seen: at most 1.0e-6); of each gradient's norm 2e-5,
    under bf16 0.02 (seen 0.005), with FP4 0.3 (seen 0.18: one step of E2M1 is a third of a value).
    """
    checkpoint = tmp_path / "c.safetensors"
    nvfp4_run("init", "--model", family, "--size", "tiny", "--set", "layers=3,vocabulary=64", "--seed", 4, "-o", checkpoint)
    tokens = text(1, 2, 33)
    np.save(tmp_path / "t.npy", tokens.numpy().astype(np.int32))
    dump = tmp_path / "d.safetensors"
    nvfp4_run("forward", "--checkpoint", checkpoint, "--recipe", recipe, "--tokens", tmp_path / "t.npy", "--seed", 5, "--grads",
              "--dump", dump)
    theirs = safetensors_torch.load_file(dump)
    raw = checkpoint.read_bytes()
    config = json.loads(json.loads(raw[8:8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"]["model"])
    rope = {"rope_type": "default", "rope_theta": config["rope_base"]}
    model = small({"qwen3": "qwen3", "qwen2.5": "qwen2"}[family], vocab_size=64, hidden_size=config["hidden"],
                  intermediate_size=config["intermediate"], num_attention_heads=config["heads"],
                  num_key_value_heads=config["kv_heads"], head_dim=config["key_dim"] // config["heads"],
                  rms_norm_eps=config["norm_epsilon"], rope_parameters=rope)
    state = safetensors_torch.load_file(checkpoint)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and missing in ([], ["lm_head.weight"])
    convert(model, recipe)
    with step(5, 0):
        logits = model(tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 64), tokens[:, 1:].reshape(-1))
        loss.backward()
    expected = float(theirs["loss"])
    assert loss.item() == pytest.approx(expected, rel=1e-6 if recipe == "fp32" else 2e-5)
    grads = {name: p.grad for name, p in model.named_parameters()}
    for name, grad in grads.items():
        want = theirs[f"grad/{name}"]
        error = float((grad - want).norm() / want.norm().clamp_min(1e-12))
        assert error < (2e-5 if recipe == "fp32" else 0.02 if recipe == "bf16" else 0.3), name
    # on the words that the C++ model's layer reads, ours has the words that it makes
    q = converted(model)["model.layers.0.self_attn.q_proj"]
    with step(5, 0), torch.no_grad():
        assert_same_bits(q(theirs["act/model.layers.0.input_layernorm"]), theirs["act/model.layers.0.self_attn.q_proj"])
