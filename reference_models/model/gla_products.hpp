// SPDX-License-Identifier: Apache-2.0
// Gated linear attention of one layer product by product, where a recipe has mixer rules for it: chunk after
// chunk, the heads of a sequence together. Products run on the operands that the recipe names; decays, scores
// of sub-chunks with themselves and sums are FP32 as always. The second pass of gated slot attention is one.
#pragma once
#include "nvfp4/reference_models/kernels/slot_products.hpp"
#include "nvfp4/reference_models/model/chunk_products.hpp"

namespace nvfp4::models {

class GlaProducts : ChunkProducts {
public:
  /// (batch, length, heads, key or value).
  struct Inputs {
    const float *q, *k, *v, *g;
  };
  struct Gradients {
    const float *o;
    float *q, *k, *v, *g;
  };
  /// How the gates' gradients are made: GlaGateGradients, or from what passes them.
  enum class Gates { sums, passed };
  /// Roles of its operators, and names of what lies between them, with what the mixer calls them.
  struct Names {
    const char *roles[4]; ///< scores, o from scores, o from the state, the state
    const char *scores, *outputs;
  };
  static const Names kGla, kSlots; ///< slots: of the second pass

  /// Scratch slots from `slot` on are used; saved: shape.saved() elements, kept from forward to backward.
  GlaProducts(const BlockContext<float> &context, const Names &names, Gates gates,
              const GlaShape<float> &shape, Scratch<float> &scratch, size_t slot, float *saved);

  void forward(const StepContext &step, const Inputs &in, float *o, const MixerHooks<float> &hooks);
  void backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                const MixerHooks<float> &hooks);

private:
  enum Slot : size_t {
    kReads,
    kLeaves,
    kVt,
    kSt,
    kO,
    kA,
    kQueries,
    kKeys,
    kBlock,
    kDa,
    kDs,
    kDst,
    kDvt,
    kX,
    kY
  };
  enum Operator : size_t { kQk, kAv, kStateRead, kStateUpdate };

  const Names &names_;
  Gates gates_;
  GlaShape<float> s_;
  float *saved_;
};

} // namespace nvfp4::models
