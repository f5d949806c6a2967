// SPDX-License-Identifier: Apache-2.0
// Mamba-2's scan of one layer product by product, where a recipe has mixer rules for it: chunk after chunk,
// the heads of a sequence together, which share B and C and so their products. Products run on the operands
// that the recipe names; decays and sums are FP32 as always.
#pragma once
#include "nvfp4/reference_models/kernels/scan_products.hpp"
#include "nvfp4/reference_models/model/chunk_products.hpp"

namespace nvfp4::models {

class ScanRuleProducts : ChunkProducts {
public:
  /// c, b and x in rows as ScanShape says; dt and g (batch, length, heads), skip: D (heads).
  struct Inputs {
    const float *c, *b, *x, *dt, *g, *skip;
  };
  /// y (batch, length, heads, value), the rest as ScanGradients has them.
  struct Gradients {
    const float *y;
    float *c, *b, *x, *dt, *g, *skip_terms;
  };

  /// Scratch slots from `slot` on are used; saved: shape.saved() elements, kept from forward to backward.
  ScanRuleProducts(const BlockContext<float> &context, const ScanShape<float> &shape, Scratch<float> &scratch,
                   size_t slot, float *saved);

  void forward(const StepContext &step, const Inputs &in, float *y, const MixerHooks<float> &hooks);
  void backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                const MixerHooks<float> &hooks);

private:
  enum Slot : size_t {
    kC,
    kB,
    kDc,
    kDb, // (n, state), of all heads
    kReads,
    kLeaves,
    kReadGrads,
    kLeafGrads,
    kLeafGradsTurned, // (n, state) or turned a head
    kUt,
    kO,
    kDut, // (n, value) or turned a head
    kProducts,
    kProductGrads, // (n, n), of all heads
    kA,
    kDa, // (n, n) a head
    kSt,
    kDs,
    kDst // (state, value) or turned a head
  };
  enum Operator : size_t { kOfQk, kOfAv, kOfRead, kOfUpdate };

  /// What both passes read.
  void read_factors(const ChunkPlace &here, const ScanPlace<float> &of, const Inputs &in) const;
  /// A chunk of rows of B or C to or from (n, state).
  void rows_in(const ChunkPlace &here, const float *from, float *to) const;
  void rows_out(const ChunkPlace &here, const float *from, float *to) const;

  ScanShape<float> s_;
  float *saved_;
};

} // namespace nvfp4::models
