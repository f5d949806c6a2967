// SPDX-License-Identifier: Apache-2.0
// The environment variables of the programs. The library reads none: what they say is passed on.
#pragma once
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/emulator/cpu/choose_isa.hpp"

#include <cstdlib>

namespace nvfp4::tool {

/// NVFP4_ISA=scalar|avx2|avx512|neon|neon_dot; empty when it is not set. Throws Error when the name is
/// unknown or the CPU lacks the instructions.
[[nodiscard]] inline std::optional<Isa> asked_isa() {
  const char *const name = std::getenv("NVFP4_ISA");
  if (name == nullptr || *name == 0) return std::nullopt;
  try {
    return choose_isa(parse_isa(name));
  } catch (const Error &error) {
    throw Error(std::string("NVFP4_ISA=") + name + ": " + error.what());
  }
}

/// NVFP4_GOLDEN_DIR, or nothing.
[[nodiscard]] inline std::string asked_golden_folder() {
  const char *const folder = std::getenv("NVFP4_GOLDEN_DIR");
  return folder == nullptr ? "" : folder;
}

} // namespace nvfp4::tool
