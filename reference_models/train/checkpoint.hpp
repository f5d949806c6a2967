// SPDX-License-Identifier: Apache-2.0
// Checkpoints: one safetensors file with the parameters under their Hugging Face names, and for a run that is
// to continue the optimizer's moments ("optimizer.m.NAME", "optimizer.v.NAME"), HCP's state
// ("hcp.LAYER.ROLE.indices", ".scores") and, where a recipe holds amaxes, their FP32 words (metadata "held_amaxes").
#pragma once
#include "nvfp4/golden/io/stream.hpp"
#include "nvfp4/reference_models/model/model.hpp"

#include <optional>

namespace nvfp4::models {

struct CheckpointState {
  int64_t step = 0;   ///< optimizer steps done
  int64_t tokens = 0; ///< trained so far
  std::map<std::string, HotChannels> hot_channels;
  std::map<std::string, float> held_amaxes = {}; ///< Model::held_amaxes()
};

/// Of everything that a run carries from step to step, as 16 hexadecimal digits: the first of the SHA-256 of
/// `digest` (Optimizer::digest: parameters, moments, step), tokens as int64, and for each layer with hot
/// channels in the order of names: its name and a zero byte, chosen_at and the number of channels as int64,
/// their indices as int32, the number of scores as int64, the scores as FP32; then for each held amax in the order of names its
/// name, a zero byte and the FP32 value; all little endian.
[[nodiscard]] std::string state_digest(const std::string &digest, int64_t tokens,
                                       const std::map<std::string, HotChannels> &hot_channels,
                                       const std::map<std::string, float> &held_amaxes = {});

/// What a checkpoint is of: a language model or a network for images.
enum class CheckpointKind : uint8_t { language, images };

struct Checkpoint {
  std::string source; ///< path, for messages
  io::TensorReader tensors;
  std::optional<ModelConfig> config; ///< absent in files of other programs
  std::string model;                 ///< JSON of what it is of, empty if unknown
  std::string recipe;                ///< JSON, empty if unknown
  CheckpointState state;
  bool optimizer = false;
};

/// What save_checkpoint writes, tensor by tensor as `parameters` has them when their turn comes; they and the
/// state must live until then.
[[nodiscard]] io::TensorStream checkpoint_stream(const Parameters<float> &parameters,
                                                 const ModelConfig &config, const std::string &recipe,
                                                 const CheckpointState &state, bool optimizer);

/// The same of either kind, `model` its configuration as JSON.
[[nodiscard]] io::TensorStream checkpoint_stream(const Parameters<float> &parameters, CheckpointKind kind,
                                                 const std::string &model, const std::string &recipe,
                                                 const CheckpointState &state, bool optimizer);

/// Atomic: a reader sees the old file or the new one. Holds at most one tensor beside the model.
void save_checkpoint(const std::string &path, const Parameters<float> &parameters, const ModelConfig &config,
                     const std::string &recipe, const CheckpointState &state, bool optimizer);

/// Reads all but the parameters and moments. Throws Error for files that are no checkpoint, of the other kind or of another
/// version.
[[nodiscard]] Checkpoint read_checkpoint(const std::string &path, CheckpointKind kind = CheckpointKind::language);
/// The same of tensors from elsewhere; `source` opens messages.
[[nodiscard]] Checkpoint parse_checkpoint(io::TensorReader tensors, const std::string &source,
                                          CheckpointKind kind = CheckpointKind::language);

/// The values of an F32, BF16 or F16 tensor; Error for other types.
[[nodiscard]] std::vector<float> as_floats(const io::Tensor &tensor, const std::string &source);

/// Copies the tensors into the model, one after the other (F32, BF16 or F16 parameters; a stored lm_head is
/// left out where the model ties it). Throws Error naming missing tensors, wrong shapes and tensors that the
/// model does not have.
void load_checkpoint(const Checkpoint &checkpoint, Parameters<float> &parameters, const ModelConfig &config,
                     bool optimizer);
/// The same for a list of parameters as it is.
void load_checkpoint(const Checkpoint &checkpoint, Parameters<float> &parameters, bool optimizer);

} // namespace nvfp4::models
