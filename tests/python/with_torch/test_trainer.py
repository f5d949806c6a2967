# SPDX-License-Identifier: Apache-2.0
"""Every linear layer of the C++ trainer's models, on the tensors that it read in a recorded step: the same words."""

from __future__ import annotations

import itertools
import json

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from bits import assert_same_bits

from nvfp4 import _nvfp4
from nvfp4.torch import Linear, step

safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")

FAMILIES = ["gla", "qwen3", "qwen2.5", "gdn"]
RECIPES = ["fp32", "bf16", "nvfp4-plain", "nvfp4", "hcp", "chon", "mxfp4-sr-rht", "mxfp8"]
LAYERS = 3
KINDS = ("input", "output", "output_grad")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, nvfp4_run):
    """(tensors, recipe) of the third step of a short run, whose hot channels were chosen in the first."""
    folder = tmp_path_factory.mktemp("slices")

    def make(family: str, recipe: str):
        name = folder / f"{family}-{recipe}"
        options = ["--data", "task:copy", "--batch", 2, "--sequence", 37, "--seed", 5]
        nvfp4_run("train", "--model", family, "--size", "tiny", "--set", f"layers={LAYERS},vocabulary=64", "--recipe", recipe,
                  "--steps", 2, "--diagnostics-every", 0, "--out", name, *options)
        taps = ",".join(f"{role}.{kind}" for role, _ in _nvfp4.linear_numbers(family) for kind in KINDS)
        file = f"{name}.safetensors"
        nvfp4_run("record", "--checkpoint", name / "checkpoint.safetensors", "--step", 3, "--tap", taps, "--grads", "-o", file)
        with safetensors.safe_open(file, "pt") as f:
            return {key: f.get_tensor(key) for key in f.keys()}, json.loads(f.metadata()["model"])

    return make


def parameter(config: dict, role: str, layer: int) -> str:
    """The path of a layer in the C++ model's file."""
    if role == "lm_head":
        embedding = "model.embeddings" if config["family"] in ("gla", "gdn") else "model.embed_tokens"
        return embedding if config["tie"] else "lm_head"
    if role.startswith("attn.") and config["family"].startswith("qwen"):
        role = "self_" + role
    return f"model.layers.{layer}.{role}"


@pytest.mark.parametrize("family, recipe", list(itertools.product(FAMILIES, RECIPES)))
def test_layers_have_the_trainers_words(recorded, family, recipe):
    tensors, config = recorded(family, recipe)
    compared = 0
    patched = 0
    for (role, number), layer in itertools.product(_nvfp4.linear_numbers(family), range(LAYERS + 1)):
        if (role == "lm_head") != (layer == LAYERS):
            continue
        path = parameter(config, role, layer)
        weight, bias = tensors[path + ".weight"], tensors.get(path + ".bias")
        tap = "tap/lm_head." if role == "lm_head" else f"tap/layers.{layer}.{role}."
        x, y, dy = (tensors.get(tap + kind) for kind in KINDS)
        ours = Linear(weight.shape[1], weight.shape[0], bias is not None, recipe=recipe, role=role, layer=layer, layers=LAYERS,
                      family=family, id=16 * layer + number)
        with torch.no_grad():
            ours.weight.copy_(weight)
            if bias is not None:
                ours.bias.copy_(bias)
        hot = tensors.get(f"hcp.{layer}.{role}.indices")
        assert (hot is None) == (ours.hot_channels is None), role
        if hot is not None:
            ours.hot_channels.copy_(hot)
            patched += 1
        x.requires_grad_()
        with step(5, 2):
            out = ours(x)
            out.backward(dy)
        if y is not None:
            assert_same_bits(out, y, f"{tap}output")
        if role != "lm_head" or not config["tie"]:
            assert_same_bits(ours.weight.grad, tensors[f"grad/{path}.weight"], f"{tap}weight_grad")
        if bias is not None:
            assert_same_bits(ours.bias.grad, tensors[f"grad/{path}.bias"], f"{tap}bias_grad")
        compared += 1
    assert compared == LAYERS * (len(_nvfp4.linear_numbers(family)) - 1) + 1
    assert (patched > 0) == (recipe in ("hcp", "chon"))
