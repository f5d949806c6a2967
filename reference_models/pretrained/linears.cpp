// SPDX-License-Identifier: Apache-2.0
// Which way a weight goes, its operand, and its product.
#include "nvfp4/reference_models/pretrained/linears.hpp"

#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/reference_models/family/family.hpp"

namespace nvfp4::models::pretrained {
namespace {

using checkpoint::GlobalUse;
using checkpoint::Weight;

std::string weight_name(const DecoderConfig &c, int64_t layer, const LinearName &name) {
  if (layer == c.layers) return head_weight(c);
  return ModelFiles::block(layer) + std::string(name.module) + ".weight";
}

std::string bias_name(const DecoderConfig &c, int64_t layer, const LinearName &name) {
  return layer == c.layers ? "lm_head.bias" : ModelFiles::block(layer) + std::string(name.module) + ".bias";
}

OperandFormat format_of(const Rule &rule) {
  if (rule.scale == FormatId::ue8m0)
    return rule.element == FormatId::e2m1 ? OperandFormat::mxfp4 : OperandFormat::mxfp8;
  return OperandFormat::nvfp4;
}

/// The unit that a recipe's products of these conventions run on.
std::string unit_for(const Recipe &recipe, const Rule &inputs, std::string_view input_name,
                     std::string_view weight_name) {
  Recipe one = recipe;
  LinearRecipe l;
  l.fprop.a = {.format = format_of(inputs), .convention = std::string(input_name)};
  l.fprop.b = {.format = format_of(inputs), .convention = std::string(weight_name)};
  one.linears = {{"one", l}};
  one.default_linear = "one";
  one.rules.clear();
  return one.resolve("lm_head", 0, 0).fprop.unit;
}

/// The word that a convention stores, from a container's: it multiplies (p) or divides (S).
std::optional<float> word_for(const Convention &convention, const Weight &w) {
  const std::optional<float> word = checkpoint::input_word(w, 0);
  if (!word || !has_level(convention.rule)) return std::nullopt;
  const bool takes_p = stores_decode(convention.rule), takes_s = takes_encode(convention.rule);
  if (!takes_p && !takes_s)
    throw Error("weight " + w.name + " has an input scale, but convention '" + std::string(convention.name) +
                "' makes its global scale from an amax; give modelopt, torchao, compressed-tensors, vllm or "
                "flashinfer");
  const bool is_p = w.container->input_use == GlobalUse::multiplies;
  return is_p == takes_p ? *word : 1.0f / *word;
}

} // namespace

void Linears::choose(const Engines &e, int64_t layer, const LinearName &name, Member &m) {
  const DecoderConfig &c = e.files.config();
  const Weight &w = e.files.weight(weight_name(c, layer, name));
  m.name = name;
  m.in = w.k;
  m.out = w.rows;
  m.output = e.options.recipe.resolve(std::string(name.role), layer, c.layers).fprop.output;
  if (!w.container) return;
  const std::string &asked = e.options.activations;
  using Kind = InputQuantization::Kind;
  const bool fp8 = w.container->scale_shape == checkpoint::ScaleShape::dense;
  const InputQuantization &says = e.files.inputs();
  if (asked.empty() && (says.kind == Kind::unknown || (fp8 && says.kind == Kind::some && !says.fp8)))
    throw Error("weight " + w.name + " is " + w.kind() +
                ", and the folder does not say whether inputs are quantized: give --activations none or " +
                (fp8 ? "one of " + fp8_inputs_names() : std::string("a convention")));
  const bool none = asked == "none" || (asked.empty() && says.kind == Kind::none);
  if (none) {
    m.way = Way::weights_alone;
    return;
  }
  if (fp8 && w.container->element == FormatId::e4m3) {
    m.way = Way::fp8;
    m.fp8_inputs = asked.empty() ? says.fp8 : find_fp8_inputs(asked);
    if (m.fp8_inputs == nullptr)
      throw Error("weight " + w.name + " is " + w.kind() + "; --activations " + asked +
                  ": expected none or one of " + fp8_inputs_names());
    return Fp8Product::check(w, *m.fp8_inputs);
  }
  if (!w.is_block_scaled() || w.container->global_use == GlobalUse::after)
    throw Error(
        "weight " + w.name + " is " + w.kind() +
        ", whose scales no block-scaled product takes: give --activations none to run its values in BF16");
  m.way = Way::stored;
  Stored &s = m.stored;
  s.convention = &find_convention(asked.empty() ? w.container->convention : std::string_view(asked));
  const Rule &in = s.convention->rule;
  if (in.per_row || in.element != *w.container->element || in.scale != *w.container->scale ||
      in.block != w.container->block)
    throw Error("weight " + w.name + " is " + w.kind() + "; convention '" + std::string(s.convention->name) +
                "' does not give inputs that a product takes with it");
  s.word = word_for(*s.convention, w);
  s.accumulation = e.options.recipe.accumulation;
  s.unit = &find_unit(unit_for(e.options.recipe, in, s.convention->name, w.container->convention));
}

LayerPlan Linears::plan(const Engines &e, int64_t layer, const LinearName &name) {
  Member m;
  choose(e, layer, name, m);
  const DecoderConfig &c = e.files.config();
  LayerPlan plan;
  plan.weights = e.files.weight(weight_name(c, layer, name)).kind();
  if (m.way == Way::stored) {
    plan.inputs =
        std::string(m.stored.convention->name) + (!has_level(m.stored.convention->rule) ? ""
                                                  : m.stored.word                       ? ", static"
                                                                                        : ", dynamic");
    plan.unit = m.stored.unit->name();
    return plan;
  }
  if (m.way == Way::fp8) {
    plan.inputs = m.fp8_inputs->name;
    plan.unit = Fp8Product::kUnit;
    return plan;
  }
  const Recipe &recipe = m.way == Way::recipe ? e.options.recipe : e.bf16;
  const GemmRecipe g = recipe.resolve(std::string(name.role), layer, c.layers).fprop;
  plan.inputs = std::string(to_string(g.a.format)) + (g.a.convention.empty() ? "" : " " + g.a.convention);
  plan.unit = g.unit;
  return plan;
}

Linears::Linears(const Engines &engines, int64_t layer, std::span<const LinearName> names, int64_t first,
                 int64_t count)
    : e_(engines), members_(names.size()) {
  const DecoderConfig &c = e_.files.config();
  std::vector<LinearWeight<float>> of_recipe, alone;
  const auto look = [&](const std::string &tensor, std::span<const float> values,
                        std::vector<int64_t> shape) {
    if (!not_finite_) not_finite_ = find_not_finite(values, tensor, StepTensor::weight, std::move(shape));
  };
  for (size_t i = 0; i < names.size(); ++i) {
    Member &m = members_[i];
    choose(e_, layer, names[i], m);
    const std::string name = weight_name(c, layer, names[i]), bias = bias_name(c, layer, names[i]);
    const int64_t rows = count < 0 ? m.out : count;
    m.out = rows;
    if (e_.files.has(bias)) {
      const std::vector<float> all = e_.files.values(bias);
      m.bias.assign(all.begin() + first, all.begin() + first + rows);
      look(bias, m.bias, {rows});
    }
    if (m.way == Way::stored) {
      m.stored.weight =
          make_operand(*m.stored.unit, nvfp4::Side::b, e_.files.block_scaled(name, first, rows));
      continue;
    }
    if (m.way == Way::fp8) {
      const Weight &w = e_.files.weight(name);
      m.fp8.emplace(w, *m.fp8_inputs, first, rows);
      checkpoint::MappedFile::forget(w.codes->bytes);
      continue;
    }
    m.weight = e_.files.values(name, first, rows, e_.options.threads);
    look(name, m.weight, {rows, m.in});
    std::vector<LinearWeight<float>> &group = m.way == Way::recipe ? of_recipe : alone;
    m.place = int64_t(group.size());
    group.push_back({.role = std::string(m.name.role),
                     .layer = layer,
                     .layers = c.layers,
                     .in = m.in,
                     .out = rows,
                     .weight = m.weight.data(),
                     .bias = m.bias.empty() ? nullptr : m.bias.data(),
                     .id = uint64_t(layer) * kLinearsPerBlock + uint64_t(m.name.number)});
  }
  if (!of_recipe.empty()) by_recipe_.emplace(e_.backend, &e_.engine, std::move(of_recipe), e_.options.recipe);
  if (!alone.empty()) weights_alone_.emplace(e_.backend, &e_.engine, std::move(alone), e_.bf16);
}

LinearGroup<float> *Linears::group_of(Way way) {
  return way == Way::recipe ? &*by_recipe_ : &*weights_alone_;
}

void Linears::forward(const StepContext &step, const float *x, int64_t rows, std::span<float *const> y) {
  for (const Way way : {Way::recipe, Way::weights_alone}) {
    std::vector<float *> out;
    for (size_t i = 0; i < members_.size(); ++i)
      if (members_[i].way == way) out.push_back(y[i]);
    if (!out.empty()) group_of(way)->forward(step, x, rows, out);
  }
  for (size_t i = 0; i < members_.size(); ++i) {
    Member &m = members_[i];
    if (m.way == Way::stored) run_stored(m, x, rows, y[i]);
    if (m.way == Way::fp8)
      m.fp8->run(source_of(m, x, rows), rows, m.bias, m.output, e_.options.threads, y[i]);
  }
}

std::vector<float> Linears::source_of(const Member &m, const float *x, int64_t rows) const {
  std::vector<float> rounded(x, x + rows * m.in);
  if (e_.options.recipe.source == FormatId::bf16)
    for (float &v : rounded) v = round_to_bf16(v);
  return rounded;
}

void Linears::run_stored(Member &m, const float *x, int64_t rows, float *y) {
  const Stored &s = m.stored;
  const std::vector<float> rounded = source_of(m, x, rows);
  QuantizeOptions q;
  q.global_scale = s.word;
  q.source = e_.options.recipe.source == FormatId::bf16 ? FormatId::bf16 : FormatId::f32;
  q.threads = e_.options.threads;
  const GemmOperand a =
      make_operand(*s.unit, nvfp4::Side::a, quantize({rounded.data(), rows, m.in}, *s.convention, q));
  GemmOptions options;
  options.out = m.output;
  options.accumulation = s.accumulation;
  options.threads = e_.options.threads;
  GemmInputs in;
  in.bias = m.bias;
  const GemmResult result = multiply(*s.unit, a, s.weight, options, in);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < m.out; ++j) y[r * m.out + j] = result.f32(r, j);
}

void Linears::forget_numbers() {
  for (Member &m : members_) {
    if (m.way == Way::recipe && by_recipe_->recipe(size_t(m.place)).fprop.a.format == OperandFormat::f32)
      continue;
    m.weight = std::vector<float>(); // = {} would keep the memory
  }
}

std::vector<HotChannels> Linears::hot_channels() const {
  std::vector<HotChannels> out(members_.size());
  for (size_t i = 0; i < members_.size(); ++i)
    if (members_[i].way == Way::recipe) out[i] = by_recipe_->hot_channels(size_t(members_[i].place));
  return out;
}

void Linears::set_hot_channels(const std::vector<HotChannels> &state) {
  for (size_t i = 0; i < members_.size(); ++i)
    if (members_[i].way == Way::recipe && !state.at(i).indices.empty())
      by_recipe_->set_hot_channels(size_t(members_[i].place), state[i]);
}

} // namespace nvfp4::models::pretrained
