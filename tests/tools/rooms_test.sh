#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# rooms_test.sh SOURCE_ROOT [FROM:TO...]: no circle between folders. An arrow A -> B means that a file in folder A includes one
# in B; tests are left out. Prints the arrows. FROM:TO are arrows that are known to close a circle and do not count.
set -euo pipefail
cd "$1"
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tops="emulator golden gpu reference_models tools"
# "A B" for each include from folder A into another folder B of this tree
grep -rEo --include='*.[hc]' --include='*.[hc]pp' --include='*.cu' --include='*.cuh' \
  '^[[:space:]]*#[[:space:]]*include[[:space:]]+"[^"]+/[^"/]+"' $tops |
  sed -E 's|/[^/:]+:[^"]*"| |; s|/[^/"]+"$||; s| nvfp4/| |' |
  awk -v top="^(${tops// /|})(/|$)" '$1 != $2 && $2 ~ top' | sort -u >"$work/arrows"
[ "$(wc -l <"$work/arrows")" -ge 50 ] || { echo "FAILED: only $(wc -l <"$work/arrows") arrows found"; exit 1; }
sed 's/ / -> /' "$work/arrows"

for known in "$@"; do
  grep -qxF "${known/:/ }" "$work/arrows" || echo "note: the known arrow ${known/:/ -> } is gone; take it off the list"
  sed -i "\\#^${known/:/ }\$#d" "$work/arrows"
done
# the folders of the first circle in a list of arrows
circle() { { tsort 2>&1 >/dev/null || true; } | sed -n 's/^tsort: //p' | sed '/contains a loop/d'; }
# the check itself: an arrow back must be found
back=$(awk 'NR == 1 { print $2, $1 }' "$work/arrows")
[ -n "$( (cat "$work/arrows"; echo "$back") | circle)" ] || { echo "FAILED: an arrow back was not noticed"; exit 1; }
found=$(circle <"$work/arrows")
if [ -n "$found" ]; then
  echo "FAILED: a circle between folders:" $found
  for from in $found; do
    for to in $found; do
      grep -qx "$from $to" "$work/arrows" || continue
      grep -rlE "include \"(nvfp4/)?$to/[^/\"]+\"" "$from" | sed "s|\$| includes $to|"
    done
  done
  exit 1
fi
echo "no circle between $(tr ' ' '\n' <"$work/arrows" | sort -u | wc -l) folders"
