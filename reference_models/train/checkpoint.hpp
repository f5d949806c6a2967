// SPDX-License-Identifier: Apache-2.0
// Checkpoints: one safetensors file with the parameters under their Hugging Face names, and for a run that is
// to continue the optimizer's moments ("optimizer.m.NAME", "optimizer.v.NAME") and HCP's state
// ("hcp.LAYER.ROLE.indices", ".scores").
#pragma once
#include "golden/io/file.hpp"
#include "reference_models/model/model.hpp"

#include <optional>

namespace nvfp4::models {

struct CheckpointState {
  int64_t step = 0;   ///< optimizer steps done
  int64_t tokens = 0; ///< trained so far
  std::map<std::string, HotChannels> hot_channels;
};

struct Checkpoint {
  std::string source; ///< path, for messages
  io::TensorFile file;
  std::optional<ModelConfig> config; ///< absent in files of other programs
  std::string recipe;                ///< JSON, empty if unknown
  CheckpointState state;
  bool optimizer = false;
};

/// What save_checkpoint writes.
[[nodiscard]] io::TensorFile checkpoint_file(const Parameters<float> &parameters, const ModelConfig &config,
                                             const std::string &recipe, const CheckpointState &state,
                                             bool optimizer);

/// Atomic: a reader sees the old file or the new one.
void save_checkpoint(const std::string &path, const Parameters<float> &parameters, const ModelConfig &config,
                     const std::string &recipe, const CheckpointState &state, bool optimizer);

/// Throws Error for files that are no checkpoint or of another version.
[[nodiscard]] Checkpoint read_checkpoint(const std::string &path);
/// The same of a file that was read; `source` opens messages.
[[nodiscard]] Checkpoint parse_checkpoint(io::TensorFile file, const std::string &source);

/// The values of an F32, BF16 or F16 tensor; Error for other types.
[[nodiscard]] std::vector<float> as_floats(const io::Tensor &tensor, const std::string &source);

/// Copies the tensors into the model (F32, BF16 or F16 parameters; a stored lm_head is left out where the
/// model ties it). Throws Error naming missing tensors, wrong shapes and tensors that the model does not
/// have.
void load_checkpoint(const Checkpoint &checkpoint, Parameters<float> &parameters, const ModelConfig &config,
                     bool optimizer);

} // namespace nvfp4::models
