// SPDX-License-Identifier: Apache-2.0
// AdamW over a model's slabs: gradient norm, clipping, one step, and the digest by which two runs are
// compared.
#pragma once
#include "nvfp4/reference_models/backend/finite_watch.hpp"
#include "nvfp4/reference_models/model/parameters.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

namespace nvfp4::models {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
  double clip = 1.0; ///< largest gradient norm, 0: off
};

template <class T> class Optimizer {
public:
  /// `kept`: of the recipe that the model trains under.
  Optimizer(Parameters<T> &parameters, const AdamWOptions &options, const OptimizerRecipe &kept);

  /// Rounds gradients to what the recipe keeps of them; once a step, before gradient_norm().
  void keep_gradients();
  /// Step `step` (from 1) with the gradients there are; zeroes them, and rounds moments and weights to what the recipe keeps.
  /// Returns the gradient norm before clipping.
  double step(int64_t step, float learning_rate) { return this->step(step, learning_rate, gradient_norm()); }
  /// The same where the norm is known.
  double step(int64_t step, float learning_rate, double norm);
  /// Of all gradients, in FP64; not finite if and only if a gradient is not.
  [[nodiscard]] double gradient_norm();
  /// Whether values and moments are. Looks only at what the last step may have changed in this.
  [[nodiscard]] bool finite();
  /// Of values, moments and the counter, as 16 hexadecimal digits.
  [[nodiscard]] std::string digest(int64_t step);

private:
  enum class Which { all, decaying }; ///< parameters
  void keep(StateFormat format, Which which, T *slab);

  Parameters<T> *parameters_;
  AdamWOptions options_;
  OptimizerRecipe kept_;
  Array<T> largest_; ///< of chunks of one tensor, and its scale behind them
  Array<double> squares_;
  Array<uint64_t> digests_;
  FiniteWatch<T> watch_;
  /// Finite when last asked, and no step since then can have made others: m of finite gradients is finite,
  /// and v unless a square overflows.
  bool moments_known_ = false, values_known_ = false;
};

} // namespace nvfp4::models
