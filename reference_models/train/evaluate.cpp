// SPDX-License-Identifier: Apache-2.0
// Validation batches in order; HCP's channels stay as they are.
#include "nvfp4/reference_models/train/evaluate.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/reference_models/family/mixer_operators.hpp"
#include "nvfp4/reference_models/train/first_not_finite.hpp"

#include <cmath>
#include <set>

namespace nvfp4::models {

Evaluation evaluate(Model<float> &model, const DataSource &data, int64_t batches,
                    const std::function<void(double)> &progress, bool choose_hot_channels) {
  if (batches < 1) throw Error("expected at least 1 validation batch, got " + std::to_string(batches));
  check_vocabulary(data, model.config());
  std::vector<int32_t> tokens(size_t(model.batch() * (model.length() + 1)));
  std::vector<float> weights(size_t(model.batch() * model.length()));
  Evaluation out;
  out.not_finite = not_finite_parameter(model.parameters(), StepTensor::weight);
  double sum = 0, weight = 0;
  model.parameters_changed(); // training and evaluation share no quantized weights: their random words differ
  for (int64_t i = 0; i < batches; ++i) {
    data.validation_batch(i, model.batch(), model.length(), tokens, weights);
    model.set_tokens(tokens, weights);
    StepContext step;
    step.training = choose_hot_channels && i == 0;
    step.refreshes_amaxes = false;
    (void)model.finite(); // of what came before
    model.forward(step);
    const double loss = model.loss_sum(0);
    sum += loss;
    weight += model.total_weight();
    if (const bool operands = model.finite(); !out.not_finite && (!operands || !std::isfinite(loss))) {
      FiniteTracer tracer(model, -1, i);
      model.forward(step);
      (void)model.loss_sum(0);
      out.not_finite = tracer.first();
    }
    if (progress) progress(double(i + 1) / double(batches));
  }
  model.parameters_changed();
  out.loss = weight > 0 ? sum / weight : 0;
  return out;
}

void check_vocabulary(const DataSource &data, const ModelConfig &config) {
  if (data.vocabulary() > config.vocabulary)
    throw Error("the data has tokens up to " + std::to_string(data.vocabulary() - 1) +
                ", the model's vocabulary is " + std::to_string(config.vocabulary) +
                ": use a model with a larger one, as --set vocabulary=" + std::to_string(data.vocabulary()) +
                " makes");
}

constexpr const char *kGateInputs = "gate_inputs"; // a field of recipes, no operator's role

std::vector<SensitivityRecord> sensitivity(Model<float> &model, const std::string &device, int threads,
                                           const DataSource &data, int64_t batches,
                                           const std::function<void(double)> &progress) {
  const ModelConfig &config = model.config();
  const Recipe bf16 = load_recipe("bf16"), nvfp4 = load_recipe("nvfp4");
  std::vector<std::string> roles = {""}; // the baseline first
  std::map<std::string, int64_t> parameters;
  for (const ParameterSpec &p : model.parameters().list()) {
    if (!p.name.ends_with(".weight") || p.shape.size() != 2) continue;
    const auto [layer, role] = module_place(p.name);
    if (layer < 0) continue;
    if (parameters[role] == 0) roles.push_back(role);
    parameters[role] += p.count();
  }
  int64_t all = 0;
  for (const auto &[role, n] : parameters) all += n;
  for (std::string &role : mixer_operator_roles(*config.family)) roles.push_back(std::move(role));
  if (config.family->mixer != MixerKind::attention) roles.emplace_back(kGateInputs);
  std::vector<SensitivityRecord> out;
  double baseline = 0;
  for (size_t i = 0; i < roles.size(); ++i) {
    Recipe recipe = bf16;
    recipe.name = "bf16 with " + roles[i] + " in nvfp4";
    if (roles[i] == kGateInputs) {
      recipe.gate_inputs = nvfp4.linears.at(nvfp4.default_linear).fprop.a;
    } else if (!roles[i].empty()) {
      recipe.units = nvfp4.units;
      recipe.linears["one"] = nvfp4.linears.at(nvfp4.default_linear);
      RecipeRule rule;
      rule.roles = {roles[i]};
      rule.use = "one";
      (mixer_operator_or_null(roles[i]) != nullptr ? recipe.mixer_rules : recipe.rules).push_back(rule);
    }
    Session session = make_session(device, threads, config, recipe, model.batch(), model.length(), false);
    const int64_t bytes = model.parameters().total() * int64_t(sizeof(float));
    session.backend->copy(session.model->parameters().values(), model.parameters().values(), size_t(bytes));
    session.model->parameters_changed();
    const double loss = evaluate(*session.model, data, batches).loss;
    if (progress) progress(double(i + 1) / double(roles.size()));
    if (roles[i].empty()) {
      baseline = loss;
      continue;
    }
    const int64_t own = parameters[roles[i]];
    const double n = own > 0 ? double(own) : double(all); // no parameters: the gap itself
    out.push_back({roles[i], sensitivity_score(loss, baseline, n, double(all)), loss, baseline, own});
  }
  return out;
}

} // namespace nvfp4::models
