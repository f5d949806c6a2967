// SPDX-License-Identifier: Apache-2.0
// The FDPA kernels over a vector type V of emulator/simd: `rows` in `groups` x four vectors of
// columns to a tile.
// README.md explains and proves them. Included by one file for each instruction set; private to each of them.
#pragma once
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

namespace nvfp4::gemm {
namespace {

template <class V, int rows, int groups> struct FdpaSimd {
  using F = typename V::F;
  using I = typename V::I;
  using D = typename V::D;

  static constexpr int kMr = rows, kNr = 4 * V::lanes;
  static constexpr int kSteps = 16; ///< whose exponents are found before their products are summed

  static const uint8_t *bytes(const void *at) { return static_cast<const uint8_t *>(at); }

  /// For every step, row and column the largest exponent byte of a product, plus 128: (steps, rows, columns).
  static void find_tops(const uint8_t *a, const uint8_t *b, int64_t steps, int link, uint8_t *tops) {
    for (int64_t t = 0; t < steps; ++t, tops += kMr * kNr, a += 4 * kMr * link) {
      I top[kMr];
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r) top[r] = V::spread_byte(kZeroByte);
      for (int k = 0; k < link; ++k, b += kNr) {
        const I e = V::load_i(b);
#pragma GCC unroll 8
        for (int r = 0; r < kMr; ++r)
          top[r] = V::max8(top[r], V::add_saturated8(e, V::spread_i(a + 4 * (link * r + k))));
      }
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r) V::store(tops + kNr * r, V::bit_xor(top[r], V::spread_byte(-128)));
    }
  }

  /// Where one vector of columns stands.
  struct Columns {
    const double *values;
    const double *scales;
    const uint32_t *signs;
    const uint8_t *tops;
    const float *in;
    float *out;
  };
  struct Panels {
    const FdpaPanel &a;
    const Columns &b;
    I origin; ///< added to the exponent field of 2^top: that of 1.5 * 2^(52 - F + top)
    D keep;   ///< the bits of the result
  };

