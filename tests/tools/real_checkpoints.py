#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""real_checkpoints.py NVFP4 FOLDER: the program against the packages that people's checkpoints come from.

What compressed-tensors, nvidia-modelopt, torchao and gguf write is inspected (which convention gives its bytes), exported,
and read back by them: codes, scales and dequantized BF16 tensors must be equal word for word. transformers loads two of
the folders. Packages that are not installed are named and left out. Not part of ctest: it needs torch. FOLDER is emptied.
"""
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file

program, work = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
failures = []
MODULES = {"self_attn.q_proj": (128, 128), "self_attn.k_proj": (32, 128), "self_attn.v_proj": (32, 128), "self_attn.o_proj": (128, 128),
           "mlp.gate_proj": (192, 128), "mlp.up_proj": (192, 128), "mlp.down_proj": (128, 192)}


def check(what, ok, more=""):
    print(("ok      " if ok else "FAILED  ") + what + (f": {more}" if more else ""))
    if not ok:
        failures.append(what)


def run(*args, codes=(0,)):
    r = subprocess.run([program, *args], capture_output=True, text=True)
    if r.returncode not in codes:
        check(" ".join(args), False, f"exit {r.returncode} {r.stderr.strip()}")
    return r


def at(*names):
    return os.path.join(work, *names)


def make_weights():
    """An outlier, a block of zeros, a block that underflows, a negative zero."""
    g = torch.Generator().manual_seed(3)
    sd = {}
    for name, (rows, k) in MODULES.items():
        w = torch.randn(rows, k, generator=g) * 0.02
        w[0, 0], w[3, 5] = 1.7, -0.0
        w[1, 16:32] = 0
        w[2, 0:16] *= 1e-6
        sd[f"model.layers.0.{name}.weight"] = w.bfloat16()
    for name in ("input_layernorm", "post_attention_layernorm"):
        sd[f"model.layers.0.{name}.weight"] = torch.ones(128).bfloat16()
    sd["model.norm.weight"] = torch.ones(128).bfloat16()
    sd["model.embed_tokens.weight"] = (torch.randn(64, 128, generator=g) * 0.02).bfloat16()
    sd["lm_head.weight"] = (torch.randn(64, 128, generator=g) * 0.02).bfloat16()
    return sd


CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 1,
          "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 64, "torch_dtype": "bfloat16", "tie_word_embeddings": False}


def write_folder(name, tensors, config):
    os.makedirs(at(name))
    save_file({k: v.contiguous() for k, v in tensors.items()}, at(name, "model.safetensors"), metadata={"format": "pt"})
    json.dump(config, open(at(name, "config.json"), "w"))


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.flatten().view(torch.uint8), b.flatten().view(torch.uint8))


def inspected(path, convention, expected_wrong=0):
    r = json.loads(run("inspect", at(path), "--against", at("bf16"), "--json", codes=(0, 1)).stdout)
    quantized = [w for w in r["weights"] if "against" in w]
    found = all(any(e["convention"] == convention for e in w["against"]["equal"]) for w in quantized) if convention else True
    check(f"inspect {path}: {len(quantized)} weights" + (f", all bytes of {convention}" if convention else ""),
          len(quantized) == len(MODULES) and found and r["wrong"] == expected_wrong, r["findings"][:1] if r["wrong"] != expected_wrong else "")


def bf16_of(path):
    out = at("dense-" + os.path.basename(path))
    shutil.rmtree(out, ignore_errors=True)
    run("export", at(path), "-o", out, "--to", "hf-bf16")
    return load_file(os.path.join(out, "model.safetensors"))


def dequantized(path, tensors, dequantize, signed_zeros=True):
    """The package's tensors against ours, word for word; some packages decode the code of -0 as +0."""
    dense, plus = bf16_of(path), 0.0 if not signed_zeros else -0.0
    wrong = [m for m in MODULES if not same(dequantize(tensors, f"model.layers.0.{m}") + plus, dense[f"model.layers.0.{m}.weight"] + plus)]
    check(f"dequantized {path}: equal to the package's BF16 in {len(MODULES)} weights" + ("" if signed_zeros else ", but for the sign of zeros"), not wrong, wrong)


