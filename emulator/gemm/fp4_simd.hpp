// SPDX-License-Identifier: Apache-2.0
// The FP4 kernels over a vector type V of emulator/simd: `rows` x `vectors` vectors of columns to a tile.
// README.md explains and proves them. Included by one file for each instruction set; private to each of them.
#pragma once
#include "nvfp4/emulator/gemm/fp4_kernels.hpp"

namespace nvfp4::gemm {
namespace {

/// Where V's rounding is a mode of the CPU, `narrow` and `wide` buffer the sums of some steps and add them to
/// the accumulators afterwards, in the other mode; where it is part of an instruction, sums stay in
/// registers.
template <class V, int rows, int vectors> struct Fp4Simd {
  using F = typename V::F;
  using I = typename V::I;
  using D = typename V::D;
  using Dot = typename V::Dot;

  static constexpr int kMr = rows, kNr = vectors * V::lanes, kTile = kMr * kNr;
  static constexpr int kFraction = 35; ///< F of the FP4 units
  static constexpr int kNarrowSteps = 16,
                       kWideSteps = 8; ///< steps whose sums are buffered, 4 KiB for 64 outputs
  static constexpr int kWideRows = 4;  ///< whose FP64 sums fit in the registers of AVX-512

  static constexpr size_t a_step(int block) { return size_t(kMr * (block + 8)); }
  static constexpr size_t b_step(int block) { return size_t(kNr * (block + 4)); }

  /// Twice the value of 16 packed E2M1 codes as signed bytes, in K order.
  static typename V::Bytes doubled(const uint8_t *nibbles) {
    alignas(16) static constexpr int8_t table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return V::lookup_nibbles(table, nibbles);
  }

  static void put(uint8_t *at, int32_t x) { __builtin_memcpy(at, &x, 4); }
  static void put(uint8_t *at, float x) { __builtin_memcpy(at, &x, 4); }

  static void pack_a(uint8_t *panel, int row, const uint8_t *codes, const uint8_t *scales, int64_t blocks,
                     int block, const float *scale_table) {
    for (int64_t u = 0; u < blocks; ++u) {
      typename V::Bytes start = V::zero_bytes();
      for (int h = 0; h < block; h += 16) {
        const typename V::Bytes x = doubled(codes + u * block / 2 + h / 2);
        V::store(panel + row * block + h, x);
        start = V::dot_start_add(start, x);
      }
      put(panel + kMr * block + 4 * row, V::dot_start_word(start));
      put(panel + kMr * (block + 4) + 4 * row, scale_table[scales[u]]);
      panel += a_step(block);
    }
  }

  static void pack_b(uint8_t *tile, int column, const uint8_t *codes, const uint8_t *scales, int64_t blocks,
                     int block, const float *scale_table) {
    for (int64_t u = 0; u < blocks; ++u) {
      for (int h = 0; h < block; h += 16) {
        const typename V::Bytes x = V::add8(doubled(codes + u * block / 2 + h / 2), V::kByteOffset);
        uint8_t *at = tile + h * kNr + 4 * column;
        put(at, V::template word<0>(x));
        put(at + 4 * kNr, V::template word<1>(x));
        put(at + 8 * kNr, V::template word<2>(x));
        put(at + 12 * kNr, V::template word<3>(x));
      }
      put(tile + kNr * block + 4 * column, scale_table[scales[u]]);
      tile += b_step(block);
    }
  }

  /// The groups of one block for rows [first, first + count): use(r, v, P, sx * sy). P is an exact integer,
  /// |P| <= 144 * block < 2^13, and P * (sx * sy) is exact in FP32 (at most 20 bits) under any rounding.
  template <int block, int first, int count, class Use>
  static void scaled_block(const uint8_t *a, const uint8_t *b, Use use) {
    F sy[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sy[v] = V::load_f(b + kNr * block + 4 * V::lanes * v);
    const auto finish = [&](int r, Dot(&p)[vectors]) {
      const F sx = V::spread_f(a + kMr * (block + 4) + 4 * (first + r));
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) use(r, v, V::to_float(V::total(p[v])), V::mul(sy[v], sx));
    };
    if constexpr (block / 4 * vectors <= V::held) { // codes of B stay in registers, row after row
      I q[block / 4][vectors];
#pragma GCC unroll 8
      for (int i = 0; i < block / 4; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) q[i][v] = V::load_i(b + 4 * kNr * i + 4 * V::lanes * v);
#pragma GCC unroll 8
      for (int r = 0; r < count; ++r) {
        Dot p[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) p[v] = V::dot_start(a + kMr * block + 4 * (first + r));
#pragma GCC unroll 8
        for (int i = 0; i < block / 4; ++i) {
          const I x = V::spread_i(a + (first + r) * block + 4 * i);
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) V::dot(p[v], q[i][v], x);
        }
        finish(r, p);
      }
    } else { // sums stay there
      Dot p[count][vectors];
#pragma GCC unroll 8
      for (int r = 0; r < count; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) p[r][v] = V::dot_start(a + kMr * block + 4 * (first + r));
#pragma GCC unroll 8
      for (int i = 0; i < block / 4; ++i) {
        I q[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) q[v] = V::load_i(b + 4 * kNr * i + 4 * V::lanes * v);
#pragma GCC unroll 8
        for (int r = 0; r < count; ++r) {
          const I x = V::spread_i(a + (first + r) * block + 4 * i);
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) V::dot(p[r][v], q[v], x);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < count; ++r) finish(r, p[r]);
    }
  }

