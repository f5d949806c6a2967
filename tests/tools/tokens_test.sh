#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/tokens: deterministic, the tokens of the package tokenizers in the files that the program reads, and one line for
# what cannot be. Exits with 77 (skipped) where no Python has that package. tokens_test.sh NVFP4 TOOLS_TOKENS
# shellcheck source=tests/tools/opening.sh
. "$(dirname "$(realpath "$0")")/opening.sh"
tokens=$(realpath "$2")
python=
for p in "${NVFP4_PYTHON_WITH_TOKENIZERS:-}" "$(dirname "$nvfp4")/venv/bin/python" python3; do
  [ -n "$p" ] && "$p" -c 'import tokenizers' 2>/dev/null && { python=$p; break; }
done
[ -n "$python" ] || { echo "no Python here has the package tokenizers"; exit 77; }
# refused PATTERN ARGS...: exit 2, one line that contains the pattern
refused() {
  local pattern=$1 code=0
  shift
  "$python" "$tokens" "$@" >out.txt 2>err.txt || code=$?
  [ $code -eq 2 ] && [ ! -s out.txt ] && [ "$(wc -l <err.txt)" -eq 1 ] && grep -qF -- "$pattern" err.txt ||
    say "exit $code, no '$pattern': tools/tokens $*: $(cat out.txt err.txt)"
}

for i in $(seq 1 4000); do echo "line $i says: $((i * i % 97)) follows $((i * 7 % 31)), naïvely — and the rest is noise $((i * 31337 % 1009))"; done >text.txt
printf 'not UTF-8: \xE9\xFF\n' >latin.txt
"$python" "$tokens" text.txt latin.txt -o a --vocabulary 500 --shard 20000 --validation 0.1 >out.txt 2>&1 || say "exit $?: $(cat out.txt)"
"$python" "$tokens" text.txt latin.txt -o b --vocabulary 500 --shard 20000 --validation 0.1 >out.txt 2>&1 || say "exit $?: $(cat out.txt)"
diff -r a b >out.txt || say "two calls, two results: $(cat out.txt)"
[ "$(ls a | wc -l)" -ge 5 ] || say "few files: $(ls a)"
"$python" - >out.txt 2>&1 <<'END' || say "$(cat out.txt)"
import glob, json, struct
from array import array
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("a/tokenizer.json")
text = open("text.txt").read() + open("latin.txt", encoding="utf-8", errors="replace").read()
expected = [i for t in ("text.txt", "latin.txt") for i in tokenizer.encode(open(t, encoding="utf-8", errors="replace").read()).ids]
found, parts = [], sorted(glob.glob("a/train-*.bin"))
for path in parts + ["a/validation.bin"]:
    data = open(path, "rb").read()
    magic, version, count = struct.unpack("<3i", data[:12])
    assert (magic, version, count) == (20240520, 1, (len(data) - 1024) // 2), path
    assert path == "a/validation.bin" or path == parts[-1] or count == 20000
    found += array("H", data[1024:]).tolist()
assert count == int(len(found) * 0.1)
assert found == expected and tokenizer.decode(found) == text
assert json.load(open("a/tokens.json"))["vocabulary"] == 500 == tokenizer.get_vocab_size()
END
"$nvfp4" train --set vocabulary=500 --data 'a/train-*.bin' --validation-data a/validation.bin --steps 1 --diagnostics-every 0 --out run >out.txt 2>&1 ||
  say "train: $(cat out.txt)"
"$python" "$tokens" latin.txt text.txt -o c --tokenizer a/tokenizer.json >out.txt 2>&1 || say "exit $?: $(cat out.txt)"
[ ! -e c/tokenizer.json ] && [ -e c/train-0000.bin ] || say "with a tokenizer.json: $(ls c)"

refused "a holds token files already: give another folder" text.txt -o a --vocabulary 500
refused "expected a whole number from 257" text.txt -o d --vocabulary 256
refused "expected 60000: take a smaller --vocabulary" text.txt -o d --vocabulary 60000
refused "none.txt: expected a text file" none.txt -o d --vocabulary 500
refused "text.txt: expected a tokenizer.json" text.txt -o d --tokenizer text.txt
refused "expected a number above 0 and below 1, got 1" text.txt -o d --vocabulary 500 --validation 1
refused "--shard: expected" text.txt -o d --vocabulary 500 --shard 0
refused "one of the arguments --vocabulary --tokenizer is required" text.txt -o d
refused "too few to hold out" latin.txt -o d --tokenizer a/tokenizer.json --validation 0.001
touch file
refused "file/below: Not a directory" text.txt -o file/below --vocabulary 500
finish "tools/tokens writes what the program reads"