def compressed_tensors(sd):
    from compressed_tensors.compressors.mxfp4.base import MXFP4PackedCompressor
    from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
    from compressed_tensors.entrypoints.convert.converters.modelopt_nvfp4 import ModelOptNvfp4Converter
    from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    for preset, compressor in (("NVFP4", NVFP4PackedCompressor), ("MXFP4", MXFP4PackedCompressor)):
        scheme = preset_name_to_scheme(preset, ["Linear"])
        args, out = scheme.weights, {}
        for key, w in sd.items():
            if "proj" not in key:
                out[key] = w
                continue
            blocks = w.reshape(w.shape[0], -1, args.group_size)
            g = generate_gparam(w.min().reshape(1), w.max().reshape(1)) if preset == "NVFP4" else None
            scale, _ = calculate_qparams(blocks.amin(-1), blocks.amax(-1), args, global_scale=g)
            state = {"weight": w, "weight_scale": scale} | ({"weight_global_scale": g} if g is not None else {})
            for name, v in compressor.compress(state, scheme).items():
                out[f"{key[:-7]}.{name}"] = v
            if preset == "NVFP4":
                out[f"{key[:-7]}.input_global_scale"] = torch.tensor([2688 / 5.0])
        config = {"quant_method": "compressed-tensors", "format": preset.lower() + "-pack-quantized",
                  "config_groups": {"group_0": json.loads(scheme.model_dump_json())}, "ignore": ["lm_head"]}
        name = "ct-" + preset.lower()
        write_folder(name, out, CONFIG | {"quantization_config": config})
        inspected(name, "compressed-tensors" if preset == "NVFP4" else "mxfp4-compressed-tensors")

        def back(tensors, module):
            state = {n: tensors[f"{module}.{n}"] for n in ("weight_packed", "weight_scale", "weight_global_scale") if f"{module}.{n}" in tensors}
            return compressor.decompress(state, scheme)["weight"].bfloat16()

        dequantized(name, out, back)
        if preset == "NVFP4":
            for source, convention in (("bf16", "compressed-tensors"), ("bf16", "te"), ("modelopt", None)):
                if not os.path.exists(at(source)):
                    continue
                made = f"{source}-to-ct-{convention or 'carried'}"
                run("export", at(source), "-o", at(made), "--to", "compressed-tensors", *(("--convention", convention) if convention else ()))
                dequantized(made, load_file(at(made, "model.safetensors")), back)
            if os.path.exists(at("modelopt")):
                theirs = ModelOptNvfp4Converter(targets=["re:.*proj"]).process(load_file(at("modelopt", "model.safetensors")))
                ours = load_file(at("modelopt-to-ct-carried", "model.safetensors"))
                wrong = [k for k in ours if k not in theirs or not torch.equal(ours[k].flatten().view(torch.uint8), theirs[k].flatten().view(torch.uint8))]
                check("export modelopt -> compressed-tensors: the tensors of compressed-tensors' own converter", not wrong and ours.keys() == theirs.keys(), wrong)