  /// The sums of one step in FP32. Inexact operations leave the flag.
  template <int block> static void narrow_step(const uint8_t *a, const uint8_t *b, F (&sum)[kMr][vectors]) {
#pragma GCC unroll 4
    for (int u = 0; u < 64 / block; ++u)
      scaled_block<block, 0, kMr>(
          a + size_t(u) * a_step(block), b + size_t(u) * b_step(block),
          [&](int r, int v, F p, F s) { sum[r][v] = u == 0 ? V::mul(p, s) : V::fma(p, s, sum[r][v]); });
  }

  /// The sums of one step in FP64, exact, low and high halves of vectors.
  template <int block, int first, int count>
  static void wide_step(const uint8_t *a, const uint8_t *b, D (&low)[count][vectors],
                        D (&high)[count][vectors]) {
#pragma GCC unroll 4
    for (int u = 0; u < 64 / block; ++u)
      scaled_block<block, first, count>(a + size_t(u) * a_step(block), b + size_t(u) * b_step(block),
                                        [&](int r, int v, F p, F s) {
                                          const F g = V::mul(p, s);
                                          const D l = V::widen_low(g), h = V::widen_high(g);
                                          low[r][v] = u == 0 ? l : V::add(low[r][v], l);
                                          high[r][v] = u == 0 ? h : V::add(high[r][v], h);
                                        });
  }

  /// An FP32 accumulator plus an exact FP64 sum, truncated to 53 bits and then to 24: truncation composes.
  static F add_wide(F acc, D low, D high) {
    return V::narrow_truncated(V::add_truncated(V::widen_low(acc), low),
                               V::add_truncated(V::widen_high(acc), high));
  }

  template <int block>
  [[gnu::noinline]] static void narrow_embedded(const uint8_t *a, const uint8_t *b, int64_t steps,
                                                float *acc_out, float *peak_out) {
    F acc[kMr][vectors], peak[kMr][vectors];
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) acc[r][v] = peak[r][v] = V::broadcast(0.0f);
    for (int64_t t = 0; t < steps; ++t, a += 64 / block * a_step(block), b += 64 / block * b_step(block)) {
      F sum[kMr][vectors];
      narrow_step<block>(a, b, sum);
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          peak[r][v] = V::max_magnitude(peak[r][v], acc[r][v]);
          acc[r][v] = V::add_truncated(acc[r][v], sum[r][v]); // raises no flag
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        V::store(acc_out + kNr * r + V::lanes * v, acc[r][v]);
        V::store(peak_out + kNr * r + V::lanes * v, peak[r][v]);
      }
  }

