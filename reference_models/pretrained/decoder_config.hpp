// SPDX-License-Identifier: Apache-2.0
// The sizes of a decoder, from the config.json of a Hugging Face folder.
#pragma once
#include "nvfp4/reference_models/model/rope_table.hpp"
#include "nvfp4/reference_models/pretrained/architecture.hpp"

#include <vector>

namespace nvfp4::models::pretrained {

struct Rotary {
  double base = 10000.0;
  RopeScaling scaling = {};
};

struct DecoderConfig {
  const Architecture *architecture = nullptr; ///< never null once read
  int64_t vocabulary = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, intermediate = 0;
  int64_t positions = 0; ///< max_position_embeddings
  double epsilon = 1e-6;
  double query_scalar = 0; ///< scores are divided by its root
  bool tied = false;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  int64_t window = 0;           ///< keys that a query of a local layer sees, itself among them
  std::vector<bool> local = {}; ///< by layer
  Rotary rotary = {}, local_rotary = {};
  std::vector<int64_t> stop = {}; ///< eos_token_id: generation ends with one of them

  [[nodiscard]] int64_t query_width() const { return heads * head_dim; }
  [[nodiscard]] int64_t kv_width() const { return kv_heads * head_dim; }
};

/// Whether `path` names what ModelFiles reads: a folder, the index of its shards, or a .gguf file.
[[nodiscard]] bool is_pretrained(const std::string &path);

/// From the text of config.json; `where` opens messages. Error for an unknown architecture, keys that are
/// missing or of another type, sizes that make no model, and what is set but not done here.
[[nodiscard]] DecoderConfig parse_decoder_config(std::string_view json, const std::string &where);

} // namespace nvfp4::models::pretrained
