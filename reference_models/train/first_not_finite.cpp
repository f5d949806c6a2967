// SPDX-License-Identifier: Apache-2.0
// One tensor after the other to the host.
#include "nvfp4/reference_models/train/first_not_finite.hpp"

namespace nvfp4::models {
namespace {

const float *slab(const Parameters<float> &parameters, StepTensor what, const std::string &name) {
  switch (what) {
  case StepTensor::weight_grad: return parameters.gradient(name);
  case StepTensor::first_moment: return parameters.first_moment(name);
  case StepTensor::second_moment: return parameters.second_moment(name);
  default: return parameters.value(name);
  }
}

} // namespace

std::optional<NotFinite> not_finite_parameter(const Parameters<float> &parameters, StepTensor what) {
  for (const ParameterSpec &p : parameters.list())
    if (auto found = find_not_finite(to_host(parameters.backend(), slab(parameters, what, p.name), p.count()),
                                     p.name, what, p.shape))
      return found;
  return std::nullopt;
}

FiniteTracer::FiniteTracer(Model<float> &model, int64_t step, int64_t micro_batch)
    : model_(model), step_(step), micro_batch_(micro_batch),
      first_(not_finite_parameter(model.parameters(), StepTensor::weight)) {
  if (first_) first_->step = step;
  model_.tracer = [this](const std::string &module, StepTensor what, std::vector<int64_t> shape,
                         const float *data) { look(module, what, std::move(shape), data); };
}

FiniteTracer::~FiniteTracer() { model_.tracer = nullptr; }

void FiniteTracer::look(const std::string &tensor, StepTensor what, std::vector<int64_t> shape,
                        const float *data) {
  if (first_ || data == nullptr) return;
  int64_t n = 1;
  for (const int64_t length : shape) n *= length;
  first_ = find_not_finite(to_host(model_.parameters().backend(), data, n), tensor, what, std::move(shape));
  if (!first_) return;
  first_->step = step_;
  first_->micro_batch = micro_batch_;
}

} // namespace nvfp4::models
