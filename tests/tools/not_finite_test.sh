#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# not_finite_test.sh NVFP4: what the program says, and its exit code 4, where a computation does not stay finite: a NaN in a
# weight, operators of another program, a step that overflows, experiments and reports about it.
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
cat >write.py <<'PY'
"""operators FILE VALUE: two layers' q_proj, VALUE in the input of layer 1; weight FILE NAME INDEX VALUE: changes a checkpoint."""
import json, struct, sys

def operators(path, value):
    header, data = {"__metadata__": {"family": "qwen3", "layers": "2"}}, b""
    for layer in range(2):
        for name, shape in (("input", [32, 64]), ("weight", [32, 64]), ("output_grad", [32, 32])):
            n = shape[0] * shape[1]
            x = [((i * 7919 + layer * 31 + len(name)) % 1009 - 504) / 300 for i in range(n)]
            if name == "input" and layer == 1:
                x[70] = float(value)
            header[f"{name}/layers.{layer}.self_attn.q_proj"] = {
                "dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * n]}
            data += struct.pack(f"<{n}f", *x)
    text = json.dumps(header).encode()
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)

def weight(path, name, index, value):
    data = bytearray(open(path, "rb").read())
    n = struct.unpack("<Q", data[:8])[0]
    at = 8 + n + json.loads(data[8:8 + n])[name]["data_offsets"][0] + 4 * int(index)
    data[at:at + 4] = struct.pack("<f", float(value))
    open(path, "wb").write(data)

globals()[sys.argv[1]](*sys.argv[2:])
PY
for i in $(seq 1 700); do echo "line $i says that $((i * i % 97)) follows $((i * 7 % 31)) and the rest is noise $((i * 31337 % 1009))"; done >text.txt

# operators: the healthy layer's numbers are those that it has alone
python3 write.py operators good.safetensors 1
python3 write.py operators sick.safetensors nan
expect 0 "^0.attn.q_proj +fprop" replay good.safetensors --recipe nvfp4 --layers
line=$(grep "^0.attn.q_proj *fprop" out.txt)
expect 4 "NOT FINITE: input of model.layers.1.attn.q_proj: 1 NaN of 2048, first at \[1, 6\]" replay sick.safetensors --recipe nvfp4 --layers
[ "$(grep "^0.attn.q_proj *fprop" out.txt)" = "$line" ] || say "layer 0 has another error beside a sick layer"
grep -E "^1.attn.q_proj +(fprop|wgrad)" out.txt | grep -qvE "nan +nan +nan" && say "an error of a layer that is not finite: $(cat out.txt)"
expect 4 "^attn.q_proj +fprop .* nvfp4 \(1 of 2\) +0\.[0-9]+" replay sick.safetensors --recipe nvfp4 --against bf16
expect 4 '"not_finite_layers":\[1\]' replay sick.safetensors --recipe nvfp4 --json
grep -q '"not_finite":\[{"tensor":"model.layers.1.attn.q_proj","what":"input","layer":1,"operator":"attn.q_proj"' out.txt || say "no facts in JSON"
python3 write.py operators inf.safetensors inf
expect 4 "input of model.layers.1.attn.q_proj: 1 Inf of 2048" replay inf.safetensors --recipe mxfp8

# a NaN in a weight, which quantization makes a number of
"$nvfp4" init --model gla --size tiny --seed 1 -o c.safetensors >out.txt || say "init: $(cat out.txt)"
name=model.layers.0.attn.q_proj.weight
python3 write.py weight c.safetensors $name 401 nan
python3 - <<'PY'
import struct
n = 2 * 33
header = b"{'descr': '<i4', 'fortran_order': False, 'shape': (2, 33), }"
header += b" " * (-(len(header) + 11) % 64) + b"\n"
open("t.npy", "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header +
                          struct.pack(f"<{n}i", *[(i * 37) % 200 for i in range(n)]))
PY
sick="weight of $name: 1 NaN of 8192, first at \[3, 17\]"
expect 4 "NOT FINITE: $sick; [0-9]+ of the tensors written" forward --checkpoint c.safetensors --recipe nvfp4 --tokens t.npy --dump d.safetensors
grep -qE "^loss [0-9]" out.txt || say "the loss was to be finite here: $(cat out.txt)"
expect 4 '"not_finite":\{"tensor":"'$name'","what":"weight"' forward --checkpoint c.safetensors --recipe nvfp4 --tokens t.npy --dump d.safetensors --json --grads
expect 4 "NOT FINITE: $sick" eval --checkpoint c.safetensors --recipe nvfp4 --data text.txt --batches 1
expect 4 '"not_finite":\{"tensor":"'$name'"' eval --checkpoint c.safetensors --recipe nvfp4 --data text.txt --batches 1 --json
expect 4 "NOT FINITE: step 1: $sick" record --checkpoint c.safetensors --recipe nvfp4 --data text.txt --batch 2 --sequence 32 --step 1 -o s.safetensors
expect 4 "NOT FINITE: step 1: $sick" replay s.safetensors
grep -q ": identical$" out.txt || say "a step that is not finite is not repeated bit for bit: $(cat out.txt)"
expect 4 "NOT FINITE under nvfp4-plain: step 1: $sick" replay s.safetensors --recipe nvfp4-plain
"$nvfp4" init --model gla --size tiny --seed 1 -o c.safetensors >out.txt
expect 0 "^loss" forward --checkpoint c.safetensors --recipe nvfp4 --tokens t.npy --dump d.safetensors

# training that overflows; experiments go on and mark the run, reports show it
for family in gla qwen3; do
  expect 4 "NOT FINITE: step [0-9]+: [a-z_]+ of [a-z0-9_.]+" train --model $family --size tiny --recipe nvfp4 --data task:copy --steps 4 --batch 2 --sequence 32 --lr 1e30 --out wild-$family --diagnostics-every 1
  grep -q "DIVERGED at step" out.txt || say "no step: $(cat out.txt)"
done
cat >grid.json <<'JSON'
{"models": [{"model": "gla", "size": "tiny"}], "recipes": ["bf16", "nvfp4"], "seeds": [1], "out": "grid", "data": "text.txt",
 "steps": 3, "batch": 2, "sequence": 32, "learning_rate": 1e30}
JSON
expect 0 "DIVERGED at step .*gla-tiny-nvfp4-1 is left out of losses and gaps; first not finite: step" experiment grid.json
expect 0 '"not_finite": *\{' experiment grid.json --json
grep -q '"diverged_seeds": *\[' out.txt || say "the summary does not mark the run"
expect 0 "^DIVERGED .*first not finite: step" report wild-gla grid -o r.html
grep -q "NOT FINITE    wild-gla: step" out.txt || say "diagnostics' tensors are not reported: $(cat out.txt)"
grep -q "<h2>Not finite</h2>" r.html || say "the page does not list them"
expect 0 '"not_finite":\[\{"run":"wild-gla","tensor":"model.layers' report wild-gla -o r.html --json
finish "not finite: all good"
