// SPDX-License-Identifier: Apache-2.0
// What the program does with a model's folder: one pass with every tensor, the loss over data, new tokens.
#pragma once
#include "nvfp4/golden/io/tensor.hpp"
#include "nvfp4/reference_models/data/source.hpp"
#include "nvfp4/reference_models/pretrained/decoder.hpp"

namespace nvfp4::models::pretrained {

struct RunOptions {
  std::string folder;
  std::string recipe = {};            ///< of weights that are numbers; empty: bf16
  std::string preset = {};            ///< instead: preset_recipe() of this convention
  bool rotate = false, patch = false; ///< with a preset
  std::string activations = {};       ///< ServingOptions
  std::string kv = "f32";             ///< find_kv_format()
  int threads = 0;
  uint64_t seed = 1; ///< of stochastic rounding and of generated tokens
  std::function<void(double)> progress = {};
};

/// A recipe that serves: both operands of every linear layer of the blocks quantized 1x16 or 1x32 by the
/// convention, to nearest; the head in BF16. rotate: along the contraction first; patch: the Hot-Channel
/// Patch with its defaults. Error for what check_recipe refuses.
[[nodiscard]] Recipe preset_recipe(const std::string &convention, bool rotate, bool patch);

/// A model's folder and what runs it.
struct Session {
  std::unique_ptr<ModelFiles> files;
  std::unique_ptr<Decoder> decoder;
  Recipe recipe;
};
[[nodiscard]] Session open_session(const RunOptions &options, bool keep = false);

/// Cross-entropy of logits (rows, vocabulary) and targets, as the training model sums it: nats, weighted.
[[nodiscard]] double loss_sum(Decoder &decoder, std::span<const float> logits,
                              std::span<const int32_t> targets, std::span<const float> weights);

struct Forward {
  io::TensorFile tensors;                 ///< logits, loss, act/MODULE; metadata: recipe, architecture
  double loss = 0;                        ///< nats per token
  std::vector<std::string> products = {}; ///< Decoder::products()
  std::optional<NotFinite> not_finite = {};
};
/// One line of JSON; `output`: where the tensors were written.
[[nodiscard]] std::string to_json(const Forward &pass, const std::string &output);
/// `input` holds one tensor, int32 tokens (B, T + 1): inputs [:, :-1], targets [:, 1:].
[[nodiscard]] Forward run_forward(const RunOptions &options, const io::TensorFile &input);

struct EvalResult {
  double loss = 0; ///< nats per token
  int64_t tokens = 0;
  std::string recipe;
  bool hot_channels = false;
  std::vector<std::string> products = {}; ///< Decoder::products()
  std::optional<NotFinite> not_finite = {};
};
/// One line of JSON.
[[nodiscard]] std::string to_json(const EvalResult &result);
/// "chosen on the first batch" or "none".
[[nodiscard]] const char *hot_channels_text(const EvalResult &result);
/// Validation batches 0 to `batches` - 1 of `data`. bos >= 0: stands for the first input of every sequence.
[[nodiscard]] EvalResult run_eval(const RunOptions &options, const DataSource &data, int64_t batch,
                                  int64_t sequence, int64_t batches, int64_t bos = -1);

} // namespace nvfp4::models::pretrained
