#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/corpus: the text has the recorded digest, a second run changes nothing, and what it cannot do is refused with
# one line. Exits with 77 (skipped) where the package bible-kjv is not installed, because a test installs nothing.
# corpus_test.sh SOURCE_FOLDER
set -uo pipefail
corpus=$(realpath "$1")/tools/corpus
dpkg-query -W -f '${Status}' bible-kjv 2>/dev/null | grep -q 'ok installed' || { echo "bible-kjv is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0
say() { echo "FAILED: $*"; failures=$((failures + 1)); }
# refused PATTERN ARGS...: exit 2, one line that contains the pattern
refused() {
  local pattern=$1 code=0
  shift
  "$corpus" "$@" >out.txt 2>err.txt || code=$?
  [ $code -eq 2 ] || say "exit $code instead of 2: tools/corpus $*"
  [ "$(wc -l <err.txt)" -eq 1 ] && [ ! -s out.txt ] || say "not one line: tools/corpus $*: $(cat err.txt out.txt)"
  grep -qF -- "$pattern" err.txt || say "no '$pattern' in: $(cat err.txt)"
}
# state FILE: identity, time, permissions and digest
state() { stat -c '%i %y %a' "$1" && sha256sum "$1"; }

printf 'not the text' >bible.data # the package's program would read this one first
(umask 027 && "$corpus" folder/kjv.txt) >first.txt 2>err.txt || say "exit $?: $(cat err.txt)"
[ "$(sha256sum <folder/kjv.txt | cut -d ' ' -f 1)" = "$(sed -n 's/^  expected=//p' "$corpus" | head -n 1)" ] || say "other digest than the script records"
[ "$(stat -c %a folder/kjv.txt)" = 640 ] || say "permissions $(stat -c %a folder/kjv.txt), expected 640 under umask 027"
[ "$(cat first.txt)" = "folder/kjv.txt (4139035 bytes)" ] || say "printed '$(cat first.txt)'"
[ "$(grep -c . folder/kjv.txt)" -eq 31102 ] || say "$(grep -c . folder/kjv.txt) verses, expected 31102"
[ "$(grep -c '^$' folder/kjv.txt)" -eq 1188 ] || say "$(grep -c '^$' folder/kjv.txt) empty lines, expected 1188"
[ "$(head -n 1 folder/kjv.txt)" = "In the beginning God created the heaven and the earth." ] || say "begins '$(head -n 1 folder/kjv.txt)'"
! LC_ALL=C grep -q '[^ -~]' folder/kjv.txt || say "bytes that are not printable ASCII"
! grep -q '[0-9]' folder/kjv.txt || say "references are left in the text"

before=$(state folder/kjv.txt)
"$corpus" folder/kjv.txt >second.txt 2>err.txt || say "second run: exit $?: $(cat err.txt)"
[ "$(state folder/kjv.txt)" = "$before" ] || say "the second run touched the file"
cmp -s first.txt second.txt || say "the second run printed '$(cat second.txt)'"

head -c 1000 folder/kjv.txt >cut.txt
"$corpus" cut.txt >out.txt 2>err.txt || say "over a broken file: exit $?: $(cat err.txt)"
cmp -s cut.txt folder/kjv.txt || say "a broken file was not replaced"

# the text that the script expects of the version that is here is another
here=$(dpkg-query -W -f '${Version}' bible-kjv-text)
mkdir fake && sed -e "s/^  expected=[04]/  expected=5/" -e "s/bible-kjv-text 4.38\"/bible-kjv-text $here\"/" "$corpus" >fake/corpus && cp "$(dirname "$corpus")/setup.sh" fake/
chmod +x fake/corpus
corpus=$work/fake/corpus refused "gives a text with SHA-256" wrong.txt
[ ! -e wrong.txt ] || say "a text with another digest was left behind"
refused "is a folder" folder
refused "cannot create the folder" cut.txt/kjv.txt
refused "got 2 arguments" a b
refused "expected one output file" --help
refused "there is no text 'french': expected kjv or english" --text french
refused "there is no text ''" --text

# another version of a package: its text is written, and one line says so
mkdir other && sed -e 's/^  expected=[05]/  expected=6/' -e "s/bible-kjv-text $here\"/bible-kjv-text 4.37\"/" fake/corpus >other/corpus
cp fake/setup.sh other/ && chmod +x other/corpus
other/corpus other.txt >out.txt 2>err.txt || say "another version: exit $?: $(cat err.txt)"
cmp -s other.txt folder/kjv.txt || say "another version: another text"
[ "$(wc -l <err.txt)" -eq 1 ] && grep -qF "bible-kjv-text $here instead of bible-kjv-text 4.37; SHA-256 $(sha256sum <other.txt | cut -d ' ' -f 1) instead of 6" err.txt ||
  say "another version: $(cat err.txt)"

if dpkg-query -W -f '${Status}\n' dict-gcide dict-foldoc jargon-text dict-devil 2>/dev/null | grep -cx 'install ok installed' | grep -qx 4; then
  "$corpus" --text english english.txt >first.txt 2>err.txt || say "english: exit $?: $(cat err.txt)"
  [ "$(cat first.txt)" = "english.txt (51735638 bytes)" ] || say "english: printed '$(cat first.txt)'"
  [ "$(sha256sum <english.txt | cut -d ' ' -f 1)" = "$(sed -n 's/^  expected=//p' "$corpus" | tail -n 1)" ] || say "english: other digest than the script records"
  # pieces of 32 KiB in the order of their digests; the last piece cut is shorter and lies somewhere among them
  python3 - english.txt folder/kjv.txt <<'END' || say "english: not the pieces of the sources"
import gzip, hashlib, sys
sources = [gzip.open(f"/usr/share/{p}").read() for p in ("dictd/gcide.dict.dz", "dictd/foldoc.dict.dz",
                                                        "doc/jargon-text/jargon.txt.gz", "dictd/devil.dict.dz")]
whole = b"".join(sources) + open(sys.argv[2], "rb").read()
pieces = [whole[i : i + 32768] for i in range(0, len(whole), 32768)]
sys.exit(b"".join(sorted(pieces, key=lambda p: hashlib.sha256(p).hexdigest())) != open(sys.argv[1], "rb").read())
END
else
  echo "english is not tested: its packages are not installed"
fi
[ -z "$(find . -name '.corpus-*')" ] || say "left a temporary file"
[ $failures -eq 0 ] && echo "the corpus is as recorded"
exit $((failures > 0))