  template <int block, int first>
  [[gnu::noinline]] static void wide_embedded(const uint8_t *a, const uint8_t *b, int64_t steps,
                                              float *acc_out, float *peak_out) {
    F acc[kWideRows][vectors], peak[kWideRows][vectors];
#pragma GCC unroll 4
    for (int r = 0; r < kWideRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) acc[r][v] = peak[r][v] = V::broadcast(0.0f);
    for (int64_t t = 0; t < steps; ++t, a += 64 / block * a_step(block), b += 64 / block * b_step(block)) {
      D low[kWideRows][vectors], high[kWideRows][vectors];
      wide_step<block, first, kWideRows>(a, b, low, high);
#pragma GCC unroll 4
      for (int r = 0; r < kWideRows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          peak[r][v] = V::max_magnitude(peak[r][v], acc[r][v]);
          acc[r][v] = add_wide(acc[r][v], low[r][v], high[r][v]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kWideRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        V::store(acc_out + kNr * (first + r) + V::lanes * v, acc[r][v]);
        V::store(peak_out + kNr * (first + r) + V::lanes * v, peak[r][v]);
      }
  }

  /// out is (steps, kMr, kNr).
  template <int block>
  [[gnu::noinline]] static void narrow_sums(const uint8_t *a, const uint8_t *b, int64_t steps, float *out) {
    for (int64_t t = 0; t < steps; ++t, out += kTile) {
      F sum[kMr][vectors];
      narrow_step<block>(a, b, sum);
      a += 64 / block * a_step(block);
      b += 64 / block * b_step(block);
      for (int r = 0; r < kMr; ++r)
        for (int v = 0; v < vectors; ++v) V::store(out + kNr * r + V::lanes * v, sum[r][v]);
    }
  }

  /// Adds the sums to the accumulators, one by one. The rounding mode must be toward zero.
  [[gnu::noinline]] static void narrow_chain(const float *sums, int64_t steps, float *acc, float *peak) {
    for (int o = 0; o < kTile; o += V::lanes) {
      F x = V::load(acc + o), top = V::load(peak + o);
      for (int64_t t = 0; t < steps; ++t) {
        top = V::max_magnitude(top, x);
        x = V::add_truncated(x, V::load(sums + t * kTile + o));
      }
      V::store(acc + o, x);
      V::store(peak + o, top);
    }
  }

  template <int block>
  [[gnu::noinline]] static void wide_sums(const uint8_t *a, const uint8_t *b, int64_t steps, double *out) {
    for (int64_t t = 0; t < steps; ++t, out += kTile) {
      D low[kMr][vectors], high[kMr][vectors];
      wide_step<block, 0, kMr>(a, b, low, high);
      a += 64 / block * a_step(block);
      b += 64 / block * b_step(block);
      for (int r = 0; r < kMr; ++r)
        for (int v = 0; v < vectors; ++v) {
          V::store(out + kNr * r + V::lanes * v, low[r][v]);
          V::store(out + kNr * r + V::lanes * v + V::lanes / 2, high[r][v]);
        }
    }
  }

  [[gnu::noinline]] static void wide_chain(const double *sums, int64_t steps, float *acc, float *peak) {
    for (int o = 0; o < kTile; o += V::lanes) {
      F x = V::load(acc + o), top = V::load(peak + o);
      for (int64_t t = 0; t < steps; ++t) {
        const double *const at = sums + t * kTile + o;
        top = V::max_magnitude(top, x);
        x = add_wide(x, V::load(at), V::load(at + V::lanes / 2));
      }
      V::store(acc + o, x);
      V::store(peak + o, top);
    }
  }

  /// The exponent of a scale's format, by field: 0.25 * scale on A's side is undone by `shift` = 2.
  static I scale_exponent(F scale, int shift, int min_exponent) {
    const I e = V::template shift_right<23>(V::as_int(scale)); // scales have no sign
    return V::max(V::add(e, V::broadcast(shift - 127)), V::broadcast(min_exponent));
  }

  /// One group of 16: its integer sum, and the lanes where some product is not zero.
  struct Group {
    F sum;
    typename V::Mask any;
  };
  /// `start` points to the start of its integer sum, when all of the block is in the group.
  template <bool whole_unit> static Group group_of(const uint8_t *a, const uint8_t *b, const uint8_t *start) {
    constexpr bool subtracts = !whole_unit && V::kByteOffset != 0;
    Dot sum = whole_unit ? V::dot_start(start) : V::dot_zero(), offset = V::dot_zero();
    Dot count = offset; // of |a| over non-zero b
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const I x = V::spread_i(a + 4 * i), y = V::load_i(b + 4 * kNr * i);
      V::dot(sum, y, x);
      if constexpr (subtracts) V::dot(offset, V::spread_byte(V::kByteOffset), x);
      V::dot(count, V::one_where_differs8(y, V::kByteOffset), V::magnitude8(x));
    }
    if constexpr (subtracts) sum = V::dot_sub(sum, offset);
    return {V::to_float(V::total(sum)), V::nonzero(V::total(count))};
  }

  /// The whole step for row r and vector v, groups of 16 cut one by one even where two share their scales.
  /// The rounding mode must be toward zero.
  template <int block>
  [[gnu::noinline]] static void aligned_vector(const uint8_t *a, const uint8_t *b, int64_t steps,
                                               int min_exponent, int r, int v, float *acc_out) {
    constexpr int blocks = 64 / block, per_block = block / 16;
    F acc = V::broadcast(0.0f);
    for (int64_t t = 0; t < steps; ++t) {
      // the accumulator's exponent; here it is zero or normal, and a zero's is below any other
      const I c = V::template shift_right<24>(V::template shift_left<1>(V::as_int(acc)));
      I top = V::sub(c, V::broadcast(127));
      F group[4];
      for (int u = 0; u < blocks; ++u) {
        const F sx = V::spread_f(a + kMr * (block + 4) + 4 * r);
        const F sy = V::load_f(b + kNr * block + 4 * V::lanes * v), s = V::mul(sy, sx);
        const I e = V::add(scale_exponent(sx, 2, min_exponent), scale_exponent(sy, 0, min_exponent));
        for (int h = 0; h < per_block; ++h) {
          const Group g = group_of<per_block == 1>(
              a + r * block + 16 * h, b + 16 * kNr * h + 4 * V::lanes * v, a + kMr * block + 4 * r);
          group[u * per_block + h] = V::mul(g.sum, s);
          top = V::where(V::both(g.any, V::nonzero(s)), V::max(top, e), top);
        }
        a += a_step(block);
        b += b_step(block);
      }
      const typename V::L top_low = V::extend_low(top), top_high = V::extend_high(top);
      const D up_low = V::power_negated(top_low, kFraction), up_high = V::power_negated(top_high, kFraction);
      D low = V::whole(V::mul(V::widen_low(acc), up_low)),
        high = V::whole(V::mul(V::widen_high(acc), up_high));
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) {
        low = V::add(low, V::whole(V::mul(V::widen_low(group[g]), up_low)));
        high = V::add(high, V::whole(V::mul(V::widen_high(group[g]), up_high)));
      }
      acc = V::narrow_truncated(V::mul(low, V::power(top_low, -kFraction)),
                                V::mul(high, V::power(top_high, -kFraction)));
    }
    V::store(acc_out + kNr * r + V::lanes * v, acc);
  }