  /// The chains of `rows` / groups rows: accumulators between steps, sums within one.
  template <int link> struct Chains {
    static constexpr int kRows = rows / groups;
    D sum[2][kRows];
    I high[kRows]; ///< high words of 1.5 * 2^(52 - F + top): sums start there, so that they truncate to
                   ///< 2^(top - F)

    /// Ends the step before t, if t is not the first, and begins step t of row r.
    [[gnu::always_inline]] void begin(const Panels &p, int64_t t, int r, int row) {
      const uint8_t *const tops = p.b.tops + t * kMr * kNr + kNr * row;
      const I word = V::high_words(sum[0][r], sum[1][r]);
      const I top =
          V::max(V::bit_and(word, V::broadcast(0x7FF00000)), V::template shift_left<20>(V::widen8(tops)));
      const I differ =
          V::bit_xor(V::load_i(bytes(p.b.signs + t * kNr)), V::spread_i(bytes(p.a.signs + t * kMr + row)));
      // how many terms are negative, the accumulator among them
      const I count =
          link == 32 ? V::sub(V::count_bits(differ), V::template shift_right_signed<31>(word))
                     : V::count_bits(V::bit_xor(differ, V::bit_and(word, V::broadcast(int(0x80000000)))));
      const D past = V::broadcast(kPast);
      high[r] = V::add(top, p.origin);
      sum[0][r] = V::fma(sum[0][r], past, V::join_first(count, high[r]));
      sum[1][r] = V::fma(sum[1][r], past, V::join_second(count, high[r]));
    }
    /// Makes the sum of row r the accumulator.
    [[gnu::always_inline]] void end(const Panels &p, int r) {
      const I none = V::broadcast(0);
      sum[0][r] = V::bit_and(V::sub(sum[0][r], V::join_first(none, high[r])), p.keep);
      sum[1][r] = V::bit_and(V::sub(sum[1][r], V::join_second(none, high[r])), p.keep);
    }
    /// Adds products k to k + n of step t; the rows begin at `row`.
    [[gnu::always_inline]] void add(const Panels &p, int64_t t, int k, int n, int row) {
      const double *const x = p.a.values + (t * kMr + row) * link, *const y =
                                                                       p.b.values + t * link * V::lanes;
#pragma GCC unroll 8
      for (int i = k; i < k + n; ++i) {
        const D y0 = V::load(y + i * V::lanes), y1 = V::load(y + i * V::lanes + V::lanes / 2);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const D xr = V::spread_d(bytes(x + link * r + i));
          sum[0][r] = V::fma(xr, y0, sum[0][r]);
          sum[1][r] = V::fma(xr, y1, sum[1][r]);
        }
      }
    }
  };

  /// One group's products of step t while the other ends its step and begins `next`: the additions of the one
  /// wait for each other, and the rest fills the pipes between them.
  template <int link, bool ends, bool begins>
  [[gnu::always_inline]] static void pass(const Panels &p, Chains<link> &adding, int64_t t, int row,
                                          Chains<link> &turning, int64_t next, int turning_row) {
    constexpr int n = Chains<link>::kRows, part = link < n ? 1 : link / n;
    asm volatile("" ::: "memory"); // GCC would keep what one pass has loaded for the next, on the stack
#pragma GCC unroll 8
    for (int r = 0; r < n; ++r) {
      if (ends) turning.end(p, r);
      if (begins) turning.begin(p, next, r, turning_row + r);
      if (r * part < link) adding.add(p, t, r * part, part, row);
    }
  }

  template <int link>
  static void chain(const FdpaPanel &a, const Columns &b, int64_t steps, const FdpaStep &step) {
    constexpr int half = V::lanes / 2, n = rows / groups;
    constexpr int64_t kKeep24 = -(int64_t{1} << 29), kKeep14 = -(int64_t{1} << 39);
    const Panels p{a, b, V::broadcast((52 - step.fraction_bits) << 20 | 0x80000),
                   V::spread_d(bytes(step.e8m13 ? &kKeep14 : &kKeep24))};
    Chains<link> group[groups];
    {
      const D s0 = V::load(b.scales), s1 = V::load(b.scales + half), zero = V::broadcast(0.0);
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r) { // adding +0 makes -0 +0
        const F x = V::load(b.in + kNr * r);
        const D s = V::spread_d(bytes(a.scales + r));
        group[r / n].sum[0][r % n] = V::add(V::mul(V::mul(V::widen_first(x), s), s0), zero);
        group[r / n].sum[1][r % n] = V::add(V::mul(V::mul(V::widen_second(x), s), s1), zero);
      }
    }
    if constexpr (groups == 1) {
      for (int64_t t = 0; t < steps; ++t) {
#pragma GCC unroll 8
        for (int r = 0; r < n; ++r) group[0].begin(p, t, r, r);
#pragma GCC unroll 4
        for (int k = 0; k < link; k += 4) group[0].add(p, t, k, 4, 0);
#pragma GCC unroll 8
        for (int r = 0; r < n; ++r) group[0].end(p, r);
      }
    } else {
#pragma GCC unroll 8
      for (int r = 0; r < n; ++r) group[0].begin(p, 0, r, r);
      pass<link, false, true>(p, group[0], 0, 0, group[1], 0, n);
      for (int64_t t = 1; t < steps; ++t) {
        pass<link, true, true>(p, group[1], t - 1, n, group[0], t, 0);
        pass<link, true, true>(p, group[0], t, 0, group[1], t, n);
      }
      pass<link, true, false>(p, group[1], steps - 1, n, group[0], 0, 0);
#pragma GCC unroll 8
      for (int r = 0; r < n; ++r) group[1].end(p, r);
    }
    const D s0 = V::load(b.scales + kNr), s1 = V::load(b.scales + kNr + half);
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r) {
      const D s = V::spread_d(bytes(a.scales + kMr + r));
      V::store(b.out + kNr * r, V::narrow(V::mul(V::mul(group[r / n].sum[0][r % n], s), s0),
                                          V::mul(V::mul(group[r / n].sum[1][r % n], s), s1)));
    }
  }

  /// The rounding mode must be toward zero.
  template <int link>
  [[gnu::noinline]] static void tile_of(const FdpaPanel &a, const FdpaPanel &b, int64_t steps,
                                        const FdpaStep &step, int cols, const float *in, float *out) {
    alignas(64) uint8_t tops[kSteps * kMr * kNr];
    for (int64_t t = 0; t < steps; t += kSteps) {
      const int64_t n = steps - t < kSteps ? steps - t : kSteps;
      find_tops(a.exponents + 4 * t * kMr * link, b.exponents + t * kNr * link, n, link, tops);
      const FdpaPanel rows_of{a.values + t * kMr * link, a.scales, a.signs + t * kMr, nullptr};
      for (int c = 0; c < cols; c += V::lanes)
        chain<link>(rows_of,
                    {b.values + (c * steps + t * V::lanes) * link, b.scales + c, b.signs + t * kNr + c,
                     tops + c, (t == 0 ? in : out) + c, out + c},
                    n, step);
    }
  }

  static void tile(const FdpaPanel &a, const FdpaPanel &b, int64_t steps, const FdpaStep &step, int cols,
                   const float *in, float *out) {
    V::mode_toward_zero();
    switch (step.link) {
    case 4: tile_of<4>(a, b, steps, step, cols, in, out); break;
    case 8: tile_of<8>(a, b, steps, step, cols, in, out); break;
    case 16: tile_of<16>(a, b, steps, step, cols, in, out); break;
    default: tile_of<32>(a, b, steps, step, cols, in, out);
    }
    V::nearest();
  }

  static constexpr FdpaKernels kTable{kMr, kNr, V::lanes, tile};
};

} // namespace
} // namespace nvfp4::gemm
