#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# golden_oracle_test.sh NVFP4 GOLDEN: the multiprecision oracle recomputes every MMA file without a mismatch, and as many
# files and cases as the manifest lists.
set -euo pipefail
nvfp4=$1 golden=$2
got=$("$nvfp4" golden verify --exact --kind mma --json --dir "$golden") || { echo "$got"; exit 1; }
# sum KEY: of the numbers that stand behind "KEY": in JSON of one field a line
sum() { awk -F'[:,]' -v key="\"$1\"" '{gsub(/[ \t]/, "", $1)} $1 == key {n += $2} END {print n + 0}'; }
seen="$(sum files <<<"$got") $(sum cases <<<"$got")"
listed=$(awk '/^ *"kind":/ {mma = /"mma"/; files += mma} /^ *"cases":/ && mma {gsub(/[^0-9]/, ""); cases += $0}
  END {print files + 0, cases + 0}' "$golden/manifest.json")
[ "$seen" = "$listed" ] && [ "${listed%% *}" -gt 0 ] || { echo "files and cases: the manifest lists $listed, the oracle saw $seen"; exit 1; }
echo "the oracle agrees with ${listed#* } cases of ${listed%% *} MMA files"
