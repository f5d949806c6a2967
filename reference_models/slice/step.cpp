// SPDX-License-Identifier: Apache-2.0
// The trainer's step with taps and the digest of its gradients.
#include "nvfp4/reference_models/slice/step.hpp"
#include "nvfp4/golden/io/sha256.hpp"

#include <set>

namespace nvfp4::models {

StepResult run_step(Model<float> &model, Optimizer<float> &optimizer, const SliceStep &s,
                    std::span<const Tap> taps, bool gradients, const std::function<void(double)> &progress) {
  StepResult result;
  TapCollector collector(model, taps);
  StepCallbacks calls;
  constexpr double kSteps = 0.9; // of the time, forward a third of it
  calls.after_forward = [&](int64_t micro_batch) {
    collector.after_forward();
    if (progress) progress(kSteps * (double(micro_batch) + 1.0 / 3) / double(s.accumulation));
  };
  calls.before_update = [&] {
    if (progress) progress(kSteps);
    result.tensors = collector.tensors();
    const Parameters<float> &parameters = model.parameters();
    io::Sha256 digest;
    for (const ParameterSpec &p : parameters.list()) {
      const std::vector<float> values = to_host(parameters.backend(), parameters.gradient(p.name), p.count());
      digest.add(std::as_bytes(std::span(values)));
      if (gradients) result.tensors.push_back(io::Tensor::from("grad/" + p.name, p.shape, values));
    }
    result.gradients = digest.hex();
  };
  const StepOutcome outcome = training_step(model, optimizer, s, calls);
  result.loss = outcome.loss;
  result.gradient_norm = outcome.gradient_norm;
  result.not_finite = outcome.not_finite;
  result.digest = optimizer.digest(s.step);
  return result;
}

void complete_hot_channels(Model<float> &model, const Recipe &recipe, const SliceStep &s,
                           const std::map<std::string, HotChannels> &state) {
  std::set<int64_t> starts; // a choice falls due at each
  bool backward = false;
  for (const auto &[name, linear] : recipe.linears) {
    if (linear.hcp.enabled) starts.insert(linear.hcp.start);
    backward = backward || (linear.hcp.enabled && linear.hcp.dgrad);
  }
  if (starts.empty()) return;
  model.at_step(s.step - 1); // a patch may begin with this step
  const std::map<std::string, float> held = model.held_amaxes();
  set_micro_batch(model, s, 0);
  for (const int64_t start : starts) {
    model.forward({s.seed, start, 0, true});
    if (!backward) continue;
    (void)model.loss(1.0);
    model.backward({s.seed, start, 0, true});
  }
  const Parameters<float> &parameters = model.parameters();
  if (backward) parameters.backend().zero(parameters.gradients(), size_t(parameters.total()) * sizeof(float));
  std::map<std::string, HotChannels> fitting;
  for (const auto &[name, fresh] : model.hot_channels()) {
    const auto at = state.find(name);
    if (at != state.end() && at->second.indices.size() == fresh.indices.size()) fitting.insert(*at);
  }
  model.set_hot_channels(fitting);
  // the passes quantized weights and held amaxes as their own steps do
  model.set_held_amaxes(held);
  model.parameters_changed();
}

} // namespace nvfp4::models
