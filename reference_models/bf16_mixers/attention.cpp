// SPDX-License-Identifier: Apache-2.0
// Forward: blocks of 128 keys in increasing order under a running maximum. Backward: blocks of 64 queries and
// 64 keys, every gradient one chain per output. Plain loops over blocks; the products are dot.hpp's.
#include "nvfp4/reference_models/bf16_mixers/attention.hpp"

#include "nvfp4/reference_models/bf16_mixers/attention_math.hpp"
#include "nvfp4/reference_models/bf16_mixers/dot.hpp"

#include "nvfp4/emulator/numerics/reduce.hpp"

#include <algorithm>
#include <string>

namespace nvfp4::models::tensorcore {
namespace {

constexpr int64_t kQueries = 64; ///< rows of one task; the bits do not know it

int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

/// Rows of one head: q-like tensors have `heads` of them in a row, k-like ones kv_heads.
Bf16View head_rows(std::span<const uint16_t> x, const AttentionShape &s, int64_t heads, int64_t sequence,
                   int64_t head) {
  return {x.data() + (sequence * s.length * heads + head) * s.dim, heads * s.dim};
}
Bf16View transposed(const Bf16View &x) { return {x.data, x.k_stride, x.row_stride}; }

/// Rows [first, first + size) of each block, as the right operand.
std::vector<DotOperand> right_blocks(const Bf16View &x, int64_t length, int64_t dim, int64_t size,
                                     bool transpose, std::optional<Isa> isa) {
  std::vector<DotOperand> all(static_cast<size_t>(blocks(length, size)), DotOperand(isa));
  for (int64_t b = 0; b < int64_t(all.size()); ++b) {
    const int64_t first = b * size, n = std::min(size, length - first);
    if (transpose)
      all[size_t(b)].right(transposed(x.at(first, 0)), dim, n);
    else
      all[size_t(b)].right(x.at(first, 0), n, dim);
  }
  return all;
}

/// The running state of one query row.
struct SoftmaxRow {
  float scaled_max = -infinity(); ///< largest logit so far times log2 e, rounded
  float largest = -infinity();    ///< largest product q k so far
  float sums[8] = {};             ///< of weights of the keys = 0, 1, ... 7 modulo 8

  /// Turns products s[0, keys) into weights under the new maximum; returns the factor for what was summed
  /// before. `visible` keys count, the others weigh 0.
  float step(float *s, int64_t keys, int64_t visible, float factor) {
    for (int64_t j = 0; j < visible; ++j) largest = max_or_nan(largest, s[j]);
    const float before = scaled_max;
    scaled_max = largest * factor;
    const float rescale = exp2_negative(before - scaled_max);
    for (int64_t j = 0; j < keys; ++j)
      s[j] = j < visible ? exp2_negative(numerics::fma(s[j], factor, -scaled_max)) : 0.0f;
    for (int64_t j = 0; j < kForwardKeys; ++j) {
      const float weight = j < keys ? s[j] : 0.0f;
      sums[j % 8] = j < 8 ? numerics::fma(sums[j], rescale, weight) : sums[j % 8] + weight;
    }
    return rescale;
  }

  [[nodiscard]] float sum() const {
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  }
};

struct ForwardTask {
  const AttentionShape &shape;
  const std::vector<DotOperand> &keys, &values; ///< blocks of 128; values transposed
  Bf16View q;
  int64_t sequence, head;
  AttentionOutput &out;
  std::optional<Isa> isa;

