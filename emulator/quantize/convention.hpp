// SPDX-License-Identifier: Apache-2.0
// Quantization conventions by name: what each public implementation does, as one row of data with its source.
#pragma once
#include "nvfp4/emulator/quantize/rule.hpp"

#include <span>
#include <string_view>

namespace nvfp4 {

/// How a row is known. Each includes a step-by-step transcription of the named source.
enum class ConventionEvidence : uint8_t {
  transcribed,  ///< read, not run
  upstream_run, ///< byte-equal to the upstream software, run on a CPU (tests/emulator/quantize/upstream.cpp
                ///< has the digests)
  hardware,     ///< reproduces bytes that a real GPU wrote
};
[[nodiscard]] std::string_view to_string(ConventionEvidence evidence);

/// What an implementation can be combined with. Only combinations without a meaning are refused.
struct Capabilities {
  bool stochastic = true; ///< stochastic rounding of the elements
  bool hadamard = true;   ///< rotation before quantization
  bool tiles = true;      ///< 16x16 scales
};

struct Convention {
  std::string_view name;
  std::string_view alias; ///< second name, may be empty
  Rule rule;
  Capabilities can;
  ConventionEvidence evidence;
  std::string_view source;                      ///< one line: repository, file, commit
  std::string_view versions = "of that commit"; ///< releases of the upstream for which the row is true
};

/// All rows, in the order of the table.
[[nodiscard]] std::span<const Convention> conventions();

/// The row of a name or an alias; Error listing the names when there is none.
[[nodiscard]] const Convention &find_convention(std::string_view name);

} // namespace nvfp4
