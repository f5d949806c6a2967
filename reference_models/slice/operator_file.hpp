// SPDX-License-Identifier: Apache-2.0
// Linear layers' operands that another program recorded: input/PATH, weight/PATH and, where they were kept,
// bias/PATH and output_grad/PATH. tools/record_slice.py writes such files from PyTorch.
#pragma once
#include "nvfp4/golden/io/tensor.hpp"

#include <string>
#include <vector>

namespace nvfp4::models {

struct RecordedOperator {
  std::string path;  ///< "model.layers.3.self_attn.q_proj"
  std::string role;  ///< "attn.q_proj": what stands behind the first number, or all of it
  int64_t layer = 0; ///< that number; where there is none, the number of layers
  int64_t rows = 0, in = 0, out = 0;
  std::vector<float> input, weight;     // (rows, in), (out, in)
  std::vector<float> bias, output_grad; // (out), (rows, out); empty: not recorded
};

struct OperatorFile {
  std::string family; ///< metadata "family"; otherwise guessed from the paths
  int64_t layers = 1; ///< metadata "layers"; otherwise the largest number in a path and one
  std::vector<RecordedOperator> operators; ///< by layer, then in the file's order
};

/// F32, BF16 and F16 tensors; leading dimensions of inputs and gradients are rows. Throws Error for a file
/// without operators, with other tensors, missing ones, or shapes that do not fit each other.
[[nodiscard]] OperatorFile parse_operators(const io::TensorFile &file, const std::string &source);

} // namespace nvfp4::models
