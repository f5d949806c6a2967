// SPDX-License-Identifier: Apache-2.0
// The gated delta rule of one layer product by product, where a recipe has mixer rules for it: chunk after
// chunk, the heads of a sequence together. Products run on the operands that the recipe names; decays, the
// triangular system of a chunk with its gradient, and sums are FP32 as always.
#pragma once
#include "nvfp4/reference_models/kernels/attention_products.hpp"
#include "nvfp4/reference_models/kernels/delta_products.hpp"
#include "nvfp4/reference_models/model/operator_products.hpp"

namespace nvfp4::models {

class DeltaRuleProducts {
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
  using Matrices = std::vector<OperatorMatrices>;

  /// Products of a chunk of all heads: x, w and dy dense in slots, one head after the other.
  struct Chunk {
    DeltaPlace<float> place;
    int64_t n, state; ///< tokens, and where the first head's state stands in `saved`
    Matrices qk, kk, av, read, update, recall;
  };

  [[nodiscard]] float *at(Slot slot) const { return (*scratch_)[first_ + slot]; }
  [[nodiscard]] Chunk chunk_of(int64_t sequence, int64_t chunk) const;
  [[nodiscard]] Matrices matrices(const DeltaPlace<float> &place, int64_t rows, int64_t in, int64_t out,
                                  Slot x, Slot w, Slot dy) const;
  /// A chunk of (batch, length, heads, width) to or from (heads, n, width).
  void gather(const float *from, int64_t width, const Chunk &c, Slot to) const;
  void scatter(Slot from, int64_t width, const Chunk &c, float *to) const;
  /// (rows, cols) of every head, `stride` apart, to dense (cols, rows).
  void turn(const float *from, int64_t rows, int64_t cols, int64_t stride, Slot to) const;
  /// What both passes read: q, k, the state, and what reads and updates it.
  void read_factors(const Inputs &in, const Chunk &c) const;
  void run(const StepContext &step, Operator op, Product product, const Matrices &of, float *to,
           int64_t stride, bool add = false) const;
  /// After a product of `of`: what it read and made, to who wants to see it.
  void show(const MixerHooks<float> &hooks, const Chunk &c, Operator op, Product product, const Matrices &of,
            const float *made, int64_t stride) const;
  void look(const MixerHooks<float> &hooks, const char *module, StepTensor what, Slot data, int64_t rows,
            int64_t cols) const;

  BlockContext<float> c_;
  DeltaShape<float> s_;
  Scratch<float> *scratch_;
  size_t first_;
  float *saved_;
  std::vector<OperatorProducts> operators_; ///< by Operator
};

} // namespace nvfp4::models
