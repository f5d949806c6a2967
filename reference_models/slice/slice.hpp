// SPDX-License-Identifier: Apache-2.0
// A training slice: the whole state and input of one optimizer step, and what the step produced, as one
// safetensors file. README.md is the format.
#pragma once
#include "nvfp4/reference_models/train/checkpoint.hpp"
#include "nvfp4/reference_models/train/training_step.hpp"

#include <string>
#include <vector>

namespace nvfp4::models {

/// What a step takes besides the state before it, and what its optimizer was made with.
struct SliceStep : StepInput {
  AdamWOptions adamw;
};

struct StepResult {
  float loss = 0;           ///< nats per token, mean over the step
  double gradient_norm = 0; ///< before clipping
  std::string gradients;    ///< SHA-256 of all gradients in the model's order
  std::string digest;       ///< of parameters, moments and counter after the step, as in log.jsonl
  std::vector<io::Tensor>
      tensors; ///< "tap/NAME" and "grad/PARAMETER", in the order in which the step makes them
  std::optional<NotFinite> not_finite; ///< as StepOutcome has it; not in the file
};

struct Slice {
  Checkpoint before; ///< config, recipe, parameters, moments, HCP's state
  SliceStep step;
  StepResult result; ///< tensors: in the order of the file
};

/// Atomic. `before` is what io::collect() makes of checkpoint_stream() of the model before the step.
void save_slice(const std::string &path, io::TensorFile before, const SliceStep &step,
                const StepResult &result);

/// Whether a file says that it is a slice of this program; else it may hold operators of another
/// (operator_file.hpp).
[[nodiscard]] bool is_slice(const io::TensorFile &file);
/// Throws Error for files of another format or version, and where numbers, shapes or tensors are missing or
/// wrong.
[[nodiscard]] Slice parse_slice(io::TensorFile file, const std::string &source);

} // namespace nvfp4::models