  void operator()(int64_t first) const {
    const int64_t n = std::min(kQueries, shape.length - first), dim = shape.dim;
    const float factor = shape.logit_scale() * kLog2E;
    DotOperand queries(isa), weights(isa);
    queries.left(q.at(first, 0), n, dim);
    std::vector<float> s(size_t(n * kForwardKeys)), o(size_t(n * dim));
    std::vector<uint16_t> p(s.size());
    SoftmaxRow rows[kQueries];
    const int64_t last = shape.causal ? first / kForwardKeys : blocks(shape.length, kForwardKeys) - 1;
    for (int64_t b = 0; b <= last; ++b) {
      const int64_t from = b * kForwardKeys, count = std::min<int64_t>(kForwardKeys, shape.length - from);
      std::fill(s.begin(), s.end(), 0.0f);
      accumulate(queries, keys[size_t(b)], s.data(), kForwardKeys);
      for (int64_t r = 0; r < n; ++r) {
        const int64_t visible = shape.causal ? std::min(count, first + r + 1 - from) : count;
        float *const row = s.data() + r * kForwardKeys;
        const float rescale = rows[r].step(row, count, visible, factor);
        for (int64_t d = 0; d < dim; ++d) o[size_t(r * dim + d)] *= rescale;
        for (int64_t j = 0; j < count; ++j) p[size_t(r * kForwardKeys + j)] = bf16_word(row[j]);
      }
      weights.left({p.data(), kForwardKeys}, n, count);
      accumulate(weights, values[size_t(b)], o.data(), dim);
    }
    for (int64_t r = 0; r < n; ++r) {
      const float sum = rows[r].sum(), inverse = 1.0f / sum;
      const int64_t at = ((sequence * shape.length + first + r) * shape.heads + head) * dim;
      for (int64_t d = 0; d < dim; ++d) {
        const float x = finished(o[size_t(r * dim + d)] * inverse);
        out.o32[size_t(at + d)] = x;
        out.o[size_t(at + d)] = bf16_word(x);
      }
      out.lse2[size_t((sequence * shape.heads + head) * shape.length + first + r)] =
          finished(numerics::fma(numerics::log(sum), kLog2E, rows[r].scaled_max));
    }
  }
};

/// Everything that one key head and its query heads contribute to, in the order of the definition: query
/// heads, then query blocks, then key blocks, all increasing.
struct BackwardTask {
  const AttentionShape &shape;
  std::span<const uint16_t> q, k, v, grad_o;
  std::span<const float> lse2;
  AttentionGradients &out;
  std::optional<Isa> isa;

  void operator()(int64_t sequence, int64_t kv_head) const {
    const int64_t dim = shape.dim, length = shape.length, count = blocks(length, kBackwardBlock);
    const Bf16View ks = head_rows(k, shape, shape.kv_heads, sequence, kv_head),
                   vs = head_rows(v, shape, shape.kv_heads, sequence, kv_head);
    const auto keys = right_blocks(ks, length, dim, kBackwardBlock, false, isa),
               values = right_blocks(vs, length, dim, kBackwardBlock, false, isa),
               keys_t = right_blocks(ks, length, dim, kBackwardBlock, true, isa);
    std::vector<float> grad_k(size_t(length * dim)), grad_v(grad_k.size());
    for (int64_t h = kv_head * shape.group(); h < (kv_head + 1) * shape.group(); ++h)
      for (int64_t b = 0; b < count; ++b)
        query_block(sequence, h, b * kBackwardBlock, keys, values, keys_t, grad_k, grad_v);
    const float scale = shape.logit_scale();
    for (int64_t j = 0; j < length; ++j) {
      const int64_t at = ((sequence * length + j) * shape.kv_heads + kv_head) * dim;
      for (int64_t d = 0; d < dim; ++d) {
        out.k[size_t(at + d)] = finished(grad_k[size_t(j * dim + d)] * scale);
        out.v[size_t(at + d)] = finished(grad_v[size_t(j * dim + d)]);
      }
    }
  }

