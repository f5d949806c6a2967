// SPDX-License-Identifier: Apache-2.0
// Which models a recipe's BF16 mixers fit, and their shapes.
#include "nvfp4/reference_models/model/mixer.hpp"

#include "nvfp4/emulator/numerics/elementary.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"

namespace nvfp4::models {

bf16_gla::Shape bf16_gla_shape(const ModelConfig &m, int64_t batch, int64_t length) {
  return {batch, length, m.heads, m.key_head(), m.value_head(), 1.0f / numerics::sqrt(float(m.key_head()))};
}

tensorcore::AttentionShape bf16_attention_shape(const ModelConfig &m, int64_t batch, int64_t length) {
  return {.batch = batch, .length = length, .heads = m.heads, .kv_heads = m.kv_heads, .dim = m.key_head()};
}

const Unit &mixer_unit(const Recipe &recipe) { return find_unit(recipe.units.at("bf16")); }

void check_mixers(const ModelConfig &config, const Recipe &recipe, int64_t batch, int64_t length,
                  bool double_precision) {
  if (recipe.mixers != FormatId::bf16) return;
  const std::string where = "recipe '" + recipe.name + "' has mixers in bf16: ";
  if (double_precision) throw Error(where + "they cannot run in double precision");
  try {
    if (config.family == Family::gla)
      bf16_gla::check(bf16_gla_shape(config, batch, length));
    else if (config.softmax())
      check_shape("attention", bf16_attention_shape(config, batch, length));
    else
      throw Error("they are defined for gla, qwen3 and qwen2.5, not for " +
                  std::string(to_string(config.family)));
  } catch (const Error &e) {
    throw Error(where + e.what() + "; use mixers f32 or another model");
  }
}

} // namespace nvfp4::models
