#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# mutations.sh [--build DIR] [--jobs N] [--match TEXT] [--from I] [--to J] [--timeout S] [--list] [-- CMAKE_ARGUMENT...]
# Makes one mistake of mutations.txt after the other in a copy of the tracked tree and asks whether the tests named there
# notice. The copy lies in a temporary folder, or in DIR, which is kept and can be used again. --match takes the rows
# whose "file: from -> to" contains TEXT, --from and --to those with these numbers. Exit code 1 if a mistake survives.
set -euo pipefail
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$tests") data=$tests/mutations.txt
copy="" jobs=$(nproc) match="" first=1 last=1000000 limit=300 list=false
fail() { echo "mutations.sh: $*" >&2; exit 2; }
while (($#)); do
  case $1 in
    --list) list=true; shift; continue ;;
    --) shift; break ;;
    --build | --jobs | --match | --from | --to | --timeout) (($# > 1)) || fail "$1 needs a value" ;;
    *) fail "unknown argument $1" ;;
  esac
  case $1 in
    --build) copy=$2 ;;
    --jobs) jobs=$2 ;;
    --match) match=$2 ;;
    --from) first=$2 ;;
    --to) last=$2 ;;
    --timeout) limit=$2 ;;
  esac
  shift 2
done

# The rows that are asked for; runs[i] has one command a line.
files=() froms=() tos=() nths=() runs=() numbers=()
count=0 file="" from="" to="" nth="" run="" has_to=false
end_row() {
  [[ -z $file$from$to$run ]] && return
  [[ -n $file && -n $from && -n $run ]] && $has_to && [[ $from != "$to" ]] || fail "$data: row $((count + 1)) ($file) is not complete"
  count=$((count + 1))
  if ((count >= first && count <= last)) && [[ "$file: $from -> $to" == *"$match"* ]]; then
    files+=("$file") froms+=("$from") tos+=("$to") nths+=("$nth") runs+=("$run") numbers+=("$count")
  fi
  file="" from="" to="" nth="" run="" has_to=false
}
while IFS= read -r line || [[ -n $line ]]; do
  case $line in
    '') end_row ;;
    '#'*) ;;
    'file: '*) file=${line#file: } ;;
    'from: '*) from=${line#from: } ;;
    'to: '* | 'to:') to=${line#to:} to=${to# } has_to=true ;;
    'nth: '*) nth=${line#nth: } ;;
    'run: '*) run+=${run:+$'\n'}${line#run: } ;;
    *) fail "$data: cannot read '$line'" ;;
  esac
