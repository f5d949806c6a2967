// SPDX-License-Identifier: Apache-2.0
// Makes golden files out of the emulator's own models: MMA cases for every unit, conversions, quantizer cases.
// Their provenance is `model` or `exact`, never `hardware`.
#pragma once
#include "nvfp4/golden/text.hpp"

#include <functional>
#include <string>

namespace nvfp4::golden {

struct GenerateOptions {
  std::string folder;      ///< golden folder; files go under folder/vectors
  int cases_per_class = 8; ///< MMA cases of each input class
  uint64_t seed = 1;
  std::string match; ///< only units whose name contains this text
};

/// Writes all model vectors and then the manifest of everything in the folder. `log` gets one line per group,
/// `progress` the fraction done. Returns the number of files written.
size_t generate(const GenerateOptions &options, const std::function<void(const std::string &)> &log,
                const std::function<void(double)> &progress = {});

} // namespace nvfp4::golden
