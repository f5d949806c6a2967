// SPDX-License-Identifier: Apache-2.0
// The files of a model: config.json and tensors, held against each other when they are opened, read when they
// are asked for.
#pragma once
#include "nvfp4/golden/checkpoint/weight.hpp"
#include "nvfp4/reference_models/pretrained/decoder_config.hpp"
#include "nvfp4/reference_models/pretrained/fp8_product.hpp"

#include <map>
#include <memory>

namespace nvfp4::models::pretrained {

/// What the folder says of how inputs of quantized layers are quantized.
struct InputQuantization {
  enum class Kind : uint8_t {
    unknown,
    none, ///< weights alone
    some, ///< of block formats by a stored scale where there is one, else dynamically
  };
  Kind kind = Kind::unknown;
  const Fp8Inputs *fp8 = nullptr; ///< of E4M3 weights with dense scales; null: not said
};

/// What keys and values of a layer are divided by where a cache holds them.
struct KvScales {
  float k = 1, v = 1;
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
  /// A folder with config.json, the index of its shards, or a .gguf file with the names and metadata of
  /// llama.cpp's converter. Error in one line for what config.json or the
  /// files do not say, tensors that are missing, do not fit the sizes, cannot be decoded, or belong to
  /// another architecture.
  explicit ModelFiles(const std::string &path);

  [[nodiscard]] const DecoderConfig &config() const { return config_; }
  [[nodiscard]] const std::string &path() const { return path_; }
  [[nodiscard]] const InputQuantization &inputs() const { return inputs_; }
  /// The tensor of a parameter by its name in a language model, "model.layers.0.mlp.up_proj.weight",
  /// whatever prefix it has in the files. It must be there.
  [[nodiscard]] const checkpoint::Weight &weight(const std::string &name) const;
  [[nodiscard]] bool has(const std::string &name) const;
  /// Its values, rows [first, first + count) in the order of a Hugging Face model, as FP32; count < 0: all.
  /// The file's pages are let go of.
  [[nodiscard]] std::vector<float> values(const std::string &name, int64_t first = 0, int64_t count = -1,
                                          int threads = 0) const;
  /// The same of its codes and block scales.
  [[nodiscard]] BlockScaled block_scaled(const std::string &name, int64_t first, int64_t count) const;
  /// Whether norms multiply by 1 + what is stored; a GGUF file stores the sum.
  [[nodiscard]] bool adds_one_to_norms() const;
  /// The scales of a quantized KV cache that the folder has for a layer, as ModelOpt
  /// (self_attn.k_proj.k_scale) or compressed-tensors (self_attn.k_scale) name them, else 1. Error unless
  /// they are positive numbers.
  [[nodiscard]] KvScales kv_scales(int64_t layer) const;
  /// Parameters, whatever they are stored as.
  [[nodiscard]] int64_t parameters() const { return parameters_; }

  /// "model.layers.3.".
  [[nodiscard]] static std::string block(int64_t layer);

private:
  void read_config(const std::string &path);
  void check_tensors();
  /// The stored row of each row of a parameter where they are in another order, else empty.
  [[nodiscard]] std::vector<int64_t> stored_rows(const std::string &name) const;

  std::string path_;
  checkpoint::Checkpoint files_;
  checkpoint::Weights weights_;
  std::map<std::string, const checkpoint::Weight *> by_name_;
  DecoderConfig config_;
  InputQuantization inputs_ = {};
  int64_t parameters_ = 0;
};

/// The name under which a table of logits is stored: the head's or, tied, the embedding's.
[[nodiscard]] std::string head_weight(const DecoderConfig &config);
inline constexpr const char *kEmbedding = "model.embed_tokens.weight";
inline constexpr const char *kFinalNorm = "model.norm.weight";

} // namespace nvfp4::models::pretrained
