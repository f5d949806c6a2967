#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares a checkpoint's model with the one of the same name in PyTorch: logits, loss and every gradient, in FP32.

    nvfp4 forward --checkpoint c.safetensors --recipe fp32 --tokens t.npy --grads --dump d.safetensors
    tools/compare_pytorch.py c.safetensors t.npy d.safetensors

qwen3, qwen2.5, llama and mamba2 run under Hugging Face transformers on the CPU, in FP64; gsa under flash-linear-attention on the CPU, in
FP64, by its naive recurrence in place of its kernels; gla and gdn under that library on a GPU, in FP32 (--device cuda; its gdn refuses Hopper with Triton 3.4 to 3.7.0). Largest differences are relative to the
largest value of each tensor. Exit codes: 0 all below --tolerance, 1 not, 2 bad call or input. Needs torch, transformers,
safetensors, numpy; for gla, gsa and gdn flash-linear-attention.
"""
import argparse
import json
import sys

import numpy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file


def two_configurations():
    """Keeps Triton from tuning kernels for minutes: their results hardly depend on the configuration."""
    from triton.runtime.autotuner import Autotuner
    original = Autotuner.__init__

    def start(self, fn, arg_names, configs, *rest, **named):
        original(self, fn, arg_names, configs[:2], *rest, **named)
    Autotuner.__init__ = start


class Wide:
    """PyTorch for a module whose conversions to FP32 shall be to FP64."""
    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def mamba2(config):
    from transformers import Mamba2Config, Mamba2ForCausalLM
    from transformers.models.mamba2 import modeling_mamba2
    modeling_mamba2.torch = Wide()
    return Mamba2ForCausalLM(Mamba2Config(
        vocab_size=config["vocabulary"], hidden_size=config["hidden"], num_hidden_layers=config["layers"],
        num_heads=config["heads"], head_dim=config["value_dim"] // config["heads"], state_size=config["state"], n_groups=1,
        expand=config["value_dim"] // config["hidden"], conv_kernel=config["convolution"], chunk_size=64,
        layer_norm_epsilon=config["norm_epsilon"], tie_word_embeddings=config["tie"], use_cache=False))


def gated_slot_attention(common, config):
    """fla's model without its Triton kernels: its naive recurrence and PyTorch's norms."""
    import fla.layers.gsa as layer
    from fla.models import GSAConfig, GSAForCausalLM
    from fla.modules import mlp
    from fla.modules.feature_map import SwishFeatureMap
    from fla.ops.gsa.naive import naive_recurrent_gsa
    silu, norm = torch.nn.functional.silu, torch.nn.functional.rms_norm

    def recurrence(q, k, v, s, g, initial_state, output_final_state, scale, cu_seqlens):
        return naive_recurrent_gsa(q, k, v, s, g, scale, initial_state, output_final_state)

    def norm_and_linear(x, norm_weight, norm_bias, weight, bias, eps=1e-5):  # the library's default
        return torch.nn.functional.linear(norm(x, x.shape[-1:], norm_weight, eps), weight, bias)
    layer.chunk_gsa = layer.fused_recurrent_gsa = recurrence
    layer.rms_norm_linear = norm_and_linear
    mlp.swiglu = lambda gate, up: silu(gate) * up
    SwishFeatureMap.forward = lambda self, x: silu(x)
    heads = config["heads"]
    return GSAForCausalLM(GSAConfig(
        **common, num_slots=config["slots"], gate_logit_normalizer=config["gate_normalizer"],
        exapnd_k=config["key_dim"] / config["hidden"], exapnd_v=config["value_dim"] / config["hidden"],
        num_kv_heads=heads, fuse_norm=False, fuse_swiglu=False))


def build(config):
    """The PyTorch model of a configuration (the checkpoint's metadata entry "model")."""
    family, common = config["family"], {
        "vocab_size": config["vocabulary"], "hidden_size": config["hidden"], "intermediate_size": config["intermediate"],
        "num_hidden_layers": config["layers"], "tie_word_embeddings": config["tie"], "use_cache": False}
    head = config["key_dim"] // config["heads"]
    if family == "mamba2":
        return mamba2(config)
    if family in ("qwen3", "qwen2.5", "llama"):
        import transformers
        kind = {"qwen3": "Qwen3", "qwen2.5": "Qwen2", "llama": "Llama"}[family]
        rope = {"rope_type": "default", "rope_theta": config["rope_base"]}
        return getattr(transformers, kind + "ForCausalLM")(getattr(transformers, kind + "Config")(
            **common, num_attention_heads=config["heads"], num_key_value_heads=config["kv_heads"], head_dim=head,
            rms_norm_eps=config["norm_epsilon"], rope_parameters=rope, attn_implementation="eager"))
    if family != "gsa":
        two_configurations()
    common |= {"norm_eps": config["norm_epsilon"], "num_heads": config["heads"], "fuse_cross_entropy": False}
    if family == "gla":
        from fla.models import GLAConfig, GLAForCausalLM
        return GLAForCausalLM(GLAConfig(
            **common, attn_mode="chunk", expand_k=config["key_dim"] / config["hidden"],
            expand_v=config["value_dim"] / config["hidden"]))
    if family == "gsa":
        return gated_slot_attention(common, config)
    from fla.models import GatedDeltaNetConfig, GatedDeltaNetForCausalLM
    return GatedDeltaNetForCausalLM(GatedDeltaNetConfig(
        **common, head_dim=head, expand_v=config["value_dim"] / config["key_dim"], conv_size=config["convolution"]))


def compare(arguments):
    with safe_open(arguments.checkpoint, "pt") as file:
        config = json.loads(file.metadata()["model"])
        weights = {k: file.get_tensor(k) for k in file.keys() if not k.startswith(("optimizer.", "hcp."))}
    tokens = torch.from_numpy(numpy.load(arguments.tokens).astype(numpy.int64)).to(arguments.device)
    theirs, ours = build(config), load_file(arguments.dump)
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    missing = [k for k in missing if not (config["tie"] and k == "lm_head.weight")]
    if missing or unexpected:
        raise ValueError(f"parameters differ: only in PyTorch {missing}, only in the checkpoint {unexpected}")
    theirs.tie_weights()
    theirs = theirs.to(arguments.device, torch.float64 if arguments.device == "cpu" else torch.float32).train()
    single = torch.Tensor.float
    if arguments.device == "cpu":
        torch.Tensor.float = torch.Tensor.double  # where a model converts to FP32
    logits = theirs(tokens[:, :-1]).logits
    torch.Tensor.float = single
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    pairs = {"logits": (logits, ours["logits"]), "loss": (loss, ours["loss"])}
    for name, parameter in theirs.named_parameters():
        pairs["grad/" + name] = (parameter.grad, ours["grad/" + name])
    worst = 0.0
    errors = {}
    for name, (a, b) in pairs.items():
        a, b = a.detach().double().cpu().flatten(), b.double().flatten()
        error = float((a - b).abs().max() / a.abs().max().clamp(min=1e-300))
        errors[name] = error if error == error else float("inf")  # NaN fails
        worst = max(worst, errors[name])
    print(f"{config['family']} {config['name']}, {tuple(tokens.shape)} tokens, {len(pairs)} tensors: loss "
          f"{float(loss.detach()):.6f}, largest relative difference {worst:.2e}")
    for name in sorted(errors, key=errors.get, reverse=True)[:arguments.show]:
        print(f"  {errors[name]:.2e}  {name}")
    return 0 if worst <= arguments.tolerance else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("checkpoint", "tokens", "dump"):
        parser.add_argument(name)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--show", type=int, default=3, help="tensors to list, the worst first")
    arguments = parser.parse_args()
    try:
        return compare(arguments)
    except (OSError, KeyError, ValueError, ImportError, SafetensorError) as error:
        print(f"compare_pytorch.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
