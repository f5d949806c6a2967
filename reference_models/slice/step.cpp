// SPDX-License-Identifier: Apache-2.0
// The order of the trainer's step: micro-batches, gradient norm, AdamW, digest.
#include "reference_models/slice/step.hpp"
#include "golden/io/sha256.hpp"

#include <set>

namespace nvfp4::models {
namespace {

void set_micro_batch(Model<float> &model, const SliceStep &s, int64_t micro) {
  const int64_t tokens = s.batch * (s.sequence + 1), targets = s.batch * s.sequence;
  model.set_tokens(std::span(s.tokens).subspan(size_t(micro * tokens), size_t(tokens)),
                   std::span(s.weights).subspan(size_t(micro * targets), size_t(targets)));
}

} // namespace

double run_micro_batches(Model<float> &model, const SliceStep &s,
                         const std::function<void()> &after_forward) {
  double loss = 0, weight = 0;
  for (const float w : s.weights) weight += double(w);
  if (weight == 0) weight = 1;
  for (int64_t micro = 0; micro < s.accumulation; ++micro) {
    const StepContext context{s.seed, s.step - 1, micro, true};
    set_micro_batch(model, s, micro);
    model.forward(context);
    if (after_forward) after_forward();
    loss += model.loss_sum(1.0 / weight);
    model.backward(context);
  }
  return loss / weight;
}

StepResult run_step(Model<float> &model, Optimizer<float> &optimizer, const SliceStep &s,
                    std::span<const Tap> taps, bool gradients) {
  StepResult result;
  TapCollector collector(model, taps);
  result.loss = float(run_micro_batches(model, s, [&] { collector.after_forward(); }));
  result.tensors = collector.tensors();
  const Parameters<float> &parameters = model.parameters();
  std::vector<std::byte> all;
  for (const ParameterSpec &p : parameters.list()) {
    const std::vector<float> values = to_host(parameters.backend(), parameters.gradient(p.name), p.count());
    const auto bytes = std::as_bytes(std::span(values));
    all.insert(all.end(), bytes.begin(), bytes.end());
    if (gradients) result.tensors.push_back(io::Tensor::from("grad/" + p.name, p.shape, values));
  }
  result.gradients = io::sha256_hex(all);
  result.gradient_norm = optimizer.step(s.step, s.learning_rate);
  model.parameters_changed();
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
}

} // namespace nvfp4::models
