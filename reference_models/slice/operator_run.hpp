// SPDX-License-Identifier: Apache-2.0
// Linear layers of another program that ran under a recipe of ours, with what they gave: operators
// (operator_file.hpp) and their results. nvfp4.torch records them; README.md is the format.
#pragma once
#include "nvfp4/reference_models/linear/linear_layer.hpp"
#include "nvfp4/reference_models/slice/operator_file.hpp"

namespace nvfp4::models {

struct OperatorRun {
  RecordedOperator operands;
  LayerPlace place;
  StepContext step;
  std::vector<int32_t> channels, dgrad_channels; ///< the hot ones; empty: no patch
  std::vector<io::Tensor> results; ///< "output/PATH", then "input_grad/", "weight_grad/", "bias_grad/", as
                                   ///< far as they are there: F32 or BF16
};

struct OperatorRuns {
  Recipe recipe; ///< bound to its family
  std::vector<OperatorRun> runs;
};

/// Whether a file says that it holds such operators.
[[nodiscard]] bool has_operator_runs(const io::TensorFile &file);
/// The operators alone, as parse_operators() gives them.
[[nodiscard]] OperatorFile operators_of_runs(io::TensorFile file, const std::string &source);
/// Throws Error for other files and versions, and for what is missing, unknown or does not fit.
[[nodiscard]] OperatorRuns parse_operator_runs(io::TensorFile file, const std::string &source);

} // namespace nvfp4::models
