// SPDX-License-Identifier: Apache-2.0
// The first pass of gated slot attention product by product, where a recipe has mixer rules for it: the
// scores of the slots, Hk q, and their backward pass. Decays and pairs of a sub-chunk's own tokens are FP32
// as always; the second pass is gla_products.hpp.
#pragma once
#include "nvfp4/reference_models/kernels/slot_products.hpp"
#include "nvfp4/reference_models/model/chunk_products.hpp"

namespace nvfp4::models {

class SlotKeyProducts : ChunkProducts {
public:
  /// (batch, length, heads, key or slots).
  struct Inputs {
    const float *q, *k, *g, *s;
  };
  struct Gradients {
    const float *scores;
    float *q, *k, *g, *s;
  };

  /// shape: SlotShape::first(). Scratch slots from `slot` on are used; saved: shape.saved() elements, kept
  /// from forward to backward.
  SlotKeyProducts(const BlockContext<float> &context, const GlaShape<float> &shape, Scratch<float> &scratch,
                  size_t slot, float *saved);

  void forward(const StepContext &step, const Inputs &in, float *scores, const MixerHooks<float> &hooks);
  void backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                const MixerHooks<float> &hooks);
  static constexpr size_t kScratchSlots = 18;

private:
  enum Slot : size_t {
    kQ,
    kK,
    kKt,
    kDq,
    kDk,
    kDkt, // (n, key) or turned a head
    kLeaves,
    kReads,
    kQueries,
    kKeys,
    kKeysTurned,
    kLeafGrads,
    kKeyGrads, // (n, slots) or turned
    kProducts,
    kBlock,
    kA, // (n, n)
    kState,
    kDState // (slots, key)
  };
  enum Operator : size_t { kQk, kScores, kStateRead, kStateUpdate };

  /// q, k, what the chunk leaves, and the state.
  void read_factors(const ChunkPlace &here, const GlaPlace<float> &of, const Inputs &in,
                    const float *grad_scores) const;
  /// Of the sub-chunk at token s: products with earlier tokens in kBlock, their keys turned.
  void read_sub_factors(const ChunkPlace &here, const GlaPlace<float> &of, int64_t s, const Inputs &in,
                        const float *grad_scores) const;

  GlaShape<float> s_;
  float *saved_;
  Array<float> from_states_, from_tokens_; ///< results of products that the gates' gradients read again
};

} // namespace nvfp4::models
