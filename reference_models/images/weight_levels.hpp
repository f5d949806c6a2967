// SPDX-License-Identifier: Apache-2.0
// The weight that a layer multiplies with: its parameter, or under "weights": "int4-tensor" that rounded to 15 levels,
// -7 to 7 times one scale a tensor. Gradients go to the parameter as if it were not rounded (straight-through).
#pragma once
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

namespace nvfp4::models {

/// The scale of a tensor with that largest magnitude: (amax + 1e-8) / 7 in FP32 (shivnathtathe/vgg4bit-and-
/// simpleresnet4bit main.py, quantize_symmetric, of arXiv 2603.13931; the paper's text has no 1e-8).
[[nodiscard]] inline float fifteen_levels_scale(float amax) { return (amax + 1e-8f) / 7.0f; }

/// The recipe for layers whose weights are made beforehand.
[[nodiscard]] inline Recipe without_levels(Recipe recipe) {
  for (auto &[name, linear] : recipe.linears) linear.weights = WeightLevels::none;
  return recipe;
}

template <class T> class LeveledWeight {
public:
  LeveledWeight(Backend<T> &backend, const T *parameter, int64_t n, WeightLevels levels)
      : backend_(&backend), parameter_(parameter), n_(n) {
    if (levels == WeightLevels::none) return;
    rounded_.reset(backend, n);
    partial_.reset(backend, chunks(n));
    update();
  }
  /// What to multiply with; the same memory always.
  [[nodiscard]] const T *data() const { return rounded_.size() > 0 ? rounded_.data() : parameter_; }
  /// The parameter has changed.
  void update() {
    if (rounded_.size() == 0) return;
    backend_->run(LargestMagnitudes<T>{n_, parameter_, partial_.data()});
    T amax = 0;
    for (const T part : to_host(*backend_, partial_.data(), partial_.size())) amax = numerics::max(amax, part);
    backend_->run(FifteenLevels<T>{n_, T(fifteen_levels_scale(float(amax))), parameter_, rounded_.data()});
  }

private:
  Backend<T> *backend_;
  const T *parameter_;
  int64_t n_;
  Array<T> rounded_, partial_;
};

} // namespace nvfp4::models