  void query_block(int64_t sequence, int64_t head, int64_t first, const std::vector<DotOperand> &keys,
                   const std::vector<DotOperand> &values, const std::vector<DotOperand> &keys_t,
                   std::vector<float> &grad_k, std::vector<float> &grad_v) const {
    constexpr int64_t size = kBackwardBlock;
    const int64_t dim = shape.dim, n = std::min(size, shape.length - first);
    const float scale = shape.logit_scale(), factor = scale * kLog2E;
    const Bf16View qs = head_rows(q, shape, shape.heads, sequence, head).at(first, 0),
                   gs = head_rows(grad_o, shape, shape.heads, sequence, head).at(first, 0);
    const int64_t row0 = (sequence * shape.heads + head) * shape.length + first;
    DotOperand queries(isa), grads(isa), queries_t(isa), grads_t(isa), left(isa);
    queries.left(qs, n, dim);
    grads.left(gs, n, dim);
    queries_t.right(transposed(qs), dim, n);
    grads_t.right(transposed(gs), dim, n);
    std::vector<float> s(size_t(size * size)), ds(s.size()), grad_q(size_t(n * dim));
    std::vector<uint16_t> p_words(s.size()), ds_words(s.size());
    const int64_t last = shape.causal ? first / size : int64_t(keys.size()) - 1;
    for (int64_t b = 0; b <= last; ++b) {
      const int64_t from = b * size, count = std::min(size, shape.length - from);
      std::fill(s.begin(), s.end(), 0.0f);
      std::fill(ds.begin(), ds.end(), 0.0f);
      accumulate(queries, keys[size_t(b)], s.data(), size);
      accumulate(grads, values[size_t(b)], ds.data(), size);
      for (int64_t r = 0; r < n; ++r)
        for (int64_t j = 0; j < count; ++j) {
          const size_t at = size_t(r * size + j);
          const bool visible = !shape.causal || from + j <= first + r;
          const float p =
              visible ? exp2_negative(numerics::fma(s[at], factor, -lse2[size_t(row0 + r)])) : 0.0f;
          p_words[at] = bf16_word(p);
          ds_words[at] = bf16_word(p * (ds[at] - out.d[size_t(row0 + r)]));
        }
      left.left({p_words.data(), 1, size}, count, n);
      accumulate(left, grads_t, grad_v.data() + from * dim, dim);
      left.left({ds_words.data(), 1, size}, count, n);
      accumulate(left, queries_t, grad_k.data() + from * dim, dim);
      left.left({ds_words.data(), size}, n, count);
      accumulate(left, keys_t[size_t(b)], grad_q.data(), dim);
    }
    for (int64_t r = 0; r < n; ++r)
      for (int64_t d = 0; d < dim; ++d)
        out.q[size_t(((sequence * shape.length + first + r) * shape.heads + head) * dim + d)] =
            finished(grad_q[size_t(r * dim + d)] * scale);
  }
};

/// sum over dim of grad_o * o: 32 chains of fused multiply-adds over every 32nd element, then a butterfly.
float row_product(const uint16_t *x, const uint16_t *y, int64_t dim) {
  float parts[numerics::kLanes] = {};
  for (int64_t d = 0; d < dim; ++d) {
    float &part = parts[d % numerics::kLanes];
    part = numerics::fma(bf16_value(x[d]), bf16_value(y[d]), part);
  }
  return numerics::butterfly_sum(parts);
}

void check_size(const char *name, size_t got, int64_t want) {
  if (int64_t(got) != want)
    throw Error(std::string("attention: ") + name + " must have " + std::to_string(want) + " elements, got " +
                std::to_string(got));
}

} // namespace

float AttentionShape::logit_scale() const {
  return scale != 0.0f ? scale : 1.0f / numerics::sqrt(float(dim));
}

void check_shape(const char *caller, const AttentionShape &s) {
  constexpr int64_t limit = int64_t{1} << 31;
  const auto fits = [](int64_t x) { return x > 0 && x < limit; };
  if (!fits(s.batch) || !fits(s.length) || !fits(s.heads) || !fits(s.kv_heads) || s.heads % s.kv_heads != 0 ||
      (s.dim != 64 && s.dim != 128) || !(s.scale >= 0.0f) || s.scale == infinity())
    throw Error(std::string(caller) +
                ": needs positive sizes below 2^31, heads a multiple of kv_heads, dim 64 or 128 and a finite "
                "scale >= 0; got batch " +
                std::to_string(s.batch) + ", length " + std::to_string(s.length) + ", heads " +
                std::to_string(s.heads) + ", kv_heads " + std::to_string(s.kv_heads) + ", dim " +
                std::to_string(s.dim) + ", scale " + std::to_string(s.scale));
}

AttentionOutput attention_forward(const AttentionShape &shape, std::span<const uint16_t> q,
                                  std::span<const uint16_t> k, std::span<const uint16_t> v,
                                  std::optional<Isa> isa) {
  check_shape("attention_forward", shape);
  check_size("q", q.size(), shape.q_elements());
  check_size("k", k.size(), shape.kv_elements());
  check_size("v", v.size(), shape.kv_elements());
  AttentionOutput out{std::vector<uint16_t>(q.size()), std::vector<float>(q.size()),
                      std::vector<float>(size_t(shape.rows()))};
  const int64_t tasks = blocks(shape.length, kQueries), group = shape.group();
  for (int64_t pair = 0; pair < shape.batch * shape.kv_heads; ++pair) {
    const int64_t sequence = pair / shape.kv_heads, kv_head = pair % shape.kv_heads;
    const auto keys = right_blocks(head_rows(k, shape, shape.kv_heads, sequence, kv_head), shape.length,
                                   shape.dim, kForwardKeys, false, isa);
    const auto values = right_blocks(head_rows(v, shape, shape.kv_heads, sequence, kv_head), shape.length,
                                     shape.dim, kForwardKeys, true, isa);
#pragma omp parallel for schedule(dynamic)
    for (int64_t t = 0; t < tasks * group; ++t) {
      const int64_t head = kv_head * group + t % group;
      const ForwardTask task{shape,    keys, values, head_rows(q, shape, shape.heads, sequence, head),
                             sequence, head, out,    isa};
      task((tasks - 1 - t / group) * kQueries); // long rows first
    }
  }
  return out;
}

AttentionGradients attention_backward(const AttentionShape &shape, std::span<const uint16_t> q,
                                      std::span<const uint16_t> k, std::span<const uint16_t> v,
                                      std::span<const uint16_t> o, std::span<const float> lse2,
                                      std::span<const uint16_t> grad_o, std::optional<Isa> isa) {
  check_shape("attention_backward", shape);
  check_size("q", q.size(), shape.q_elements());
  check_size("k", k.size(), shape.kv_elements());
  check_size("v", v.size(), shape.kv_elements());
  check_size("o", o.size(), shape.q_elements());
  check_size("lse2", lse2.size(), shape.rows());
  check_size("grad_o", grad_o.size(), shape.q_elements());
  AttentionGradients out{std::vector<float>(q.size()), std::vector<float>(k.size()),
                         std::vector<float>(v.size()), std::vector<float>(lse2.size())};
#pragma omp parallel for
  for (int64_t row = 0; row < shape.rows(); ++row) {
    const int64_t i = row % shape.length, head = row / shape.length % shape.heads,
                  sequence = row / shape.length / shape.heads;
    const int64_t at = ((sequence * shape.length + i) * shape.heads + head) * shape.dim;
    out.d[size_t(row)] = row_product(grad_o.data() + at, o.data() + at, shape.dim);
  }
  const BackwardTask task{shape, q, k, v, grad_o, lse2, out, isa};
#pragma omp parallel for schedule(dynamic)
  for (int64_t pair = 0; pair < shape.batch * shape.kv_heads; ++pair)
    task(pair / shape.kv_heads, pair % shape.kv_heads);
  return out;
}

} // namespace nvfp4::models::tensorcore
