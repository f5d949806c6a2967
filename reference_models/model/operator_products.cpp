// SPDX-License-Identifier: Apache-2.0
// Operators inside mixers by role.
#include "nvfp4/reference_models/model/operator_products.hpp"

#include "nvfp4/reference_models/family/mixer_operators.hpp"

#include <algorithm>

namespace nvfp4::models {

OperatorProducts make_operator_products(const BlockContext<float> &c, const std::string &role) {
  const MixerOperator &row = mixer_operator(c.config.family->mixer, role);
  return {c.backend, c.engine, c.recipe.resolve(role, c.layer, c.config.layers),
          uint64_t(c.layer) * kLinearsPerBlock + uint64_t(row.number)};
}

void observe_operator(const BlockContext<float> &c, const OperatorProducts &op, const char *role,
                      int64_t sequence, std::span<const OperatorMatrices> of,
                      const MixerHooks<float> &hooks) {
  for (const OperatorMatrices &m : of) {
    LinearWeight<float> w;
    w.role = role;
    w.layer = c.layer;
    w.layers = c.config.layers;
    w.in = m.in;
    w.out = m.out;
    w.weight = m.w;
    w.id = op.id();
    hooks.observer({&w, w.role, w.layer, m.rows, m.x, m.dy, &op.recipe(), m.stream, m.w_stream, sequence});
  }
}

void show_operator(const BlockContext<float> &c, const char *role, StepTensor what, OperatorPart part,
                   const float *data, int64_t heads, int64_t rows, int64_t cols, int64_t stride,
                   const MixerHooks<float> &hooks) {
  if (!hooks.matrix) return;
  for (int64_t h = 0; h < heads; ++h) hooks.matrix(c.layer, role, what, part, data + h * stride, rows, cols);
}

bool has_mixer_rules(const Recipe &recipe, const ModelFamily &family, int64_t layer, int64_t layers) {
  const std::vector<std::string> roles = mixer_operator_roles(family);
  return std::any_of(roles.begin(), roles.end(),
                     [&](const std::string &role) { return recipe.has_mixer_rule(role, layer, layers); });
}

bool has_mixer_rules(const Recipe &recipe, const ModelConfig &config) {
  for (int64_t layer = 0; layer < config.layers; ++layer)
    if (has_mixer_rules(recipe, *config.family, layer, config.layers)) return true;
  return false;
}

} // namespace nvfp4::models
