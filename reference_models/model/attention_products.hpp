// SPDX-License-Identifier: Apache-2.0
// Softmax attention of one layer product by product, where a recipe has mixer rules for it: each product runs
// on the operands that the recipe names, everything between them in FP32 as always. One sequence at a time,
// so that memory grows with heads * length^2 and not with the batch.
#pragma once
#include "nvfp4/reference_models/kernels/attention_products.hpp"
#include "nvfp4/reference_models/model/operator_products.hpp"

namespace nvfp4::models {

class AttentionProducts {
public:
  /// What the mixer computes on, (batch, length, heads or kv_heads, dim).
  struct Inputs {
    const float *q, *k, *v;
  };
  struct Gradients {
    const float *o;
    float *q, *k, *v;
  };

  /// Scratch slots from `slot` on are used.
  AttentionProducts(const BlockContext<float> &context, const AttentionShape<float> &shape,
                    Scratch<float> &scratch, size_t slot);

  void forward(const StepContext &step, const Inputs &in, float *o, const MixerHooks<float> &hooks);
  /// Computes the probabilities again, from the same words.
  void backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                const MixerHooks<float> &hooks);

private:
  enum Slot : size_t { kQ, kK, kVt, kDo, kP, kDs, kHeads, kDk, kDvt, kSlots };
  [[nodiscard]] float *at(Slot slot) const { return (*scratch_)[first_ + slot]; }
  void split(const float *from, int64_t heads, float *to) const;
  void merge(const float *from, int64_t heads, float *to) const;
  void turn(const float *v, float *to) const;
  [[nodiscard]] std::vector<OperatorMatrices> matrices(bool pv, int64_t sequence) const;
  void run_each(const StepContext &step, const OperatorProducts &op, Product product,
                const std::vector<OperatorMatrices> &of, float *to, int64_t elements) const;
  void add_by_group(const StepContext &step, const OperatorProducts &op,
                    const std::vector<OperatorMatrices> &of, float *to) const;
  void probabilities(const StepContext &step, const Inputs &in, int64_t sequence,
                     const MixerHooks<float> &hooks, bool forward) const;
  void look(const MixerHooks<float> &hooks, const char *module, StepTensor what, const float *squares) const;
  void show(const MixerHooks<float> &hooks, const char *role, StepTensor what, const float *data,
            int64_t heads, int64_t rows, int64_t cols) const;

  BlockContext<float> c_;
  AttentionShape<float> s_;
  Scratch<float> *scratch_;
  size_t first_;
  OperatorProducts qk_, pv_;
};

} // namespace nvfp4::models
