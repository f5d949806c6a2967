// SPDX-License-Identifier: Apache-2.0
// One chunk of a head in FP32: q, k and every decay that GLA's definition multiplies them with, in the order
// in which the factors are multiplied.
#pragma once
#include "nvfp4/emulator/numerics/elementary.hpp"
#include "nvfp4/reference_models/bf16_mixers/chain.hpp"
#include "nvfp4/reference_models/bf16_mixers/gla.hpp"

#include <algorithm>
#include <array>

namespace nvfp4::models::bf16_gla {

/// Where chunk c of a team lies in the inputs.
struct ChunkRows {
  int64_t first, head, count; ///< row of (batch, length); head; rows inside the length

  ChunkRows(const Shape &s, int64_t team, int64_t c)
      : first(team / s.heads * s.length + c * kChunk), head(team % s.heads),
        count(std::min(kChunk, s.length - c * kChunk)) {}
  /// Index of element d of row i in an array with `width` elements per head.
  [[nodiscard]] size_t at(const Shape &s, int64_t width, int64_t i, int64_t d) const {
    return size_t(((first + i) * s.heads + head) * width + d);
  }
};

/// A row-major FP32 matrix, zeros at first.
struct Matrix {
  int64_t cols;
  std::vector<float> data;

  Matrix(int64_t rows, int64_t columns) : cols(columns), data(size_t(rows * columns)) {}
  float &operator()(int64_t i, int64_t j) { return data[size_t(i * cols + j)]; }
  const float &operator()(int64_t i, int64_t j) const { return data[size_t(i * cols + j)]; }
};

struct ChunkDecays {
  Matrix q, k;       // (64, key)
  Matrix gate;       // (64, key): exp(g)
  Matrix from_start; // (64, key): since the start of the row's sub-chunk, the row's own gate included
  Matrix to_end;     // (64, key): after the row, to the end of its sub-chunk
  Matrix before;     // (4, key): of all sub-chunks before
  Matrix after;      // (4, key): of all sub-chunks after
  Matrix whole;      // (1, key)

  ChunkDecays(const Shape &s, const Inputs &in, const ChunkRows &rows)
      : q(kChunk, s.key), k(kChunk, s.key), gate(kChunk, s.key), from_start(kChunk, s.key),
        to_end(kChunk, s.key), before(kSubs, s.key), after(kSubs, s.key), whole(1, s.key) {
    for (int64_t d = 0; d < s.key; ++d) {
      for (int64_t i = 0; i < kChunk; ++i) {
        const bool inside = i < rows.count;
        const size_t at = inside ? rows.at(s, s.key, i, d) : 0;
        q(i, d) = inside ? bf16_value(in.q[at]) : 0.0f;
        k(i, d) = inside ? bf16_value(in.k[at]) : 0.0f;
        gate(i, d) = inside ? numerics::exp(in.g[at]) : 1.0f;
      }
      for (int64_t i = 0; i < kChunk; ++i)
        from_start(i, d) = i % kSub == 0 ? gate(i, d) : from_start(i - 1, d) * gate(i, d);
      for (int64_t i = kChunk - 1; i >= 0; --i)
        to_end(i, d) = i % kSub == kSub - 1 ? 1.0f : to_end(i + 1, d) * gate(i + 1, d);
      for (int64_t t = 0; t < kSubs; ++t) before(t, d) = t == 0 ? 1.0f : before(t - 1, d) * of_sub(t - 1, d);
      for (int64_t t = kSubs - 1; t >= 0; --t)
        after(t, d) = t == kSubs - 1 ? 1.0f : after(t + 1, d) * of_sub(t + 1, d);
      whole(0, d) = before(kSubs - 1, d) * of_sub(kSubs - 1, d);
    }
  }

  /// Decay of sub-chunk t.
  [[nodiscard]] float of_sub(int64_t t, int64_t d) const { return from_start(t * kSub + kSub - 1, d); }

  /// Decay of the sub-chunks between r and t, both exclusive; r < t.
  [[nodiscard]] float between(int64_t r, int64_t t, int64_t d) const {
    float product = 1.0f;
    for (int64_t m = r + 1; m < t; ++m) product *= of_sub(m, d);
    return product;
  }

  /// k of row j of sub-chunk r, decayed to the start of sub-chunk t, and q of row i of sub-chunk t, decayed
  /// since the end of sub-chunk r, as operands.
  [[nodiscard]] uint16_t k_to(int64_t t, int64_t j, int64_t d) const {
    return bf16_word((k(j, d) * to_end(j, d)) * between(j / kSub, t, d));
  }
  [[nodiscard]] uint16_t q_since(int64_t r, int64_t i, int64_t d) const {
    return bf16_word((q(i, d) * from_start(i, d)) * between(r, i / kSub, d));
  }
};

} // namespace nvfp4::models::bf16_gla
