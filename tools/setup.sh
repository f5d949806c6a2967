# SPDX-License-Identifier: Apache-2.0
# Sourced by tools/demo and tools/test: installs what is missing (when root or with sudo), configures and builds.
# NVFP4_BUILD names the build folder (default: build).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${NVFP4_BUILD:-$root/build}

# What the CPU part needs, as Debian 12 packages.
packages=(cmake g++ make libboost1.81-dev libcli11-dev libfmt-dev libssl-dev nlohmann-json3-dev)

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

# configure_and_build [cmake options]
configure_and_build() {
  local log
  log=$(mktemp)
  if ! { cmake -S "$root" -B "$build" "$@" && cmake --build "$build" -j "$(nproc)"; } >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "the build failed; the whole log is $log" >&2
    exit 2
  fi
  rm -f "$log"
}
