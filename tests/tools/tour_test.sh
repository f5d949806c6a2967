#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tour_test.sh NVFP4 README: runs the commands of the README's console blocks and compares what they print with what the
# README shows. A line "..." stands for any lines. An "export" holds for all steps after it. No step may take more than 30
# seconds of processor time.
set -euo pipefail
nvfp4=$(realpath "$1") readme=$(realpath "$2")
root=$(dirname "$readme")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/build" "$work/steps"
ln -s "$nvfp4" "$work/build/nvfp4"
ln -s "$root/golden" "$work/golden"
cd "$work"
awk -v dir="$work/steps" '/^```console/ {on = 1; next} /^```/ {on = 0} on && /^\$ / {n++; print substr($0, 3) > sprintf("%s/%03d.sh", dir, n); next}
  on {print > sprintf("%s/%03d.out", dir, n)}' "$readme"
failures=0
TIMEFORMAT='%U %S'
# a README that does not say how the program gets onto the PATH has it there
grep -q '^export PATH=' steps/*.sh || export PATH=$work/build:$PATH
for step in steps/*.sh; do
  expected=${step%.sh}.out
  touch "$expected"
  if grep -q '^export ' "$step"; then
    . "$step"
    continue
  fi
  { time bash "$step" >got 2>errors; } 2>took || { echo "FAILED: $(cat "$step")"; cat got errors; failures=$((failures + 1)); }
  awk '{exit $1 + $2 > 30}' took || { echo "FAILED: $(cat "$step") took $(cat took) seconds"; failures=$((failures + 1)); }
  if grep -qx '\.\.\.' "$expected"; then
    # every shown line must appear, in order
    awk 'NR == FNR {if ($0 != "...") want[++n] = $0; next} i < n && $0 == want[i + 1] {i++} END {exit i != n}' "$expected" got ||
      { echo "FAILED: $(cat "$step")"; diff "$expected" got || true; failures=$((failures + 1)); }
  else
    diff "$expected" got || { echo "FAILED: $(cat "$step")"; failures=$((failures + 1)); }
  fi
done
[ -n "$(ls steps)" ] || { echo "no console block in $readme"; exit 1; }
[ $failures -eq 0 ] && echo "the tour's $(ls steps/*.sh | wc -l) commands print what the README shows"
exit $failures
