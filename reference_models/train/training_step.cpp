// SPDX-License-Identifier: Apache-2.0
// The order of a step.
#include "nvfp4/reference_models/train/training_step.hpp"
#include "nvfp4/reference_models/train/first_not_finite.hpp"

#include <cmath>

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
  model.at_step(s.step - 1);
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

std::optional<NotFinite> first_not_finite(Model<float> &model, const StepInput &s) {
  const Parameters<float> &parameters = model.parameters();
  parameters.backend().zero(parameters.gradients(), size_t(parameters.total()) * sizeof(float));
  FiniteTracer tracer(model, s.step);
  StepCallbacks calls;
  calls.before_forward = [&](int64_t micro) { tracer.set_micro_batch(micro); };
  calls.after_backward = [&](int64_t) { // of norms, convolutions, biases and the embedding
    for (const ParameterSpec &p : parameters.list())
      tracer.look(p.name, StepTensor::weight_grad, p.shape, parameters.gradient(p.name));
  };
  (void)accumulate_gradients(model, s, calls);
  (void)model.finite();
  return tracer.first();
}

StepOutcome training_step(Model<float> &model, Optimizer<float> &optimizer, const StepInput &s,
                          const StepCallbacks &call) {
  StepOutcome out;
  const bool sick_before = !optimizer.finite();
  (void)model.finite(); // of passes that were no step's
  out.loss = float(accumulate_gradients(model, s, call));
  optimizer.keep_gradients();
  const double norm = optimizer.gradient_norm();
  const bool sick_operands = !model.finite();
  if (sick_before || sick_operands || !std::isfinite(out.loss) || !std::isfinite(norm))
    out.not_finite = first_not_finite(model, s);
  if (call.before_update) call.before_update();
  out.gradient_norm = optimizer.step(s.step, s.learning_rate, norm);
  model.parameters_changed();
  if (optimizer.finite()) return out;
  for (const StepTensor what :
       {StepTensor::first_moment, StepTensor::second_moment, StepTensor::updated_weight}) {
    if (out.not_finite) break;
    out.not_finite = not_finite_parameter(model.parameters(), what);
    if (out.not_finite) out.not_finite->step = s.step;
  }
  return out;
}

} // namespace nvfp4::models
