// SPDX-License-Identifier: Apache-2.0
// A whole checkpoint looked at: what each weight is, what it was made from, and all that is wrong. What
// `nvfp4 inspect` prints.
#pragma once
#include "nvfp4/golden/checkpoint/against.hpp"
#include "nvfp4/golden/checkpoint/inspect.hpp"

namespace nvfp4::checkpoint {

struct InspectionOptions {
  std::string tensor = "*"; ///< a glob: weights with such names
  std::string against;      ///< path of the checkpoint before quantization; empty: none
  std::string convention;   ///< with it: the one that must give the bytes; empty: any
  int threads = 0;
  Progress progress = {};
};

struct Inspection {
  /// One weight, and what it was held against.
  struct Line {
    WeightReport report;
    std::optional<Comparison> comparison;
  };
  std::vector<Line> lines;
  std::vector<Finding> findings;
  int64_t wrong = 0; ///< of the findings
};

/// Throws Error for a glob that no weight matches, an unknown convention, one without `against`, and what
/// cannot be read. Checkpoint and weights must outlive the result.
[[nodiscard]] Inspection inspect(const Checkpoint &c, const Weights &weights,
                                 const InspectionOptions &options = {});

/// Shape of a weight's matrix, or matrices.
[[nodiscard]] std::vector<int64_t> shape_of(const Weight &w);

/// One line of JSON.
[[nodiscard]] std::string to_json(const Checkpoint &c, const Inspection &inspection);
/// A table, with `details` channels, blocks and scales of each weight.
[[nodiscard]] std::string to_text(const Checkpoint &c, const Inspection &inspection, bool details);

} // namespace nvfp4::checkpoint
