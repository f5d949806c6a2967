// SPDX-License-Identifier: Apache-2.0
// A model in a GGUF file as llama.cpp's converter writes it: what its metadata say in the words of
// config.json, and what its tensors are called there.
#pragma once
#include "nvfp4/golden/checkpoint/checkpoint.hpp"

namespace nvfp4::models::pretrained {

/// A config.json for parse_decoder_config(). Error, opened by `where`, for an architecture that is not run,
/// keys that are missing, and what a config.json would not say.
[[nodiscard]] std::string gguf_config(const checkpoint::Checkpoint &file, const std::string &where);

/// "model.layers.3.mlp.up_proj.weight" of "blk.3.ffn_up.weight"; the name itself where the converter has none
/// for it.
[[nodiscard]] std::string gguf_parameter(const checkpoint::Checkpoint &file, const std::string &name);

/// Whether rows of q_proj and k_proj stand in the order that llama.cpp's rotary embedding wants: of each head
/// row 2 j + t is row t * head_dim / 2 + j of Hugging Face's.
[[nodiscard]] bool has_turned_heads(const checkpoint::Checkpoint &file);

} // namespace nvfp4::models::pretrained
