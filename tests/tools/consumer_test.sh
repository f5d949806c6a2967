#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# consumer_test.sh BUILD PROJECT SOURCE_ROOT COMPILER: installs the build into an empty folder, then builds and runs a
# user's project against that folder alone, compiles every installed header alone, and configures the project with the
# sources as a part of it.
set -euo pipefail
build=$1 project=$2 root=$3 compiler=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/prefix" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
configure() { cmake -S "$project" -B "$work/$1" -DCMAKE_CXX_COMPILER="$compiler" "${@:2}" >"$work/log" 2>&1; }
{ configure build -DCMAKE_PREFIX_PATH="$work/prefix" && cmake --build "$work/build" >"$work/log" 2>&1; } || { cat "$work/log"; exit 1; }
"$work/build/consumer"
cd "$work" && "$work/prefix/bin/nvfp4" golden list --provenance hardware --json >"$work/list.json"
grep -q '"provenance": "hardware"' "$work/list.json"

for file in man/man1/nvfp4.1 man/man1/nvfp4-gemm.1 bash-completion/completions/nvfp4 zsh/site-functions/_nvfp4 fish/vendor_completions.d/nvfp4.fish; do
  [ -s "$work/prefix/share/$file" ] || { echo "share/$file is not installed"; exit 1; }
done

# a component that no installation has is refused by name
! configure other -DCMAKE_PREFIX_PATH="$work/prefix" "-DCOMPONENTS=emulator;tensor" || { echo "found the component 'tensor'"; exit 1; }
grep -q "no component 'tensor'" "$work/log" || { cat "$work/log"; exit 1; }

# each header alone, twice, with nothing else to include from; those of the GPU parts also need CUDA's
cuda=()
for folder in /usr/local/cuda/include; do [ ! -d $folder ] || cuda=(-isystem $folder); done
cd "$work/prefix/include"
find nvfp4 -name '*.hpp' -o -name '*.h' | sort >"$work/headers"
mkdir "$work/alone"
check_header() {
  local unit=$1/$(tr / _ <<<"$2").cpp
  printf '#include "%s"\n#include "%s"\n' "$2" "$2" >"$unit"
  shift 2
  "$@" -fsyntax-only "$unit"
}
export -f check_header
xargs -P "$(nproc)" -I{} bash -c 'check_header "$@"' check "$work/alone" {} "$compiler" -std=c++20 -Wall -Wextra -Wconversion -Wshadow \
  -Wno-unknown-pragmas -Werror -I. "${cuda[@]}" <"$work/headers" || { echo "an installed header does not compile alone"; exit 1; }
printf '#include "nvfp4/nvfp4.h"\n' >"$work/alone/c.c"
"$compiler" -x c -std=c99 -Wall -Wextra -pedantic -Werror -I. -fsyntax-only "$work/alone/c.c"
for header in version.hpp nvfp4.h emulator/gemm/gemm.hpp golden/verify.hpp reference_models/train/trainer.hpp; do
  grep -qx "nvfp4/$header" "$work/headers" || { echo "$header is not installed"; exit 1; }
done
for header in emulator/gemm/engine.hpp golden/io/posix.hpp reference_models/train/fields.hpp; do
  ! grep -qx "nvfp4/$header" "$work/headers" || { echo "$header is internal and installed"; exit 1; }
done
echo "$(wc -l <"$work/headers") installed headers compile alone"

# as a part of another project: targets and include paths, but no tests, no program and nothing to install
configure part -DNVFP4_SOURCE="$root" -DNVFP4_CUDA=OFF || { cat "$work/log"; exit 1; }
cmake --build "$work/part" --target help >"$work/targets"
grep -q nvfp4_emulator "$work/targets"
! grep -qE 'nvfp4_program|gemm_test' "$work/targets" || { echo "a part of another project builds program or tests"; exit 1; }
