// SPDX-License-Identifier: Apache-2.0
// The products of an operator inside a mixer (family/mixer_operators.hpp) on many matrices at once, each with
// the operands that a recipe names: quantize, multiply, round, as for linear layers without the Hot-Channel
// Patch. Every matrix is a tensor by itself: it has its own global amax and its own random words.
#pragma once
#include "nvfp4/reference_models/linear/linear.hpp"

namespace nvfp4::models {

/// The matrices of one head of a sequence, dense and row-major, in device memory.
struct OperatorMatrices {
  int64_t rows = 0, in = 0, out = 0;
  const float *x = nullptr;  // (rows, in)
  const float *w = nullptr;  // (out, in); heads may share one
  const float *dy = nullptr; // (rows, out), for dgrad and wgrad
  uint64_t stream = 0;       ///< number of x and dy among the heads of all sequences
  uint64_t w_stream = 0;     ///< of w among those of the heads that have one
};

/// The key of one use of one matrix at one step, as random_key with 2^40 (1 + stream) added to the seed. All
/// operands of a mixer are data: each takes its own micro-batch.
[[nodiscard]] RandomKey operator_key(uint64_t run_seed, uint64_t id, Product product, RandomUse use,
                                     uint64_t stream, int64_t step, int64_t micro_batch);

class OperatorProducts {
public:
  /// engine may be null where the recipe is f32 throughout. id: 16 block + number.
  OperatorProducts(Backend<float> &backend, OperandEngine *engine, LinearRecipe recipe, uint64_t id);

  /// to[i] is fprop's y (rows, out), dgrad's dx (rows, in) or wgrad's dw (out, in). Where it adds, to what is
  /// there: in f32 the chains go on, otherwise fma(alpha, acc, y), or with output bf16 y + bf16(alpha acc).
  /// No two of `to` are the same.
  void run(const StepContext &step, Product product, std::span<const OperatorMatrices> of,
           std::span<float *const> to, bool adds) const;

  [[nodiscard]] const LinearRecipe &recipe() const { return recipe_; }
  [[nodiscard]] uint64_t id() const { return id_; }

private:
  Backend<float> *backend_;
  OperandEngine *engine_;
  LinearRecipe recipe_;
  uint64_t id_;
};

} // namespace nvfp4::models
