// SPDX-License-Identifier: Apache-2.0
// AdamW over a model's slabs: gradient norm, clipping, one step, and the digest by which two runs are
// compared.
#pragma once
#include "nvfp4/reference_models/model/parameters.hpp"

namespace nvfp4::models {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
  double clip = 1.0; ///< largest gradient norm, 0: off
};

template <class T> class Optimizer {
public:
  Optimizer(Parameters<T> &parameters, const AdamWOptions &options);

  /// Step `step` (from 1) with the gradients there are; zeroes them. Returns the gradient norm before
  /// clipping.
  double step(int64_t step, float learning_rate);
  /// Of values, moments and the counter, as 16 hexadecimal digits.
  [[nodiscard]] std::string digest(int64_t step);

private:
  [[nodiscard]] double gradient_norm();

  Parameters<T> *parameters_;
  AdamWOptions options_;
  Array<double> squares_;
  Array<uint64_t> digests_;
};

} // namespace nvfp4::models
