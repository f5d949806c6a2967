// SPDX-License-Identifier: Apache-2.0
// The files of a model: config.json and tensors, held against each other when they are opened, read when they
// are asked for.
#pragma once
#include "nvfp4/golden/checkpoint/weight.hpp"
#include "nvfp4/reference_models/pretrained/decoder_config.hpp"

#include <map>
#include <memory>

namespace nvfp4::models::pretrained {

/// What the folder says of how inputs of quantized layers are quantized.
enum class InputQuantization : uint8_t {
  unknown,
  none, ///< weights alone
  some, ///< by a stored scale where there is one, else dynamically
};

/// A linear layer of a block, or the head.
struct LinearName {
  std::string_view module; ///< "self_attn.q_proj"
  std::string_view role;   ///< in recipes: "attn.q_proj"
  int number;              ///< within the block, of random keys
};
inline constexpr LinearName kQuery{"self_attn.q_proj", "attn.q_proj", 0},
    kKey{"self_attn.k_proj", "attn.k_proj", 1}, kValue{"self_attn.v_proj", "attn.v_proj", 2},
    kOutput{"self_attn.o_proj", "attn.o_proj", 6}, kGate{"mlp.gate_proj", "mlp.gate_proj", 12},
    kUp{"mlp.up_proj", "mlp.up_proj", 13}, kDown{"mlp.down_proj", "mlp.down_proj", 14},
    kHead{"lm_head", "lm_head", 15};

class ModelFiles {
public:
  /// A folder with config.json, or the index of its shards. Error in one line for what config.json or the
  /// files do not say, tensors that are missing, do not fit the sizes, cannot be decoded, or belong to
  /// another architecture.
  explicit ModelFiles(const std::string &path);

  [[nodiscard]] const DecoderConfig &config() const { return config_; }
  [[nodiscard]] const std::string &path() const { return path_; }
  [[nodiscard]] InputQuantization inputs() const { return inputs_; }
  /// The tensor of a parameter by its name in a language model, "model.layers.0.mlp.up_proj.weight",
  /// whatever prefix it has in the files. It must be there.
  [[nodiscard]] const checkpoint::Weight &weight(const std::string &name) const;
  [[nodiscard]] bool has(const std::string &name) const;
  /// Its values, rows [first, first + count), as FP32; count < 0: all. The file's pages are let go of.
  [[nodiscard]] std::vector<float> values(const std::string &name, int64_t first = 0, int64_t count = -1,
                                          int threads = 0) const;
  /// Parameters, whatever they are stored as.
  [[nodiscard]] int64_t parameters() const { return parameters_; }

  /// "model.layers.3.".
  [[nodiscard]] static std::string block(int64_t layer);

private:
  void check_tensors();

  std::string path_;
  checkpoint::Checkpoint files_;
  checkpoint::Weights weights_;
  std::map<std::string, const checkpoint::Weight *> by_name_;
  DecoderConfig config_;
  InputQuantization inputs_ = InputQuantization::unknown;
  int64_t parameters_ = 0;
};

/// The name under which a table of logits is stored: the head's or, tied, the embedding's.
[[nodiscard]] std::string head_weight(const DecoderConfig &config);
inline constexpr const char *kEmbedding = "model.embed_tokens.weight";
inline constexpr const char *kFinalNorm = "model.norm.weight";

} // namespace nvfp4::models::pretrained
