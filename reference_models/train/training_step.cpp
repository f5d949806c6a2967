// SPDX-License-Identifier: Apache-2.0
// The order of a step.
#include "nvfp4/reference_models/train/training_step.hpp"

namespace nvfp4::models {
namespace {

/// The part of `values` that belongs to micro-batch `micro` when each has `count`.
template <class V> auto part(V &values, int64_t micro, int64_t count) {
  return std::span(values).subspan(size_t(micro * count), size_t(count));
}

int64_t tokens_each(const StepInput &s) { return s.batch * (s.sequence + 1); }
int64_t targets_each(const StepInput &s) { return s.batch * s.sequence; }

} // namespace

void read_micro_batches(const DataSource &data, StepInput &s) {
  s.tokens.resize(size_t(s.accumulation * tokens_each(s)));
  s.weights.resize(size_t(s.targets()));
  for (int64_t micro = 0; micro < s.accumulation; ++micro)
    data.training_batch(s.seed, (s.step - 1) * s.accumulation + micro, s.batch, s.sequence,
                        part(s.tokens, micro, tokens_each(s)), part(s.weights, micro, targets_each(s)));
}

void set_micro_batch(Model<float> &model, const StepInput &s, int64_t micro) {
  model.set_tokens(part(s.tokens, micro, tokens_each(s)), part(s.weights, micro, targets_each(s)));
}

double accumulate_gradients(Model<float> &model, const StepInput &s, const StepCallbacks &call) {
  double loss = 0, weight = 0;
  for (const float w : s.weights) weight += double(w);
  if (weight == 0) weight = 1;
  for (int64_t micro = 0; micro < s.accumulation; ++micro) {
    const StepContext context{s.seed, s.step - 1, micro, true};
    set_micro_batch(model, s, micro);
    if (call.before_forward) call.before_forward(micro);
    model.forward(context);
    if (call.after_forward) call.after_forward(micro);
    loss += model.loss_sum(1.0 / weight);
    model.backward(context);
    if (call.after_backward) call.after_backward(micro);
  }
  return loss / weight;
}

StepOutcome training_step(Model<float> &model, Optimizer<float> &optimizer, const StepInput &s,
                          const StepCallbacks &call) {
  StepOutcome out;
  out.loss = float(accumulate_gradients(model, s, call));
  if (call.before_update) call.before_update();
  out.gradient_norm = optimizer.step(s.step, s.learning_rate);
  model.parameters_changed();
  return out;
}

} // namespace nvfp4::models
