// SPDX-License-Identifier: Apache-2.0
// Greedy and sampled decoding.
#include "nvfp4/reference_models/pretrained/generate.hpp"

#include "nvfp4/emulator/formats/philox.hpp"
#include "nvfp4/emulator/numerics/elementary.hpp"
#include "nvfp4/reference_models/fields/json.hpp"

#include <algorithm>

namespace nvfp4::models::pretrained {

int32_t choose_token(std::span<const float> logits, double temperature, uint64_t seed, int64_t position) {
  const auto top = std::max_element(logits.begin(), logits.end());
  if (temperature == 0) return int32_t(top - logits.begin());
  const auto t = float(temperature);
  const auto weight = [&](float l) { return double(numerics::exp((l - *top) / t)); };
  double whole = 0;
  for (const float l : logits) whole += weight(l);
  const double u = double(RandomKey{seed, uint64_t(position)}.bits32(0) >> 8) * 0x1p-24;
  double sum = 0;
  int32_t last = 0; // of those that can come
  for (size_t j = 0; j < logits.size(); ++j) {
    const double w = weight(logits[j]);
    if (w > 0) last = int32_t(j);
    sum += w;
    if (sum > u * whole) return int32_t(j);
  }
  return last;
}

std::string to_json(const Generated &made) {
  nlohmann::ordered_json j = {{"tokens", made.tokens}, {"products", made.products}};
  if (made.not_finite) j["not_finite"] = fields_to_json(kNotFiniteFields, *made.not_finite);
  return j.dump();
}

Generated generate(Session &session, const GenerateOptions &o, bool keep_logits) {
  Decoder &decoder = *session.decoder;
  const DecoderConfig &config = decoder.config();
  if (o.prompt.empty()) throw Error("expected a prompt of at least one token, got none");
  if (o.tokens < 1) throw Error("expected at least 1 new token, got " + std::to_string(o.tokens));
  const auto longest = int64_t(o.prompt.size()) + o.tokens;
  if (longest - 1 > config.positions)
    throw Error("a prompt of " + std::to_string(o.prompt.size()) + " and " + std::to_string(o.tokens) +
                " new tokens: the model has max_position_embeddings " + std::to_string(config.positions));
  std::optional<KvCache> cache;
  if (o.cache) cache.emplace(decoder.backend(), config, 1, longest);
  Generated out;
  out.products = decoder.products();
  std::vector<int32_t> all = o.prompt;
  while (int64_t(out.tokens.size()) < o.tokens) {
    const bool more = o.cache && !out.tokens.empty();
    const std::span<const int32_t> now = more ? std::span(all).last(1) : std::span(all);
    StepContext step;
    step.seed = o.seed;
    const std::span<const float> logits = decoder.forward({.tokens = now,
                                                           .length = int64_t(now.size()),
                                                           .cache = o.cache ? &*cache : nullptr,
                                                           .last_only = true,
                                                           .step = step});
    out.not_finite = decoder.not_finite();
    if (out.not_finite) break;
    if (keep_logits) out.logits.emplace_back(logits.begin(), logits.end());
    const int32_t token = choose_token(logits, o.temperature, o.seed, int64_t(all.size()));
    all.push_back(token);
    out.tokens.push_back(token);
    if (o.token) o.token(token);
    if (std::find(config.stop.begin(), config.stop.end(), token) != config.stop.end()) break;
  }
  return out;
}

} // namespace nvfp4::models::pretrained
