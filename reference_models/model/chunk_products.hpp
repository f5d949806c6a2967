// SPDX-License-Identifier: Apache-2.0
// What mixers share that run product by product, chunk after chunk: the matrices of one chunk of all heads of
// a sequence, dense one head after the other, their products under the recipe's operators, and how these are
// shown.
#pragma once
#include "nvfp4/reference_models/kernels/attention_products.hpp"
#include "nvfp4/reference_models/model/operator_products.hpp"

namespace nvfp4::models {

/// Where a product of a step stands.
struct ChunkPlace {
  const StepContext *step;
  const MixerHooks<float> *hooks;
  int64_t sequence, chunk;
  int64_t row, n;    ///< the chunk's first token among those of all sequences, and how many it has
  OperatorPart part; ///< for who looks

  [[nodiscard]] ChunkPlace sub_chunk(int64_t number) const {
    ChunkPlace p = *this;
    p.part.sub_chunk = number;
    return p;
  }
};

class ChunkProducts {
protected:
  static constexpr int64_t kChunk = 64, kSub = 16; ///< of all of these mixers' kernels
  using Matrices = std::vector<OperatorMatrices>;

  /// Operators by their places in `roles`, which stays; scratch slots from `slot` on are used.
  ChunkProducts(const BlockContext<float> &context, std::span<const char *const> roles, int64_t heads,
                Scratch<float> &scratch, size_t slot);

  [[nodiscard]] int64_t chunk_count() const { return (c_.length + kChunk - 1) / kChunk; }
  [[nodiscard]] ChunkPlace place(const StepContext &step, const MixerHooks<float> &hooks, int64_t sequence,
                                 int64_t chunk) const;
  void reserve(size_t slot, int64_t n) { scratch_->reserve(first_ + slot, n); }
  [[nodiscard]] float *at(size_t slot) const { return (*scratch_)[first_ + slot]; }
  void zero(float *x, int64_t n) const { c_.backend.zero(x, size_t(n) * sizeof(float)); }

  /// Of all heads, or of the one that stands for all.
  [[nodiscard]] Matrices matrices(const ChunkPlace &place, int64_t rows, int64_t in, int64_t out,
                                  const float *x, const float *w, const float *dy, bool shared = false) const;
  /// A chunk of (batch, length, heads, width) as (heads, n, width), or (heads, width, n) where turned; and
  /// back.
  void gather(const ChunkPlace &place, const float *from, int64_t width, float *to,
              bool turned = false) const;
  void scatter(const ChunkPlace &place, const float *from, int64_t width, float *to,
               bool turned = false) const;
  /// (rows, cols) of every head, `stride` apart, to dense (cols, rows).
  void turn(const float *from, int64_t rows, int64_t cols, int64_t stride, float *to) const;

  /// The product of each of `of`, `stride` apart from `to` on, shown to who wants to see it.
  void product(const ChunkPlace &place, size_t op, Product product, const Matrices &of, float *to,
               int64_t stride, bool add = false) const;
  /// The same without being shown.
  void hidden_product(const ChunkPlace &place, size_t op, Product product, const Matrices &of, float *to,
                      int64_t stride, bool add = false) const;
  void observe(const ChunkPlace &place, size_t op, const Matrices &of) const;
  /// What lies between products: (heads, rows, cols).
  void look(const ChunkPlace &place, const char *module, StepTensor what, const float *data, int64_t rows,
            int64_t cols) const;

  BlockContext<float> c_;

private:
  std::span<const char *const> roles_;
  int64_t heads_;
  Scratch<float> *scratch_;
  size_t first_;
  std::vector<OperatorProducts> operators_;
};

} // namespace nvfp4::models
