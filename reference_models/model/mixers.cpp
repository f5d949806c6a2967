// SPDX-License-Identifier: Apache-2.0
// The mixers by kind: how each is made, and which models its form with BF16 operands fits.
#include "nvfp4/reference_models/model/operator_products.hpp"

#include "nvfp4/emulator/numerics/elementary.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"

#include <algorithm>

namespace nvfp4::models {
namespace {

template <class T>
using Make = std::unique_ptr<Mixer<T>> (*)(const BlockContext<T> &context, Scratch<T> &scratch);

struct MixerRow {
  MixerKind kind;
  Make<float> make_float;
  Make<double> make_double;
  /// Throws Error where the form with BF16 operands does not fit; null: there is none.
  void (*check_bf16)(const ModelConfig &config, int64_t batch, int64_t length);
};

void check_gla(const ModelConfig &config, int64_t batch, int64_t length) {
  bf16_gla::check(bf16_gla_shape(config, batch, length));
}
void check_attention(const ModelConfig &config, int64_t batch, int64_t length) {
  check_shape("attention", bf16_attention_shape(config, batch, length));
}

constexpr MixerRow kMixers[] = {
    {MixerKind::gla, make_gla<float>, make_gla<double>, check_gla},
    {MixerKind::attention, make_attention<float>, make_attention<double>, check_attention},
    {MixerKind::delta, make_delta<float>, make_delta<double>, nullptr},
    {MixerKind::slots, make_slots<float>, make_slots<double>, nullptr},
    {MixerKind::scan, make_scan<float>, make_scan<double>, nullptr},
};

const MixerRow &row_of(const ModelFamily &family) {
  return *std::find_if(std::begin(kMixers), std::end(kMixers),
                       [&](const MixerRow &row) { return row.kind == family.mixer; });
}

/// The families whose mixers have a form with BF16 operands.
std::string families_in_bf16() {
  std::string names;
  for (const ModelFamily *f : families())
    if (row_of(*f).check_bf16 != nullptr) names.append(names.empty() ? "" : ", ").append(f->name);
  return names;
}

} // namespace

template <class T> std::unique_ptr<Mixer<T>> make_mixer(const BlockContext<T> &context, Scratch<T> &scratch) {
  const MixerRow &row = row_of(*context.config.family);
  if constexpr (std::is_same_v<T, float>)
    return row.make_float(context, scratch);
  else
    return row.make_double(context, scratch);
}
template std::unique_ptr<Mixer<float>> make_mixer(const BlockContext<float> &, Scratch<float> &);
template std::unique_ptr<Mixer<double>> make_mixer(const BlockContext<double> &, Scratch<double> &);

bf16_gla::Shape bf16_gla_shape(const ModelConfig &m, int64_t batch, int64_t length) {
  return {batch, length, m.heads, m.key_head(), m.value_head(), 1.0f / numerics::sqrt(float(m.key_head()))};
}

tensorcore::AttentionShape bf16_attention_shape(const ModelConfig &m, int64_t batch, int64_t length) {
  return {.batch = batch, .length = length, .heads = m.heads, .kv_heads = m.kv_heads, .dim = m.key_head()};
}

const Unit &mixer_unit(const Recipe &recipe) { return find_unit(recipe.units.at("bf16")); }

void check_mixers(const ModelConfig &config, const Recipe &recipe, int64_t batch, int64_t length,
                  bool double_precision) {
  if (double_precision && has_mixer_rules(recipe, config))
    throw Error("recipe '" + recipe.name + "' has mixer_rules, which cannot run in double precision");
  if (recipe.mixers != FormatId::bf16) return;
  const std::string where = "recipe '" + recipe.name + "' has mixers in bf16: ";
  if (double_precision) throw Error(where + "they cannot run in double precision");
  const auto check_bf16 = row_of(*config.family).check_bf16;
  try {
    if (check_bf16 == nullptr)
      throw Error("they are defined for " + families_in_bf16() + ", not for " +
                  std::string(config.family->name));
    check_bf16(config, batch, length);
  } catch (const Error &e) {
    throw Error(where + e.what() + "; use mixers f32 or another model");
  }
}

} // namespace nvfp4::models
