#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nvfp4 record and replay as a user meets them: a run continued into a slice, equal and changed slices, other recipes and
# units, operators from PyTorch where it is installed, and bad input, each with one line and exit code 2.
tools=$(realpath "$2")
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
# expect CODE PATTERN ARGS...
expect() {
  local want=$1 pattern=$2
  shift 2
  "$nvfp4" "$@" >out.txt 2>err.txt
  local code=$?
  sed -i '/^nvfp4: [a-z ]*: [0-9]* %, /d' err.txt # progress, of a machine with much to do
  [ $code -eq "$want" ] || say "exit $code instead of $want: nvfp4 $*: $(head -1 err.txt)"
  if [ "$want" -eq 2 ]; then
    [ "$(wc -l <err.txt)" -eq 1 ] || say "$(wc -l <err.txt) lines on stderr: nvfp4 $*: $(cat err.txt)"
    grep -qF -- "$pattern" err.txt || say "no '$pattern' in: $(cat err.txt)"
  else
    [ -s err.txt ] && say "nvfp4 $* wrote to stderr: $(head -1 err.txt)"
    grep -qF -- "$pattern" out.txt || say "no '$pattern' in the output of nvfp4 $*: $(head -5 out.txt)"
  fi
}
# the words after a name in a slice's or a log's JSON
word() { grep -o "\"$1\":\"[0-9a-f]*\"" | tail -1 | cut -d'"' -f4; }

for i in $(seq 1 500); do echo "line $i says that $((i * i % 97)) follows $((i * 7 % 31)) and the rest is noise $((i * 31337 % 1009))"; done >text.txt

# a slice of a run's next step has the bits that the longer run has there: the constant schedule does not know its length
run="--model gla --size tiny --recipe chon --data text.txt --batch 2 --sequence 32 --seed 3 --warmup 0 --schedule constant --diagnostics-every 0"
"$nvfp4" train $run --steps 5 --out long >out.txt 2>err.txt || say "train: $(cat err.txt)"
"$nvfp4" train $run --steps 3 --out short >out.txt 2>err.txt || say "train: $(cat err.txt)"
taps=attn.o_proj.input,layers.1.mlp.down_proj.output_grad,lm_head.output
expect 0 "from step 3, 6 taps" record --checkpoint short/checkpoint.safetensors --step 5 --tap $taps -o s.safetensors
expect 0 '"loss_hex"' record --checkpoint short/checkpoint.safetensors --step 5 --tap $taps -o s2.safetensors --threads 1 --json
cmp -s s.safetensors s2.safetensors || say "one thread records another slice"
for key in loss_hex digest; do
  [ "$(word $key <out.txt)" = "$(sed -n 5p long/log.jsonl | word $key)" ] || say "the recorded step has another $key than the run's"
done

expect 0 "identical" replay s.safetensors
expect 0 '"identical":true' replay s.safetensors --recipe chon --threads 2 --json
grep -q "NOT" out.txt && say "identical and not"

# one bit of one tap: exit 1, and the tensor's name, index and words
header=$(od -An -tu8 -N8 s.safetensors | tr -d ' ')
begin=$(head -c $((header + 8)) s.safetensors | tail -c "$header" | grep -o '"tap/layers.2.attn.o_proj.input":{[^}]*}' | grep -o '"data_offsets":\[[0-9]*' | grep -o '[0-9]*$')
cp s.safetensors flipped.safetensors
at=$((8 + header + begin + 4 * (32 * 128 + 5 * 128 + 9)))
byte=$(od -An -tu1 -j $at -N1 s.safetensors | tr -d ' ')
printf "\\x$(printf %02x $((byte ^ 1)))" | dd of=flipped.safetensors bs=1 seek=$at conv=notrunc 2>/dev/null
expect 1 "NOT identical, first at tap/layers.2.attn.o_proj.input" replay flipped.safetensors
grep -q "tap/layers.2.attn.o_proj.input .*\[1, 5, 9\] .* 1 of 8192" out.txt || say "no place of the flipped bit: $(cat out.txt)"
expect 1 '"index":[1,5,9]' replay flipped.safetensors --json