  static void clear(float *acc, float *peak) {
    for (int o = 0; o < kTile; ++o) acc[o] = peak[o] = 0.0f;
  }

  template <int block>
  static bool narrow_of(const uint8_t *a, const uint8_t *b, int64_t steps, float *acc, float *peak) {
    if constexpr (V::kEmbeddedRounding) {
      V::nearest();
      narrow_embedded<block>(a, b, steps, acc, peak);
      return !V::inexact();
    } else {
      alignas(64) float sums[kNarrowSteps * kTile];
      clear(acc, peak);
      for (int64_t t = 0; t < steps; t += kNarrowSteps) {
        const int64_t n = steps - t < kNarrowSteps ? steps - t : kNarrowSteps, u = t * (64 / block);
        V::nearest();
        narrow_sums<block>(a + size_t(u) * a_step(block), b + size_t(u) * b_step(block), n, sums);
        if (V::inexact()) return false;
        V::toward_zero();
        narrow_chain(sums, n, acc, peak);
      }
      V::nearest();
      return true;
    }
  }

  template <int block>
  static void wide_of(const uint8_t *a, const uint8_t *b, int64_t steps, float *acc, float *peak) {
    if constexpr (V::kEmbeddedRounding) {
      static_assert(kMr == 2 * kWideRows);
      wide_embedded<block, 0>(a, b, steps, acc, peak);
      wide_embedded<block, kWideRows>(a, b, steps, acc, peak);
    } else {
      alignas(64) double sums[kWideSteps * kTile];
      clear(acc, peak);
      V::toward_zero();
      for (int64_t t = 0; t < steps; t += kWideSteps) {
        const int64_t n = steps - t < kWideSteps ? steps - t : kWideSteps, u = t * (64 / block);
        wide_sums<block>(a + size_t(u) * a_step(block), b + size_t(u) * b_step(block), n, sums);
        wide_chain(sums, n, acc, peak);
      }
      V::nearest();
    }
  }

  static bool narrow(const uint8_t *a, const uint8_t *b, int64_t steps, int block, float *acc, float *peak) {
    return (block == 16 ? narrow_of<16> : narrow_of<32>)(a, b, steps, acc, peak);
  }
  static void wide(const uint8_t *a, const uint8_t *b, int64_t steps, int block, float *acc, float *peak) {
    (block == 16 ? wide_of<16> : wide_of<32>)(a, b, steps, acc, peak);
  }
  static void aligned(const uint8_t *a, const uint8_t *b, int64_t steps, int block, int min_exponent,
                      float *acc) {
    V::toward_zero();
    for (int r = 0; r < kMr; ++r)
      for (int v = 0; v < vectors; ++v)
        (block == 16 ? aligned_vector<16> : aligned_vector<32>)(a, b, steps, min_exponent, r, v, acc);
    V::nearest();
  }

  static constexpr Fp4Kernels kTable{kMr, kNr, pack_a, pack_b, narrow, wide, aligned};
};

} // namespace
} // namespace nvfp4::gemm
