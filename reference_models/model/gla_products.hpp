// SPDX-License-Identifier: Apache-2.0
// Gated linear attention of one layer product by product, where a recipe has mixer rules for it: chunk after
// chunk, the heads of a sequence together. Products run on the operands that the recipe names; decays, scores
// of sub-chunks with themselves and sums are FP32 as always.
#pragma once
#include "nvfp4/reference_models/kernels/attention_products.hpp"
#include "nvfp4/reference_models/kernels/gla_products.hpp"
#include "nvfp4/reference_models/model/operator_products.hpp"

namespace nvfp4::models {

class GlaProducts {
public:
  /// (batch, length, heads, key or value).
  struct Inputs {
    const float *q, *k, *v, *g;
  };
  struct Gradients {
    const float *o;
    float *q, *k, *v, *g;
  };

  /// Scratch slots from `slot` on are used; saved: shape.saved() elements, kept from forward to backward.
  GlaProducts(const BlockContext<float> &context, const GlaShape<float> &shape, Scratch<float> &scratch,
              size_t slot, float *saved);

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
  enum Operator : size_t { kQk, kAv, kStateRead, kStateUpdate, kOperators };
  using Matrices = std::vector<OperatorMatrices>;

  [[nodiscard]] float *at(Slot slot) const { return (*scratch_)[first_ + slot]; }
  void gather(const float *from, int64_t width, const GlaPlace<float> &place, float *to, bool turned) const;
  void scatter(const float *from, int64_t width, const GlaPlace<float> &place, float *to, bool turned) const;
  void turn_state(const float *from, int64_t rows, int64_t cols, int64_t stride, float *to) const;
  /// Matrices of all heads, dense one after the other in slots.
  [[nodiscard]] Matrices matrices(const GlaPlace<float> &place, int64_t sub, int64_t rows, int64_t in,
                                  int64_t out, const float *x, const float *w, const float *dy) const;
  void run(const StepContext &step, Operator op, Product product, const Matrices &of, float *to,
           int64_t stride, bool add = false) const;
  void look(const MixerHooks<float> &hooks, const char *module, StepTensor what, const float *data,
            int64_t rows, int64_t cols) const;
  /// Shows what forward read (x, w) or backward got (dy), and what the product made, to who wants to see it.
  void show(Operator op, OperatorPart part, StepTensor what, const float *data, int64_t rows, int64_t cols,
            const MixerHooks<float> &hooks, int64_t stride = 0) const;
  void observe(Operator op, int64_t sequence, const Matrices &of, const MixerHooks<float> &hooks) const;

  BlockContext<float> c_;
  GlaShape<float> s_;
  Scratch<float> *scratch_;
  size_t first_;
  float *saved_;
  std::vector<OperatorProducts> operators_; ///< by Operator
};

} // namespace nvfp4::models