def modelopt(sd):
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

    out = {}
    for key, w in sd.items():
        if "proj" not in key:
            out[key] = w
            continue
        q, scale, scale_2 = NVFP4QTensor.quantize(w, 16)
        out |= {key: q._quantized_data, key + "_scale": scale, key + "_scale_2": scale_2.reshape(()).float(), key[:-7] + ".input_scale": torch.tensor(5.0 / 2688)}
    write_folder("modelopt", out, CONFIG)
    json.dump({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": None, "group_size": 16, "exclude_modules": ["lm_head"]}},
              open(at("modelopt", "hf_quant_config.json"), "w"))
    inspected("modelopt", "modelopt")

    def back(tensors, module):
        data = tensors[f"{module}.weight"]
        q = NVFP4QTensor(torch.Size((data.shape[0], data.shape[1] * 2)), torch.bfloat16, data)
        return q.dequantize(torch.bfloat16, scale=tensors[f"{module}.weight_scale"], double_scale=tensors[f"{module}.weight_scale_2"], block_sizes={-1: 16})

    dequantized("modelopt", out, back, signed_zeros=False)
    run("export", at("modelopt"), "-o", at("modelopt-again"), "--to", "modelopt")
    again = load_file(at("modelopt-again", "model.safetensors"))
    check("export modelopt -> modelopt: every tensor unchanged", again.keys() == out.keys() and all(same(again[k], out[k]) for k in out))
    run("export", at("bf16"), "-o", at("bf16-to-modelopt"), "--to", "modelopt")
    dequantized("bf16-to-modelopt", load_file(at("bf16-to-modelopt", "model.safetensors")), back, signed_zeros=False)


def torchao(sd):
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    def nvfp4(swizzled):
        return lambda w: NVFP4Tensor.to_nvfp4(w, per_tensor_scale=per_tensor_amax_to_scale(w.abs().max().float()), is_swizzled_scales=swizzled)

    for name, make, convention in (("nvfp4", nvfp4(False), "torchao"), ("nvfp4-swizzled", nvfp4(True), "torchao"),
                                   ("mxfp4", lambda w: MXTensor.to_mx(w, torch.float4_e2m1fn_x2, 32), "mxfp4-torchao018"),
                                   ("mxfp8", lambda w: MXTensor.to_mx(w, torch.float8_e4m3fn, 32), "mxfp8-e4m3-torchao018")):
        made = {k: (make(w) if "proj" in k else w) for k, w in sd.items()}
        data, metadata = flatten_tensor_state_dict(made)
        path = f"torchao-{name}.safetensors"
        save_file({k: v.contiguous() for k, v in data.items()}, at(path), metadata=metadata)
        inspected(path, convention)
        dequantized(path, made, lambda t, module: t[module + ".weight"].dequantize(torch.bfloat16))


def gguf_files(sd):
    import gguf
    from gguf import GGMLQuantizationType as T

    for kind in (T.MXFP4, T.Q8_0):
        path = kind.name.lower() + ".gguf"
        writer = gguf.GGUFWriter(at(path), "llama")
        for key, w in sd.items():
            a = w.float().numpy()
            if "proj" in key:
                writer.add_tensor(key, gguf.quants.quantize(a, kind), raw_dtype=kind)
            else:
                writer.add_tensor(key, a)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        inspected(path, "mxfp4-ggml" if kind == T.MXFP4 else None)
    run("export", at("mxfp4.gguf"), "-o", at("again.gguf"), "--to", "gguf")
    check("export gguf -> gguf: the file byte for byte", open(at("mxfp4.gguf"), "rb").read() == open(at("again.gguf"), "rb").read())
    for source, target, *how in (("modelopt", "nvfp4.gguf"), ("ct-nvfp4", "ct.gguf"), ("ct-mxfp4", "ct-mx.gguf"), ("bf16", "ggml.gguf", "--convention", "ggml")):
        if os.path.exists(at(source)):
            run("export", at(source), "-o", at(target), "--to", "gguf", *how)
    for path in ("mxfp4.gguf", "q8_0.gguf", "nvfp4.gguf", "ct.gguf", "ct-mx.gguf", "ggml.gguf"):
        if not os.path.exists(at(path)):
            continue
        tensors = {t.name: t for t in gguf.GGUFReader(at(path)).tensors}

        def back(tensors, module):
            t = tensors[f"{module}.weight"]
            values = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
            if f"{module}.scale" in tensors:
                values = values * np.float32(tensors[f"{module}.scale"].data[0])
            return torch.from_numpy(np.ascontiguousarray(values)).bfloat16()

        dequantized(path, tensors, back, signed_zeros=False)


def transformers_models(sd):
    from transformers import AutoModelForCausalLM

    ids = torch.arange(32).reshape(1, 32)

    def logits(path):
        model = AutoModelForCausalLM.from_pretrained(at(path), torch_dtype=torch.bfloat16)
        with torch.no_grad():
            return model(ids).logits

    run("export", at("bf16-to-ct-te"), "-o", at("te-dense"), "--to", "hf-bf16")
    dense = logits("te-dense")
    check("transformers loads the BF16 export", bool(torch.isfinite(dense).all()))
    packed = logits("bf16-to-ct-te")
    check("transformers runs the compressed-tensors export: logits of its BF16 export", same(packed, dense), f"largest difference {(packed.float() - dense.float()).abs().max().item():.3g}")


shutil.rmtree(work, ignore_errors=True)
os.makedirs(work)
weights = make_weights()
write_folder("bf16", weights, CONFIG)
for part in (modelopt, compressed_tensors, torchao, gguf_files, transformers_models):
    try:
        part(weights)
    except ImportError as error:
        print(f"left out {part.__name__}: {error}")
    except Exception as error:  # a package of another version
        check(part.__name__, False, repr(error)[:300])
print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
