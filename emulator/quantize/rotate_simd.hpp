// SPDX-License-Identifier: Apache-2.0
// The Hadamard rotation down the columns of 16 rows, in FP32 over a vector type V. Sums and differences raise
// the CPU's inexact flag where FP32 does not hold them; then the result is worthless. Included by the files
// of one instruction set each; private to each of them. Internal.
#pragma once
#include <cstdint>

namespace nvfp4::quant {
namespace {

/// A word of this or more: 16 of them may overflow.
constexpr uint32_t kLargestFp32 = 0x7C000000;
constexpr unsigned kDefaultMode = 0x1F80, kInexact = 0x20; ///< MXCSR

/// Bit i of signs in the place of a sign.
struct Flips {
  alignas(64) uint32_t word[16];
  explicit Flips(uint16_t signs) {
    for (int i = 0; i < 16; ++i) word[i] = (signs >> i & 1u) << 31;
  }
};

/// The 16 sums of the columns of 16 rows of FP32 words, times 4. top: the largest magnitude that came in.
template <class V>
[[gnu::always_inline]] inline void sum_rows(const typename V::W (&row)[16], const Flips &flips,
                                            typename V::W &top, typename V::F (&y)[16]) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    top = V::max(top, V::magnitude(row[i]));
    y[i] = V::as_float(V::flip(V::round_bf16(row[i]), flips.word[i]));
  }
#pragma GCC unroll 4
  for (int step = 1; step < 16; step *= 2)
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      if ((i & step) == 0) {
        const typename V::F a = y[i], b = y[i + step];
        y[i] = V::add(a, b);
        y[i + step] = V::sub(a, b);
      }
}

/// Rotates the columns of 16 rows as rotate16 does.
template <class V>
[[gnu::always_inline]] inline void rotate_rows(typename V::W (&row)[16], const Flips &flips,
                                               typename V::W &top) {
  typename V::F y[16];
  sum_rows<V>(row, flips, top, y);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) row[i] = V::round_bf16(V::quarter(y[i])); // -0 becomes +0
}

/// The largest input and the largest rotated value, before it is rounded to BF16.
struct Largest {
  uint32_t in, out;
};

/// The maximum as a result counts: rounding to BF16 keeps order. flags: MXCSR after it was computed.
inline uint32_t counted(const Largest &largest, unsigned flags) {
  const uint32_t y = largest.out;
  if (largest.in > kLargestFp32 || (flags & kInexact) != 0) return 0xFFFFFFFF;
  return (y + 0x7FFF + (y >> 16 & 1)) & 0xFFFF0000;
}

template <class V>
[[gnu::noinline]] Largest largest_down(const float *x, int64_t stride, int tiles, uint16_t signs) {
  const Flips flips(signs);
  typename V::W top = V::zero(), out = V::zero();
  for (int c = 0; c < 16 * tiles; c += V::lanes) {
    typename V::W row[16];
    typename V::F y[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      row[i] = V::load(x + i * stride + c);
      if (c % 16 == 0) __builtin_prefetch(x + i * stride + c + kAhead / 4);
    }
    sum_rows<V>(row, flips, top, y);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) out = V::max(out, V::magnitude(V::as_word(V::quarter(y[i]))));
  }
  return {V::largest(top), V::largest(out)};
}

/// Rotates `tiles` tiles that stand side by side; returns the largest magnitude that came in.
template <class V>
[[gnu::noinline]] uint32_t rotate_down(const float *x, int64_t stride, int tiles, uint16_t signs, float *to,
                                       int64_t to_tile) {
  const Flips flips(signs);
  typename V::W top = V::zero();
  for (int c = 0; c < 16 * tiles; c += V::lanes) {
    typename V::W row[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) row[i] = V::load(x + i * stride + c);
    rotate_rows<V>(row, flips, top);
    float *const at = to + c / 16 * to_tile + c % 16;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) V::store(at + 16 * i, row[i]);
  }
  return V::largest(top);
}

} // namespace
} // namespace nvfp4::quant
