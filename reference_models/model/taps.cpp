// SPDX-License-Identifier: Apache-2.0
// Names of taps, and where a model has them.
#include "nvfp4/reference_models/model/taps.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/family/mixer_operators.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace nvfp4::models {
namespace {

[[noreturn]] void unknown(const std::string &name, const ModelConfig &config) {
  std::string roles;
  for (const std::string &role : linear_roles(*config.family))
    roles.append(roles.empty() ? "" : ", ").append(role);
  std::string inside;
  for (const std::string &role : mixer_operator_roles(*config.family))
    inside.append(inside.empty() ? "" : ", ").append(role);
  throw Error(
      "unknown tap " + io::in_quotes(name) +
      "; expected ROLE.input, ROLE.output, ROLE.output_grad or ROLE.input_grad, with layers.0. to layers." +
      std::to_string(config.layers - 1) + ". before it for one layer; ROLE is one of " + roles +
      (inside.empty()
           ? ""
           : ", or of those inside the mixer, which have .weight and .weight_grad too: " + inside));
}

/// Takes "layers.N." off the front; -1 where there is none.
int64_t take_layer(std::string_view &rest) {
  constexpr std::string_view kLayers = "layers.";
  if (!rest.starts_with(kLayers)) return -1;
  int64_t layer = -1;
  const auto [end, code] = std::from_chars(rest.data() + kLayers.size(), rest.data() + rest.size(), layer);
  if (code != std::errc() || layer < 0 || end == rest.data() + rest.size() || *end != '.') return -1;
  rest.remove_prefix(size_t(end - rest.data()) + 1);
  return layer;
}

Tap::Kind kind_of(StepTensor what) {
  switch (what) {
  case StepTensor::input: return Tap::Kind::input;
  case StepTensor::weight: return Tap::Kind::weight;
  case StepTensor::output: return Tap::Kind::output;
  case StepTensor::output_grad: return Tap::Kind::output_grad;
  case StepTensor::input_grad: return Tap::Kind::input_grad;
  default: return Tap::Kind::weight_grad;
  }
}

} // namespace

std::string Tap::name(const ModelConfig &config) const {
  const std::string module = layer >= config.layers ? role : "layers." + std::to_string(layer) + "." + role;
  return module + "." + std::string(to_string(kind));
}

std::vector<Tap> parse_taps(std::span<const std::string> names, const ModelConfig &config) {
  std::vector<std::string> roles = linear_roles(*config.family);
  for (std::string &role : mixer_operator_roles(*config.family)) roles.push_back(std::move(role));
  std::vector<std::pair<std::array<int64_t, 4>, Tap>> found; // with the place in the step
  for (const std::string &name : names) {
    std::string_view rest = name;
    for (const std::string_view outer : {"model.", "backbone."})
      if (rest.starts_with(outer)) rest.remove_prefix(outer.size());
    const int64_t layer = take_layer(rest);
    const size_t dot = rest.rfind('.');
    if (dot == std::string_view::npos) unknown(name, config);
    std::string role(rest.substr(0, dot));
    for (const std::string_view mixer : {"self_attn.", "mixer."})
      if (role.starts_with(mixer)) role.replace(0, mixer.size(), "attn.");
    const auto kind = find_enum<Tap::Kind>(rest.substr(dot + 1));
    const auto at = std::find(roles.begin(), roles.end(), role);
    const bool head = role == "lm_head", weight = kind == Tap::Kind::weight || kind == Tap::Kind::weight_grad;
    if (!kind || at == roles.end() || layer >= config.layers || (head && layer >= 0) ||
        (weight && mixer_operator_or_null(role) == nullptr))
      unknown(name, config);
    const int64_t first = head ? config.layers : std::max<int64_t>(layer, 0);
    const int64_t last = head || layer >= 0 ? first : config.layers - 1;
    for (int64_t l = first; l <= last; ++l) {
      const Tap tap{*kind, l, role};
      const bool backward = tap.kind >= Tap::Kind::output_grad;
      found.push_back({{backward, backward ? -l : l, at - roles.begin(), int64_t(*kind)}, tap});
    }
  }
  std::sort(found.begin(), found.end(), [](const auto &x, const auto &y) { return x.first < y.first; });
  std::vector<Tap> taps;
  for (const auto &[place, tap] : found)
    if (taps.empty() || taps.back() != tap) taps.push_back(tap);
  return taps;
}

std::vector<Tap> operator_taps(const ModelConfig &config, bool backward) {
  std::vector<std::string> names;
  for (const std::string &role : mixer_operator_roles(*config.family))
    for (const Tap::Kind kind : enumerators<Tap::Kind>())
      if (backward || kind < Tap::Kind::output_grad)
        names.push_back(role + "." + std::string(to_string(kind)));
  return parse_taps(names, config);
}