# other recipes: a table, exit 0
expect 0 "recorded under chon" replay s.safetensors --recipe nvfp4
grep -q "^attn.o_proj  *fprop  | nvfp4 x3, bf16 " out.txt || say "no row of attn.o_proj: $(cat out.txt)"
expect 0 "ratio" replay s.safetensors --recipe chon --against nvfp4
grep -q "identical" out.txt || say "the slice's own recipe is not checked beside another"
grep -q "^attn.o_proj  *fprop  | bf16 .*| nvfp4 x3, bf16 " out.txt || say "no protection of attn.o_proj: $(cat out.txt)"
expect 0 "3.mlp.down_proj" replay s.safetensors --recipe hcp --layers
expect 0 '"snr_db":' replay s.safetensors --recipe mxfp8 --json
# sm_100 and sm_120 compute the same here
expect 0 "bits of the recorded step" replay s.safetensors --unit sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16
expect 1 "NOT identical" replay flipped.safetensors --recipe chon --against bf16

# operators recorded in PyTorch
if python3 -c 'import torch, safetensors.torch' 2>/dev/null; then
  cat >model.py <<PY
import sys; sys.path.insert(0, "$tools"); sys.dont_write_bytecode = True
import torch, record_slice
torch.manual_seed(0)
class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = torch.nn.ModuleDict({n: torch.nn.Linear(64, 64) for n in ("v_proj", "o_proj")})
    def forward(self, x):
        return x + self.self_attn["o_proj"](torch.tanh(self.self_attn["v_proj"](x)))
model = torch.nn.Sequential(); model.layers = torch.nn.ModuleList(Block() for _ in range(3)); model.lm_head = torch.nn.Linear(64, 32)
model.to(torch.bfloat16)
with record_slice.record(model, "pt.safetensors", family="qwen3", layers=3):
    x = torch.randn(2, 24, 64, dtype=torch.bfloat16)
    for block in model.layers: x = block(x)
    model.lm_head(x).float().logsumexp(-1).mean().backward()
PY
  python3 model.py >out.txt 2>&1 || say "the recording hook: $(tail -1 out.txt)"
  expect 0 "7 operators of another program, 3 layers, rules of family qwen3" replay pt.safetensors --recipe chon --against nvfp4
  grep -q "^attn.v_proj  *wgrad  | bf16 .*| nvfp4 x2, bf16 " out.txt || say "no protection of attn.v_proj: $(cat out.txt)"
  expect 2 "give --recipe" replay pt.safetensors
else
  echo "no PyTorch here: the recording hook was not run"
fi

# bad input
"$nvfp4" init --model gla --size tiny --seed 1 -o c.safetensors >out.txt 2>&1
record="record --checkpoint c.safetensors --data text.txt --batch 2 --sequence 32 -o bad.safetensors"
expect 2 "unknown tap 'attn.p_proj.input'" $record --step 1 --tap attn.p_proj.input
expect 2 "after the checkpoint's, at least 1" $record --step 0
expect 2 "at least 4" record --checkpoint short/checkpoint.safetensors --step 3 -o bad.safetensors
expect 2 "kjv.txt" record --checkpoint c.safetensors --step 1 -o bad.safetensors
expect 2 "unknown recipe" $record --step 1 --recipe none
[ -e bad.safetensors ] && say "a refused recording left a file"
expect 0 "without the optimizer's moments" $record --step 1 --recipe hcp
expect 0 "identical" replay bad.safetensors
expect 2 "expected a training slice, got a file of format 'nvfp4-checkpoint'" replay c.safetensors
sed 's/"version":"1"/"version":"7"/' s.safetensors >v.safetensors
expect 2 "version '7'" replay v.safetensors
head -c 100000 s.safetensors >cut.safetensors
expect 2 "cut.safetensors" replay cut.safetensors
expect 2 "none.safetensors" replay none.safetensors
expect 2 "unknown recipe" replay s.safetensors --recipe none
expect 2 "--family" replay s.safetensors --family gla
expect 2 "no product of recipe" replay s.safetensors --recipe bf16 --unit sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16
expect 2 "'abacus'" replay s.safetensors --device abacus

finish "record and replay: all passed"
