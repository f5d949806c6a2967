// SPDX-License-Identifier: Apache-2.0
// New tokens behind a prompt: the prompt in one pass, then a token at a time with a cache of keys and values,
// or every time over all of them.
#pragma once
#include "nvfp4/reference_models/pretrained/run.hpp"

namespace nvfp4::models::pretrained {

struct GenerateOptions {
  std::vector<int32_t> prompt;
  int64_t tokens = 32; ///< new ones at most
  /// 0: the token of the largest logit, the lowest id among equals. Else one of softmax(logits /
  /// temperature): choose_token.
  double temperature = 0;
  uint64_t seed = 1;
  bool cache = true;                       ///< false: each token from a pass over all before it
  std::function<void(int32_t)> token = {}; ///< called with each new one; what it throws ends the work
};

struct Generated {
  std::vector<int32_t> tokens; ///< the new ones; ends with one of DecoderConfig::stop where that came
  std::vector<std::vector<float>> logits = {}; ///< that each was chosen from, where they were asked for
  std::vector<std::string> products = {};      ///< Decoder::products()
  std::optional<NotFinite> not_finite = {};
};
/// One line of JSON.
[[nodiscard]] std::string to_json(const Generated &made);

/// Stops at NaN or Inf. The first pass chooses hot channels. Error for an empty prompt, and for tokens or
/// lengths that the model does not have.
[[nodiscard]] Generated generate(Session &session, const GenerateOptions &options, bool keep_logits = false);

/// The token of a row of logits at `position` of its sequence. With a temperature: p_j = exp((l_j - max) / T)
/// in FP32 with the library's exp, summed in FP64 in the order of ids; the first j whose sum exceeds u times
/// the whole, where u is the upper 24 bits of word 0 of Philox under (seed, offset = position), block 0, over
/// 2^24.
[[nodiscard]] int32_t choose_token(std::span<const float> logits, double temperature, uint64_t seed,
                                   int64_t position);

} // namespace nvfp4::models::pretrained