std::string part_suffix(OperatorPart part) {
  std::string text;
  if (part.chunk >= 0) text += ".chunk" + std::to_string(part.chunk);
  if (part.sub_chunk >= 0) text += ".sub" + std::to_string(part.sub_chunk);
  return text;
}

std::string without_part(std::string_view name) {
  for (const std::string_view what : {".sub", ".chunk"}) {
    const size_t dot = name.rfind('.');
    if (dot == std::string_view::npos || !name.substr(dot).starts_with(what)) continue;
    const std::string_view number = name.substr(dot + what.size());
    if (!number.empty() && number.find_first_not_of("0123456789") == std::string_view::npos)
      name.remove_suffix(name.size() - dot);
  }
  return std::string(name);
}

TapCollector::TapCollector(Model<float> &model, std::span<const Tap> taps) : model_(model) {
  for (const Tap &tap : taps) kept_.push_back({tap});
  if (kept_.empty()) return;
  model_.output_observer = [this](int64_t layer, std::string_view role, const float *output) {
    keep(Tap::Kind::output, layer, role, output, model_.batch() * model_.length(), model_.config().hidden);
  };
  model_.observer = [this](const LinearObservation<float> &o) {
    keep(Tap::Kind::input, o.layer, o.role, o.input, o.rows, o.weight->in);
    keep(Tap::Kind::output_grad, o.layer, o.role, o.output_grad, o.rows, o.weight->out);
  };
  if (std::any_of(kept_.begin(), kept_.end(),
                  [](const Kept &k) { return mixer_operator_or_null(k.tap.role) != nullptr; }))
    model_.observe_matrices(
        [this](int64_t layer, std::string_view role, StepTensor what, OperatorPart part, const float *data,
               int64_t rows, int64_t cols) { keep(kind_of(what), layer, role, data, rows, cols, part); });
  model_.input_grad_observer = [this](const LinearWeight<float> &w, const float *data) {
    keep(Tap::Kind::input_grad, w.layer, w.role, data, model_.batch() * model_.length(), w.in);
  };
}

TapCollector::~TapCollector() {
  model_.output_observer = nullptr;
  model_.observer = nullptr;
  model_.input_grad_observer = nullptr;
  model_.observe_matrices({});
}

void TapCollector::keep(Tap::Kind kind, int64_t layer, std::string_view role, const float *data, int64_t rows,
                        int64_t width, OperatorPart part) {
  for (Kept &k : kept_) {
    if (k.tap.kind != kind || k.tap.layer != layer || k.tap.role != role) continue;
    const std::vector<float> values = to_host(model_.parameters().backend(), data, rows * width);
    Matrices &m = k.parts[part];
    m.values.insert(m.values.end(), values.begin(), values.end());
    m.rows = mixer_operator_or_null(role) != nullptr ? rows : model_.length();
    m.width = width;
  }
}

void TapCollector::after_forward() {
  if (kept_.empty()) return;
  const ModelConfig &config = model_.config();
  std::map<std::string, const Activation<float> *> by_name;
  const std::vector<Activation<float>> all = model_.activations();
  for (const Activation<float> &a : all) by_name[a.name] = &a;
  for (const Kept &k : kept_) {
    if (k.tap.kind != Tap::Kind::output) continue;
    if (k.tap.role == "lm_head") {
      keep(k.tap.kind, k.tap.layer, k.tap.role, model_.logits(), model_.batch() * model_.length(),
           config.vocabulary);
      continue;
    }
    std::string module = linear_path(config, k.tap.layer, k.tap.role);
    if (module.ends_with("gk_proj.1"))
      module.resize(module.size() - 2); // the low-rank pair's output has the pair's name
    const auto at = by_name.find(module);
    if (at != by_name.end())
      keep(k.tap.kind, k.tap.layer, k.tap.role, at->second->data, model_.batch() * model_.length(),
           at->second->shape.back());
  }
}

std::vector<io::Tensor> TapCollector::tensors(bool all) const {
  std::vector<io::Tensor> out;
  for (const Kept &k : kept_) {
    const std::string name = k.tap.name(model_.config());
    if (k.parts.empty() && all)
      throw Error("tap " + name + ": the model made no such tensor with sequences of " +
                  std::to_string(model_.length()) + " tokens under this recipe");
    const auto add = [&](const auto &entry) {
      const auto &[part, m] = entry;
      const int64_t rows = int64_t(m.values.size()) / m.width;
      out.push_back(
          io::Tensor::from("tap/" + name + part_suffix(part), {rows / m.rows, m.rows, m.width}, m.values));
    };
    if (k.tap.kind >= Tap::Kind::output_grad)
      std::for_each(k.parts.rbegin(), k.parts.rend(), add);
    else
      std::for_each(k.parts.begin(), k.parts.end(), add);
  }
  return out;
}

} // namespace nvfp4::models