done <"$data"
end_row
((${#files[@]})) || fail "no row is asked for"

# mutate INDEX TREE: leaves the text of the file with the mistake in $mutated, or fails.
mutate() {
  local i=$1 text rest before="" found=0 wanted=${nths[$1]:-0} head=""
  [[ -f $2/${files[i]} ]] || fail "row ${numbers[i]}: no file ${files[i]}"
  text=$(cat "$2/${files[i]}"; printf x)
  text=${text%x}
  rest=$text
  while [[ $rest == *"${froms[i]}"* ]]; do
    head=${rest%%"${froms[i]}"*}
    found=$((found + 1))
    if ((found == (wanted > 0 ? wanted : 1))); then
      mutated=$before$head${tos[i]}${rest#*"${froms[i]}"}
    fi
    before+=$head${froms[i]}
    rest=${rest#*"${froms[i]}"}
  done
  if ((wanted == 0 && found != 1)) || ((found < wanted)); then
    fail "row ${numbers[i]}: '${froms[i]}' occurs $found times in ${files[i]}"
  fi
}

if $list; then
  for i in "${!files[@]}"; do
    mutate "$i" "$root"
    printf '%3d  %s: %s -> %s\n' "${numbers[i]}" "${files[i]}" "${froms[i]}" "${tos[i]}"
    while IFS= read -r command; do echo "       $command"; done <<<"${runs[i]}"
  done
  exit
fi
for i in "${!files[@]}"; do mutate "$i" "$root"; done

temporary=""
if [[ -z $copy ]]; then
  copy=$(mktemp -d) temporary=$copy
fi
mkdir -p "$copy"
copy=$(cd "$copy" && pwd)
[[ $copy != "$root" ]] || fail "--build needs a folder of its own"
build=$copy/build log=$copy/mutation.log
trap 'if [[ -n $temporary ]]; then rm -rf "$temporary"; fi' EXIT
trap 'exit 130' INT TERM

# The copy. A file that is the same already keeps its time, so that a folder used again is not built anew.
tracked() {
  if git -C "$root" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git -C "$root" ls-files -z
  else
    (cd "$root" && find . \( -path './build*' -o -path ./.git \) -prune -o -type f -print0)
  fi
}
while IFS= read -r -d '' name; do
  [[ -f $root/$name ]] || continue
  [[ -f $copy/$name ]] && cmp -s "$root/$name" "$copy/$name" && continue
  mkdir -p "$(dirname "$copy/$name")"
  cp "$root/$name" "$copy/$name"
done < <(tracked)

# The program of a command is its target: the first word.
targets=() commands=()
remember() { # ARRAY VALUE
  local -n into=$1
  local x
  for x in "${into[@]}"; do [[ $x == "$2" ]] && return; done
  into+=("$2")
}
for row in "${runs[@]}"; do
  while IFS= read -r command; do
    remember commands "$command"
    remember targets "${command%% *}"
  done <<<"$row"
done

compile() { cmake --build "$build" --config Release --parallel "$jobs" --target "$@" >"$log" 2>&1; }
# Runs one command until its first failure: 0 passed, 124 took too long, anything else failed.
run_test() {
  local -a words
  set -f
  eval "words=($1)"
  set +f
  local program=$build/tests/${words[0]}
  [[ -x $program ]] || program=$(find "$build/tests" -type f -name "${words[0]}" -perm -u+x | head -n 1)
  [[ -n $program ]] || { echo "no program ${words[0]}" >"$log"; return 1; }
  local code=0
  (cd "$build/tests" && OMP_WAIT_POLICY=passive timeout -k 10 "$limit" "$program" "${words[@]:1}" --abort) >"$log" 2>&1 </dev/null || code=$?
  return "$code"
}
now() { local t=${EPOCHREALTIME/[^0-9]/}; echo $((t / 1000)); }

begin=$(now)
cmake -S "$copy" -B "$build" -DNVFP4_CUDA=OFF "$@" >"$log" 2>&1 || { tail -n 40 "$log"; fail "cannot configure"; }
compile "${targets[@]}" || { tail -n 40 "$log"; fail "cannot build"; }
for command in "${commands[@]}"; do
  code=0
  run_test "$command" || code=$?
  if ((code != 0)) || grep -qi 'no test cases matched\|no tests ran' "$log"; then
    tail -n 40 "$log"
    fail "without a mistake '$command' must pass"
  fi
done
took=$(($(now) - begin))
printf '%d targets built, %d commands pass without a mistake, %d.%d s\n' "${#targets[@]}" "${#commands[@]}" $((took / 1000)) $((took % 1000 / 100))

caught=0 survived=0 broken=0 late=0
for i in "${!files[@]}"; do
  mutate "$i" "$copy"
  begin=$(now)
  printf %s "$mutated" >"$copy/${files[i]}"
  needed=()
  while IFS= read -r command; do remember needed "${command%% *}"; done <<<"${runs[i]}"
  verdict=SURVIVED note=""
  if compile "${needed[@]}"; then
    while IFS= read -r command; do
      code=0
      run_test "$command" || code=$?
      ((code == 0)) && continue
      verdict=caught
      ((code == 124 || code == 137)) && note="  (timeout)" late=$((late + 1))
      break
    done <<<"${runs[i]}"
  else
    verdict="does not compile"
  fi
  cp "$root/${files[i]}" "$copy/${files[i]}"
  took=$(($(now) - begin))
  case $verdict in
    caught) caught=$((caught + 1)) ;;
    SURVIVED) survived=$((survived + 1)) ;;
    *) broken=$((broken + 1)) ;;
  esac
  printf '%3d %-16s %5d.%d s  %s: %s -> %s%s\n' "${numbers[i]}" "$verdict" $((took / 1000)) $((took % 1000 / 100)) \
    "${files[i]}" "${froms[i]}" "${tos[i]}" "$note"
done
echo "${#files[@]} mistakes: $caught caught ($late by timeout), $survived survived, $broken do not compile"
((survived == 0))
