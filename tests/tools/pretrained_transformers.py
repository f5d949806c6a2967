# SPDX-License-Identifier: Apache-2.0
"""pretrained_transformers.py NVFP4: `nvfp4 forward` and `generate` on small random models of every architecture against
Hugging Face transformers. Exit code 77 where torch or transformers are missing. Prints the measured differences; a
difference above the bounds below fails."""

import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    import transformers
    from safetensors import safe_open
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

PROGRAM = sys.argv[1]
SIZES = dict(vocab_size=211, hidden_size=96, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, head_dim=32,
             intermediate_size=176, max_position_embeddings=512, initializer_range=0.08, rms_norm_eps=1e-6)
# largest |logit - theirs in FP64| over the largest |logit|
BOUNDS = {"float32": 2e-5, "bfloat16": 4e-2}


def models():
    t = transformers
    yield "llama", t.LlamaForCausalLM, t.LlamaConfig(**SIZES, rope_theta=10000.0)
    yield "llama, llama3 scaling", t.LlamaForCausalLM, t.LlamaConfig(**SIZES, rope_parameters={
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64})
    yield "llama, linear scaling, biases", t.LlamaForCausalLM, t.LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, rope_parameters={
        "rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})
    yield "qwen2", t.Qwen2ForCausalLM, t.Qwen2Config(**{k: v for k, v in SIZES.items() if k != "head_dim"})
    yield "qwen2, windows", t.Qwen2ForCausalLM, t.Qwen2Config(**{k: v for k, v in SIZES.items() if k != "head_dim"}, use_sliding_window=True,
                                                              sliding_window=11, max_window_layers=2)
    yield "qwen3, tied", t.Qwen3ForCausalLM, t.Qwen3Config(**SIZES, tie_word_embeddings=True)
    yield "gemma3", t.Gemma3ForCausalLM, t.Gemma3TextConfig(**SIZES, sliding_window=13, query_pre_attn_scalar=40, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention", "sliding_attention"])
    yield "gemma3, linear scaling", t.Gemma3ForCausalLM, t.Gemma3TextConfig(**SIZES, sliding_window=64, query_pre_attn_scalar=32, layer_types=[
        "sliding_attention"] * 3 + ["full_attention"], rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}})


def run(*arguments):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def spread(model, generator):
    """Norm weights and biases that are not all alike."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


def main():
    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(11)
    failed = False
    print(f"transformers {transformers.__version__}, torch {torch.__version__}; 2 x 100 tokens; largest difference of a logit over the largest")
    for name, kind, config in models():
        config._attn_implementation = "eager"
        for dtype in ("float32", "bfloat16"):
            model = kind(config).eval()
            spread(model, generator)
            model = model.to(getattr(torch, dtype))
            tokens = torch.randint(0, SIZES["vocab_size"], (2, 101), generator=generator)
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder, max_shard_size="200KB")
                np.save(f"{folder}/t.npy", tokens.numpy().astype(np.int32))
                recipe = "fp32" if dtype == "float32" else "bf16"
                run("forward", "--checkpoint", folder, "--recipe", recipe, "--tokens", f"{folder}/t.npy", "--dump", f"{folder}/out.safetensors")
                with safe_open(f"{folder}/out.safetensors", "pt") as out:
                    mine, loss = out.get_tensor("logits").double(), float(out.get_tensor("loss"))
                with torch.no_grad():
                    theirs = model(tokens[:, :-1]).logits.double()
                    wide = model.double()
                    exact = wide(tokens[:, :-1]).logits
                    if getattr(wide.model.embed_tokens, "embed_scale", None) is not None and dtype == "bfloat16":
                        wide.model.embed_tokens.embed_scale = wide.model.embed_tokens.embed_scale.bfloat16().double()
                        exact = wide(tokens[:, :-1]).logits
                    their_loss = torch.nn.functional.cross_entropy(exact.flatten(0, 1), tokens[:, 1:].flatten()).item()
                scale = exact.abs().max()
                error, own = float((mine - exact).abs().max() / scale), float((theirs - exact).abs().max() / scale)
                good = error < BOUNDS[dtype] and abs(loss - their_loss) < BOUNDS[dtype] * 10
                print(f"{name:32} {dtype:9} here {error:.1e}, transformers {own:.1e}, loss {loss:.6f} and {their_loss:.6f}{'' if good else '  FAILED'}")
                failed |= not good
                if dtype == "float32":
                    prompt = tokens[:1, :20]
                    np.save(f"{folder}/p.npy", prompt[0].numpy().astype(np.int32))
                    ids = json.loads(run("generate", folder, "--tokens", f"{folder}/p.npy", "--new", "12", "--recipe", "fp32", "--json"))["tokens"]
                    again = json.loads(run("generate", folder, "--tokens", f"{folder}/p.npy", "--new", "12", "--recipe", "fp32", "--recompute", "--json"))["tokens"]
                    want = wide.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, 20:].tolist()
                    if not (ids == want[:len(ids)] and ids == again and len(ids) >= 1):
                        print(f"FAILED: {name}: generated {ids}, without a cache {again}, transformers {want}")
                        failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
