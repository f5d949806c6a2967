// SPDX-License-Identifier: Apache-2.0
// A model's parameters from its family's row and its sizes: names, shapes, order.
#include "nvfp4/reference_models/family/config.hpp"

namespace nvfp4::models {
namespace {

int64_t length(Dim dim, const ModelConfig &c) {
  switch (dim) {
  case Dim::none: break;
  case Dim::one: return 1;
  case Dim::hidden: return c.hidden;
  case Dim::key: return c.key_dim;
  case Dim::kv: return c.key_head() * c.kv_heads;
  case Dim::value: return c.value_dim;
  case Dim::heads: return c.heads;
  case Dim::key_head: return c.key_head();
  case Dim::value_head: return c.value_head();
  case Dim::gate_rank: return c.gate_rank;
  case Dim::taps: return c.convolution;
  case Dim::slots: return c.heads * c.slots;
  case Dim::convolved: return c.value_dim + 2 * c.state;
  case Dim::scanned: return 2 * c.value_dim + 2 * c.state + c.heads;
  }
  return 0;
}

} // namespace

int64_t ParameterSpec::count() const {
  int64_t n = 1;
  for (const int64_t each : shape) n *= each;
  return n;
}

std::string block_path(const ModelConfig &c, int64_t layer) {
  return std::string(c.family->modules.blocks) + "." + std::to_string(layer) + ".";
}
std::string block_path(int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }
std::string mixer_path(const ModelConfig &c, int64_t layer) {
  return block_path(c, layer) + std::string(c.family->modules.mixer) + ".";
}
std::string linear_path(const ModelConfig &c, int64_t layer, std::string_view role) {
  if (role == kSharedLinears.back().role) return std::string(role);
  return role.starts_with("attn.") ? mixer_path(c, layer) + std::string(role.substr(5))
                                   : block_path(c, layer) + std::string(role);
}
std::string mixer_norm(const ModelConfig &c, int64_t layer) {
  return block_path(c, layer) + std::string(c.family->modules.mixer_norm) + ".weight";
}
std::string mlp_norm(const ModelConfig &c, int64_t layer) {
  return block_path(c, layer) + std::string(c.family->modules.mlp_norm) + ".weight";
}
std::string final_norm(const ModelConfig &c) { return std::string(c.family->modules.final_norm) + ".weight"; }
std::string embedding(const ModelConfig &c) { return std::string(c.family->modules.embedding) + ".weight"; }

std::vector<ParameterSpec> parameter_list(const ModelConfig &c) {
  std::vector<ParameterSpec> out = {{embedding(c), {c.vocabulary, c.hidden}, Init::normal, true}};
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const std::string mlp = block_path(c, layer) + "mlp.";
    out.push_back({mixer_norm(c, layer), {c.hidden}, Init::ones, false});
    for (const MixerParameter &p : c.family->parameters) {
      if (p.when != nullptr && !(c.*p.when)) continue;
      std::vector<int64_t> shape;
      for (const Dim dim : p.shape)
        if (dim != Dim::none) shape.push_back(length(dim, c));
      out.push_back({mixer_path(c, layer) + std::string(p.module) + std::string(p.part), std::move(shape),
                     p.init, p.weight_decay});
    }
    if (!c.family->has_mlp()) continue;
    out.push_back({mlp_norm(c, layer), {c.hidden}, Init::ones, false});
    out.push_back({mlp + "gate_proj.weight", {c.intermediate, c.hidden}, Init::normal, true});
    out.push_back({mlp + "up_proj.weight", {c.intermediate, c.hidden}, Init::normal, true});
    out.push_back({mlp + "down_proj.weight", {c.hidden, c.intermediate}, Init::normal, true});
  }
  out.push_back({final_norm(c), {c.hidden}, Init::ones, false});
  if (!c.tie) out.push_back({"lm_head.weight", {c.vocabulary, c.hidden}, Init::normal, true});
  return out;
}

int64_t parameter_count(const ModelConfig &config) {
  int64_t n = 0;
  for (const ParameterSpec &p : parameter_list(config)) n += p.count();
  return n;
}

} // namespace nvfp4::models
