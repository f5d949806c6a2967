#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pretrained_test.sh NVFP4: forward, eval, generate and inspect --recipe on a Hugging Face folder, and exit codes.
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
# expect CODE PATTERN ARGUMENTS: exit code, and a line of the output (a regular expression)
expect() {
  local code=$1 pattern=$2
  shift 2
  "$nvfp4" "$@" >out.txt 2>&1
  local got=$?
  [ $got -eq "$code" ] || say "exit $got instead of $code: nvfp4 $*: $(cut -c-300 out.txt)"
  grep -qE -- "$pattern" out.txt || say "no '$pattern' from nvfp4 $*: $(cut -c-600 out.txt)"
}
command -v python3 >/dev/null || { echo "no python3 to write the files with"; exit 77; }
"$nvfp4" init --model llama --size tiny --seed 3 -o c.safetensors >/dev/null || say "init"
mkdir model && cp c.safetensors model/model.safetensors
cat >model/config.json <<'J'
{"architectures": ["LlamaForCausalLM"], "vocab_size": 256, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
 "num_key_value_heads": 4, "intermediate_size": 384, "max_position_embeddings": 256, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
 "tie_word_embeddings": true}
J
python3 - <<'PY'
import struct
def npy(path, shape, values):
    header = "{'descr': '<i4', 'fortran_order': False, 'shape': %s, }" % (tuple(shape),)
    header += " " * (-(len(header) + 11) % 64) + "\n"
    open(path, "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack("<%di" % len(values), *values))
npy("t.npy", (2, 41), [(i * 7919 + i * i) % 256 for i in range(82)])
npy("p.npy", (12,), [(i * 101) % 256 for i in range(12)])
npy("rows.npy", (2, 6), list(range(12)))
npy("long.npy", (4000,), [(i * 7919 + i * i) % 256 for i in range(4000)])
PY

# a folder and the file of the family that trains: the same logits and loss
for recipe in bf16 chon; do
  expect 0 'loss 5' forward --checkpoint c.safetensors --recipe $recipe --tokens t.npy --dump a.safetensors
  expect 0 'inputs (bf16|nvfp4 te), on ' forward --checkpoint model --recipe $recipe --tokens t.npy --dump b.safetensors
  for tensor in logits loss act/model.layers.3.mlp.down_proj act/model.layers.0.self_attn.attention; do
    expect 0 '^equal' compare a.safetensors b.safetensors --a-tensor $tensor --b-tensor $tensor
  done
done
expect 0 'perplexity' eval --checkpoint model --data long.npy --batches 2 --sequence 32 --preset te-4over6 --patch
expect 0 '"loss":5' eval --checkpoint model --data long.npy --batches 2 --sequence 32 --bos 2 --json
expect 0 '^[0-9]+( [0-9]+){4}$' generate model --tokens p.npy --new 5 -o with.npy
expect 0 . generate model --tokens p.npy --new 5 --recompute -o without.npy
expect 0 '^equal' compare with.npy without.npy
expect 0 . generate model --tokens p.npy --new 5 --temperature 0.9 --seed 4 --kv e4m3 --json
expect 0 '^[0-9]+( [0-9]+){4}$' generate model --tokens p.npy --new 5 --kv nvfp4 -o with.npy
expect 0 . generate model --tokens p.npy --new 5 --kv nvfp4 --recompute -o without.npy
expect 0 '^equal' compare with.npy without.npy
expect 0 'perplexity' eval --checkpoint model --data long.npy --batches 2 --sequence 32 --kv nvfp4
expect 2 'leave out --kv nvfp4' generate model --tokens p.npy --kv nvfp4 --recipe bf16+kv_cache=mxfp8

# a server's checkpoint: run as it says, held against the trainer
expect 0 . export model -o served --to modelopt --convention te
expect 0 'modelopt-nvfp4 weights, inputs bf16' forward --checkpoint served --tokens t.npy --dump d.safetensors
expect 0 'modelopt-nvfp4 weights, inputs vllm, dynamic' forward --checkpoint served --activations vllm --tokens t.npy --dump d.safetensors
expect 0 '^alike: all 28' inspect model --against c.safetensors --recipe bf16
expect 1 '^not alike: ' inspect served --against c.safetensors --recipe nvfp4
expect 1 'trained in 16x16 tiles' inspect served --against c.safetensors --recipe nvfp4
expect 1 '"differing":' inspect served --against c.safetensors --recipe nvfp4 --json
expect 2 'name them with --against' inspect served --recipe nvfp4

# a recipe's own bytes: the trainer and the server are alike, layers that it keeps in BF16 included
expect 2 "recipe 'nvfp4-bf16-end' has rules with 'from', and weights that are served or exported have no step" export model -o changing --to modelopt --recipe nvfp4-bf16-end
expect 2 "has rules with 'from'" inspect served --against c.safetensors --recipe nvfp4-bf16-end
expect 2 "has rules with 'from'" forward --checkpoint model --recipe nvfp4-bf16-end --tokens t.npy --dump b.safetensors
expect 0 'weights carried, [0-9]+ quantized' export model -o by-recipe --to modelopt --recipe nvfp4-plain
expect 0 '^alike: all 28' inspect by-recipe --against c.safetensors --recipe nvfp4-plain
expect 0 . export model -o tiles --to compressed-tensors --recipe nvfp4
expect 0 '^alike: all 28' inspect tiles --against c.safetensors --recipe nvfp4
expect 2 'whose residuals no container holds' export model -o no --to modelopt --recipe chon
expect 2 'not both' export model -o no --to modelopt --recipe nvfp4 --convention te
expect 2 'quantizes no weight' export model -o no --to modelopt --recipe bf16
expect 2 'does not hold' export model -o no --to modelopt --recipe mxfp8
expect 2 'no --recipe' export model -o no --to hf-bf16 --recipe nvfp4
[ ! -e no ] || say "a refused export left a folder"

# a GGUF file that is no model of llama.cpp's converter
expect 0 . export model -o m.gguf --to gguf --convention mxfp4
expect 2 "general.architecture is ''; expected one of llama, qwen2, qwen3, gemma3" generate m.gguf --tokens p.npy

# what does not fit
expect 2 'expected one tensor of int32 tokens' generate model --tokens c.safetensors
expect 2 'of shape \[T\]' generate model --tokens rows.npy
expect 2 'expected a Hugging Face folder' generate c.safetensors --tokens p.npy
expect 2 'run forward alone' forward --checkpoint model --tokens t.npy --dump d.safetensors --grads
expect 2 'is for Hugging Face folders' forward --checkpoint c.safetensors --preset te --tokens t.npy --dump d.safetensors
expect 2 'give --recipe or --preset' forward --checkpoint model --preset te --recipe bf16 --tokens t.npy --dump d.safetensors
expect 2 'pretrained models run on the CPU' forward --checkpoint model --device cuda --tokens t.npy --dump d.safetensors
expect 2 "expected f32, bf16, e4m3 or nvfp4" generate model --tokens p.npy --kv fp5
expect 2 'products inside mixers' generate model --tokens p.npy --recipe bf16+mixers=bf16
expect 2 'max_position_embeddings 256' generate model --tokens p.npy --new 300
sed -i 's/"LlamaForCausalLM"/"RwkvForCausalLM"/' model/config.json
expect 2 "unknown architecture" generate model --tokens p.npy
rm model/config.json
expect 2 'without config.json' eval --checkpoint model --data long.npy
finish "pretrained: all good"
