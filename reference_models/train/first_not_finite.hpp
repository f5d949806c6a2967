// SPDX-License-Identifier: Apache-2.0
// Which tensor of a step was the first that was not finite. A step is the same every time, so one that went
// wrong is repeated with its tensors in view; steps that did not pay nothing for it.
#pragma once
#include "nvfp4/reference_models/model/model.hpp"

namespace nvfp4::models {

/// Looks at what a model makes while it lives; it uses the model's tracer. Weights are looked at when it is
/// made.
class FiniteTracer {
public:
  /// step, micro_batch: of the report; -1 outside of training.
  explicit FiniteTracer(Model<float> &model, int64_t step = -1, int64_t micro_batch = -1);
  ~FiniteTracer();
  FiniteTracer(const FiniteTracer &) = delete;
  FiniteTracer &operator=(const FiniteTracer &) = delete;

  void set_micro_batch(int64_t micro_batch) { micro_batch_ = micro_batch; }
  /// Looks at an array of the device as well.
  void look(const std::string &tensor, StepTensor what, std::vector<int64_t> shape, const float *data);
  [[nodiscard]] const std::optional<NotFinite> &first() const { return first_; }

private:
  Model<float> &model_;
  int64_t step_, micro_batch_;
  std::optional<NotFinite> first_;
};

/// The first parameter whose values (weight, updated_weight), gradients or moments are not finite.
[[nodiscard]] std::optional<NotFinite> not_finite_parameter(const Parameters<float> &parameters,
                                                            StepTensor what);

} // namespace nvfp4::models
