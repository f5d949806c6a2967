# SPDX-License-Identifier: Apache-2.0
# Sourced by tools/demo, tools/test and tools/corpus: installs what is missing (when root or with sudo), configures, and
# builds with a line of progress. NVFP4_BUILD names the build folder (default: build).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${NVFP4_BUILD:-$root/build}

# What the CPU part needs, as packages of Debian 12, Debian 13 and Ubuntu 24.04. Debian 12 has two versions of Boost that
# exclude each other; the default one is too old.
boost=libboost-dev
! grep -qsx 'VERSION_CODENAME=bookworm' /etc/os-release || boost=libboost1.81-dev
packages=(cmake g++ make ninja-build "$boost" libcli11-dev libfmt-dev libssl-dev nlohmann-json3-dev)
export CMAKE_GENERATOR=${CMAKE_GENERATOR:-Ninja} # which does not wait for one library before it begins with the next

install_packages() {
  local missing=() p
  for p in "$@"; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      sudo=sudo
    else
      echo "missing packages: ${missing[*]}; install them as root: apt-get install ${missing[*]}" >&2
      exit 2
    fi
  fi
  echo "installing ${missing[*]}"
  $sudo env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"' \
    sh "${missing[@]}" >"$(mktemp)" || { echo "apt-get could not install: ${missing[*]}" >&2; exit 2; }
}

# python_package [package...]: packs the wheel from the libraries that lie built in $build, and installs it in the
# environment $build/venv together with what its tests use and the packages named. What is there already is kept.
python_package() {
  local python=$build/venv/bin/python log start=$SECONDS generator
  local tools=("scikit-build-core>=0.11" abi3audit ml_dtypes mypy numpy pytest safetensors tokenizers "$@")
  log=$(mktemp)
  echo "packing the Python wheel in $build/wheel"
  generator=$(sed -n 's/^CMAKE_GENERATOR:INTERNAL=//p' "$build/CMakeCache.txt")
  {
    [ -x "$python" ] || python3 -m venv "$build/venv"
    if [ "$(cat "$build/venv/packages" 2>&1)" != "${tools[*]}" ]; then
      "$python" -m pip install --disable-pip-version-check "${tools[@]}" && echo "${tools[*]}" >"$build/venv/packages"
    fi
    rm -rf "$build/wheel" "$build/.skbuild-info.json" # else an environment made anew would have everything built anew
    CMAKE_GENERATOR=$generator "$python" -m pip wheel --disable-pip-version-check --no-build-isolation --no-deps \
      -C build-dir="$build" -w "$build/wheel" "$root"
    "$python" -m pip install --disable-pip-version-check --no-deps --force-reinstall "$build"/wheel/nvfp4-*.whl
  } >"$log" 2>&1 || build_failed "$log"
  rm -f "$log"
  echo "  packed in $((SECONDS - start)) s"
}

# show_progress START: reads what Make or Ninja prints and shows "[ 40 %] 96 of 240 files, 58 s": in place on a terminal,
# else a line for every tenth.
show_progress() {
  local start=$1 line text percent of="" files=0 shown=-10
  while IFS= read -r line; do
    if [[ $line =~ ^\[([0-9]+)/([0-9]+)\]\ (Building|Linking) ]]; then
      files=${BASH_REMATCH[1]} of=" of ${BASH_REMATCH[2]}" percent=$((100 * BASH_REMATCH[1] / BASH_REMATCH[2]))
    elif [[ $line =~ ^\[\ *([0-9]+)%\]\ Building ]]; then
      files=$((files + 1)) percent=${BASH_REMATCH[1]}
    else
      continue
    fi
    text=$(printf '  [%3d %%] %d%s files, %d s' "$percent" "$files" "$of" $((SECONDS - start)))
    if [ -t 1 ]; then
      printf '\r%s\033[K' "$text"
    elif [ $((percent - shown)) -ge 10 ]; then
      shown=$((percent / 10 * 10))
      echo "$text"
    fi
  done
  [ ! -t 1 ] || printf '\r\033[K'
}

# configure [cmake options]
configure() {
  local log
  log=$(mktemp)
  cmake -S "$root" -B "$build" "$@" >"$log" 2>&1 || build_failed "$log"
  rm -f "$log"
}

# build_target WHAT [target]: WHAT is for the reader
build_target() {
  local log start=$SECONDS
  log=$(mktemp)
  echo "building $1 in $build"
  cmake --build "$build" -j "$(nproc)" ${2:+--target "$2"} 2>&1 | tee "$log" | show_progress "$start" || build_failed "$log"
  rm -f "$log"
  echo "  built in $((SECONDS - start)) s"
}

build_failed() {
  tail -n 40 "$1" >&2
  echo "the build failed; the whole log is $1" >&2
  exit 2
}
