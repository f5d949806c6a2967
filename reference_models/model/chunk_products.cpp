// SPDX-License-Identifier: Apache-2.0
// Copies of heads, and products with their hooks.
#include "nvfp4/reference_models/model/chunk_products.hpp"

#include <algorithm>

namespace nvfp4::models {

ChunkProducts::ChunkProducts(const BlockContext<float> &context, std::span<const char *const> roles,
                             int64_t heads, Scratch<float> &scratch, size_t slot)
    : c_(context), roles_(roles), heads_(heads), scratch_(&scratch), first_(slot) {
  for (const char *role : roles_) operators_.push_back(make_operator_products(context, role));
}

ChunkPlace ChunkProducts::place(const StepContext &step, const MixerHooks<float> &hooks, int64_t sequence,
                                int64_t chunk) const {
  const int64_t first = chunk * kChunk;
  return {
      &step,      &hooks, sequence, chunk, sequence * c_.length + first, std::min(kChunk, c_.length - first),
      {chunk, -1}};
}

ChunkProducts::Matrices ChunkProducts::matrices(const ChunkPlace &place, int64_t rows, int64_t in,
                                                int64_t out, const float *x, const float *w, const float *dy,
                                                bool shared) const {
  Matrices all;
  for (int64_t h = 0; h < (shared ? 1 : heads_); ++h) {
    const int64_t chunk = (place.sequence * heads_ + h) * chunk_count() + place.chunk;
    const auto stream = uint64_t(chunk * (kChunk / kSub) + std::max<int64_t>(place.part.sub_chunk, 0));
    all.push_back({rows, in, out, x + h * rows * in, w + h * out * in,
                   dy == nullptr ? nullptr : dy + h * rows * out, stream, stream});
  }
  return all;
}

void ChunkProducts::gather(const ChunkPlace &place, const float *from, int64_t width, float *to,
                           bool turned) const {
  const HeadStrides here =
      turned ? HeadStrides{place.n * width, 1, place.n} : HeadStrides{place.n * width, width, 1};
  c_.backend.run(MoveHeads<float>{
      heads_, place.n, width, from + place.row * heads_ * width, {width, heads_ * width, 1}, to, here});
}
void ChunkProducts::scatter(const ChunkPlace &place, const float *from, int64_t width, float *to,
                            bool turned) const {
  const HeadStrides here =
      turned ? HeadStrides{place.n * width, 1, place.n} : HeadStrides{place.n * width, width, 1};
  c_.backend.run(MoveHeads<float>{
      heads_, place.n, width, from, here, to + place.row * heads_ * width, {width, heads_ * width, 1}});
}
void ChunkProducts::turn(const float *from, int64_t rows, int64_t cols, int64_t stride, float *to) const {
  c_.backend.run(MoveHeads<float>{heads_, rows, cols, from, {stride, cols, 1}, to, {rows * cols, 1, rows}});
}

void ChunkProducts::hidden_product(const ChunkPlace &place, size_t op, Product product, const Matrices &of,
                                   float *to, int64_t stride, bool add) const {
  std::vector<float *> out;
  for (size_t h = 0; h < of.size(); ++h) out.push_back(to + int64_t(h) * stride);
  operators_[op].run(*place.step, product, of, out, add);
}

void ChunkProducts::product(const ChunkPlace &place, size_t op, Product product, const Matrices &of,
                            float *to, int64_t stride, bool add) const {
  hidden_product(place, op, product, of, to, stride, add);
  const OperatorMatrices &m = of.front();
  const auto show = [&](StepTensor what, const float *data, int64_t rows, int64_t cols, int64_t step) {
    show_operator(c_, roles_[op], what, place.part, data, int64_t(of.size()), rows, cols, step, *place.hooks);
  };
  switch (product) {
  case Product::fprop:
    show(StepTensor::input, m.x, m.rows, m.in, m.rows * m.in);
    show(StepTensor::weight, m.w, m.out, m.in, m.out * m.in);
    return show(StepTensor::output, to, m.rows, m.out, stride);
  case Product::dgrad:
    show(StepTensor::output_grad, m.dy, m.rows, m.out, m.rows * m.out);
    return show(StepTensor::input_grad, to, m.rows, m.in, stride);
  case Product::wgrad: return show(StepTensor::weight_grad, to, m.out, m.in, stride);
  }
}

void ChunkProducts::observe(const ChunkPlace &place, size_t op, const Matrices &of) const {
  if (place.hooks->observer)
    observe_operator(c_, operators_[op], roles_[op], place.sequence, of, *place.hooks);
}

void ChunkProducts::look(const ChunkPlace &place, const char *module, StepTensor what, const float *data,
                         int64_t rows, int64_t cols) const {
  place.hooks->trace(mixer_path(c_.config, c_.layer) + module, what, {heads_, rows, cols}, data);
  place.hooks->watch->add(data, heads_ * rows * cols);
  place.hooks->watch->flush();
}

} // namespace nvfp4::models
