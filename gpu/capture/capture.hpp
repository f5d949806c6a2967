// SPDX-License-Identifier: Apache-2.0
// Captures golden files from the GPU at hand: every matrix instruction and every conversion that it has.
#pragma once
#include <cstdint>
#include <iosfwd>
#include <string>

namespace nvfp4::gpu {

struct CaptureOptions {
  std::string out_dir = "golden-captured";
  int tiles = 13; ///< tiles per input class; eight outputs of each tile are stored
  uint64_t seed = 1;
  std::string only = ""; ///< substring of unit and conversion names to capture; empty for all
};

/// Writes one file per unit into options.out_dir and a line per unit to `log`. Returns 0; 1 after an error,
/// which is logged in one line; 3 when no device can run this build.
[[nodiscard]] int capture(const CaptureOptions &options, std::ostream &log);

} // namespace nvfp4::gpu
