// SPDX-License-Identifier: Apache-2.0
// A group of one member whose memory changes with each call.
#include "nvfp4/reference_models/linear/linear_layer.hpp"

#include <exception>

namespace nvfp4::models {
namespace {

std::vector<LinearWeight<float>> member(const LayerPlace &p) {
  if (p.in < 1 || p.out < 1)
    throw Error("expected a linear layer of at least 1 x 1, got " + std::to_string(p.out) + " x " +
                std::to_string(p.in));
  return {{.role = p.role, .layer = p.layer, .layers = p.layers, .in = p.in, .out = p.out, .id = p.id}};
}

} // namespace

LinearLayer::LinearLayer(std::shared_ptr<LayerDevice> device, const LayerPlace &place, const Recipe &recipe)
    : device_(std::move(device)), place_(place),
      group_(*device_->backend, device_->engine.get(), member(place), recipe), hcp_(group_.recipe(0).hcp) {
  if (recipe.amax_period > 1)
    throw Error("recipe '" + recipe.name + "' holds amaxes between steps, which layers of another program do not keep: use "
                "amax_period 1");
  if (recipe.optimizer != OptimizerRecipe{})
    throw Error("recipe '" + recipe.name + "' says what an optimizer keeps, which is another program's here: drop optimizer");
  for (const int64_t step : recipe.phases())
    if (recipe.resolve(place.role, place.layer, place.layers, step).hcp != hcp_)
      throw Error("recipe '" + recipe.name + "' changes the Hot-Channel Patch of " + place.role + " at step " +
                  std::to_string(step) + ", which layers of another program cannot: their channels are chosen by one rule. Give "
                  "all linears of its rules with 'from' the same hcp");
  const std::lock_guard lock(device_->turn);
  if (device_->engine && !device_->copies) device_->copies.emplace(*device_->engine);
}

int64_t LinearLayer::channels(Product product) const {
  if (product == Product::wgrad || (product == Product::dgrad && !hcp_.dgrad)) return 0;
  return hcp_.channels(product == Product::fprop ? place_.in : place_.out);
}

bool LinearLayer::choice_is_due(int64_t step) const { return models::choice_is_due(hcp_, step); }

/// The device is the caller's, and the group has its memory, channels and reduction.
class LinearLayer::Call {
public:
  Call(LinearLayer &layer, const StepContext &step, const LayerInput &input, const LayerGradients &gradients,
       const Reduce &reduce)
      : lock_(layer.device_->turn), device_(*layer.device_), group_(layer.group_) {
    group_.at_step(step.step);
    LinearWeight<float> memory;
    memory.weight = input.weight;
    memory.bias = input.bias;
    memory.weight_grad = gradients.weight;
    memory.bias_grad = gradients.bias;
    group_.set_memory(0, memory);
    group_.reduce_amaxes(reduce);
    if (device_.copies) group_.share_data(*device_.copies, reduce ? 0 : input.contents);
  }
  ~Call() {
    group_.reduce_amaxes({});
    if (device_.copies && std::uncaught_exceptions() > failures_) device_.copies->clear();
  }
  Call(const Call &) = delete;
  Call &operator=(const Call &) = delete;

private:
  std::lock_guard<std::mutex> lock_;
  LayerDevice &device_;
  int failures_ = std::uncaught_exceptions();
  LinearGroup<float> &group_;
};

namespace {

/// Channels are given, never chosen on the way.
StepContext without_choice(StepContext step) {
  step.training = false;
  return step;
}

HotChannels given(const LayerInput &input) {
  return {.indices = {input.channels.begin(), input.channels.end()}};
}

} // namespace

std::vector<float> LinearLayer::scores(Product product, const StepContext &step, const float *data,
                                       int64_t rows, const float *weight, const Reduce &reduce) {
  const Call call(*this, step, {.weight = weight}, {}, reduce);
  return group_.scores(0, product, step, data, rows);
}

std::vector<int32_t> LinearLayer::select(Product product, std::span<const float> scores) const {
  return group_.select(0, product, scores);
}

void LinearLayer::forward(const StepContext &step, const LayerInput &input, float *y, const Reduce &reduce) {
  const Call call(*this, step, input, {}, reduce);
  group_.set_hot_channels(0, given(input), Product::fprop);
  float *const out[] = {y};
  group_.forward(without_choice(step), input.x, input.rows, out);
}

void LinearLayer::backward(const StepContext &step, const LayerInput &input, const float *dy,
                           const LayerGradients &gradients, const Reduce &reduce) {
  const Call call(*this, step, input, gradients, reduce);
  group_.set_hot_channels(0, given(input), Product::dgrad);
  const float *const from[] = {dy};
  group_.backward(without_choice(step), input.x, input.rows, from, gradients.x);
}

} // namespace nvfp4::models
