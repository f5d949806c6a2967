// SPDX-License-Identifier: Apache-2.0
// The gated delta rule of one layer product by product, where a recipe has mixer rules for it: chunk after
// chunk, the heads of a sequence together. Products run on the operands that the recipe names; decays, the
// triangular system of a chunk with its gradient, and sums are FP32 as always.
#pragma once
#include "nvfp4/reference_models/kernels/delta_products.hpp"
#include "nvfp4/reference_models/model/chunk_products.hpp"

namespace nvfp4::models {

class DeltaRuleProducts : ChunkProducts {
public:
  /// (batch, length, heads, key or value), g and beta (batch, length, heads).
  struct Inputs {
    const float *q, *k, *v, *g, *beta;
  };
  struct Gradients {
    const float *o;
    float *q, *k, *v, *g, *beta;
  };

  /// Scratch slots from `slot` on are used; saved: shape.saved() elements, kept from forward to backward.
  DeltaRuleProducts(const BlockContext<float> &context, const DeltaShape<float> &shape,
                    Scratch<float> &scratch, size_t slot, float *saved);

  void forward(const StepContext &step, const Inputs &in, float *o, const MixerHooks<float> &hooks);
  void backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                const MixerHooks<float> &hooks);

private:
  enum Slot : size_t {
    kQ,
    kK,
    kReads,
    kRecalls,
    kLeaves,
    kDq,
    kDk,
    kRecallGrads,
    kLeafGrads, // (n, key) or turned a head
    kUt,
    kO,
    kR,
    kDut,
    kDv, // (n, value) or turned
    kQk,
    kKk, // (n, n)
    kSt,
    kDs,
    kDst // (key, value) or turned
  };
  enum Operator : size_t { kOfQk, kOfKk, kOfAv, kOfRead, kOfUpdate, kOfRecall };

  /// Products of a chunk of all heads.
  struct Chunk {
    ChunkPlace here;
    DeltaPlace<float> place;
    int64_t n, state; ///< tokens, and where the first head's state stands in `saved`
    Matrices qk, kk, av, read, update, recall;
  };

  [[nodiscard]] Chunk chunk_of(const ChunkPlace &here) const;
  /// What both passes read: q, k, the state, and what reads and updates it.
  void read_factors(const Inputs &in, const Chunk &c) const;

  DeltaShape<float> s_;
  float *saved_;
};

} // namespace nvfp4::models
