// SPDX-License-Identifier: Apache-2.0
// The FDPA kernels over a vector type V of emulator/simd: `rows` x four vectors of columns to a tile.
// README.md explains and proves them. Included by one file for each instruction set; private to each of them.
#pragma once
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

namespace nvfp4::gemm {
namespace {

template <class V, int rows> struct FdpaSimd {
  using F = typename V::F;
  using I = typename V::I;
  using D = typename V::D;

  static constexpr int kMr = rows, kVectors = 4, kNr = kVectors * V::lanes, kHalf = V::lanes / 2;
  /// Steps whose exponents are found before their products are summed: each vector of columns, in as many steps, finds
  /// those of one later step.
  static constexpr int kSteps = kVectors;
  static constexpr int kRowsAhead = kMr / kVectors; ///< whose exponents one vector's step finds for later steps

  static const uint8_t *bytes(const void *at) { return static_cast<const uint8_t *>(at); }

  /// The largest exponents of a step's products, for each row of A: 16-bit words in which a byte stands where an
  /// exponent field ends, first those of the even vectors of columns, then those of the odd ones (FdpaPanel).
  struct Tops {
    static constexpr int kBefore = 64, kRow = 2 * kNr;
    alignas(64) uint8_t words[kBefore + kMr * kRow];

    void set(int row, I top) {
      const I field = V::bit_xor(top, V::spread_byte(-128));
      V::store(words + kBefore + row * kRow, V::even_bytes_times16(field));
      V::store(words + kBefore + row * kRow + kNr, V::odd_bytes_times16(field));
    }
    /// Of vector v: in the upper half of each lane, with something else in the lower.
    [[nodiscard]] I of(int row, int v) const {
      return V::load_i(words + kBefore + row * kRow + v % 2 * kNr - (v < 2 ? 2 : 0));
    }
  };

  /// Raises the tops of n rows from `row` on to the exponents of product k; a, b: a step's.
  template <int link, int n>
  [[gnu::always_inline]] static void raise(I (&top)[n], const uint8_t *a, const uint8_t *b, int row, int k) {
    const I e = V::load_i(b + kNr * k);
#pragma GCC unroll 8
    for (int r = 0; r < n; ++r)
      top[r] = V::max8(top[r], V::add_saturated8(e, V::spread_i(a + 4 * (link * (row + r) + k))));
  }
  template <int link> [[gnu::noinline]] static void find_tops(const uint8_t *a, const uint8_t *b, Tops &tops) {
    I top[kMr];
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r) top[r] = V::spread_byte(kZeroByte);
    for (int k = 0; k < link; ++k) raise<link>(top, a, b, 0, k);
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r) tops.set(r, top[r]);
  }

  struct Panels {
    const FdpaPanel &a, &b;
    int64_t steps;
    I origin; ///< added to the exponent field of 2^top: that of 1.5 * 2^(52 - F + top)
    D keep;   ///< the bits of the result
  };
  /// Where exponents of a later step are, and where their largest belong.
  struct Ahead {
    const uint8_t *a, *b;
    Tops *tops;
  };

  /// One vector of columns: accumulators between steps, in the products' scale, and sums within one.
  template <int link> struct Chains {
    D sum[2][kMr];

    /// Begins a step of row r: at 1.5 * 2^(52 - F + top), so that the sum truncates to 2^(top - F), with the
    /// accumulator and the number of negative terms. top: the products', in the upper half of each lane.
    [[gnu::always_inline]] void begin(const Panels &p, int r, I top, const uint8_t *signs_x, const uint8_t *signs_y) {
      const I word = V::high_words(sum[0][r], sum[1][r]);
      top = V::as_int(V::max_magnitude(V::as_float(top), V::as_float(word)));
      const I high = V::add(V::bit_and(top, V::broadcast(0x7FF00000)), p.origin);
      const I differ = V::bit_xor(V::load_i(signs_y), V::spread_i(signs_x + 4 * r));
      const I count =
          link == 32 ? V::sub(V::count_bits(differ), V::template shift_right_signed<31>(word))
                     : V::count_bits(V::bit_xor(differ, V::bit_and(word, V::broadcast(int(0x80000000)))));
      const D past = V::broadcast(kPast);
      sum[0][r] = V::fma(sum[0][r], past, V::join_first(count, high));
      sum[1][r] = V::fma(sum[1][r], past, V::join_second(count, high));
    }
    /// Makes the sum of row r the accumulator. A sum has the exponent of what it began with.
    [[gnu::always_inline]] void end(const Panels &p, int r) {
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h)
        sum[h][r] = V::bit_and(V::sub(sum[h][r], V::middle_of_binade(sum[h][r])), p.keep);
    }
    /// Adds product k of every row.
    [[gnu::always_inline]] void add(const double *x, const double *y, int k) {
      const D y0 = V::load(y + k * V::lanes), y1 = V::load(y + k * V::lanes + kHalf);
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r) {
        const D xr = V::spread_d(bytes(x + link * r + k));
        sum[0][r] = V::fma(xr, y0, sum[0][r]);
        sum[1][r] = V::fma(xr, y1, sum[1][r]);
      }
    }
  };

  /// The chains of vector v of the columns over n steps from t on; `tops` has those steps'. With `finds`, exponents
  /// of kRowsAhead rows of a later step are found in each of them: CPUs that have one pipe of two for exponents do
  /// so for nothing while products are added.
  template <int link, bool finds>
  [[gnu::always_inline]] static void chain(const Panels &p, int64_t t, int n, int v, const Tops *tops,
                                           double (*acc)[V::lanes], Ahead ahead) {
    Chains<link> c;
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r)
      for (int h = 0; h < 2; ++h) c.sum[h][r] = V::load(acc[r] + h * kHalf);
    const double *x = p.a.values + t * kMr * link, *y = p.b.values + (v * p.steps + t) * link * V::lanes;
    for (int i = 0; i < n; ++i, x += kMr * link, y += link * V::lanes) {
      const int row = i * kRowsAhead; // whose exponents are found
      const uint8_t *const signs_x = bytes(p.a.signs + (t + i) * kMr);
      const uint8_t *const signs_y = bytes(p.b.signs + (t + i) * kNr + v * V::lanes);
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r) c.begin(p, r, tops[i].of(r, v), signs_x, signs_y);
      I top[kRowsAhead];
      for (int r = 0; r < kRowsAhead; ++r) top[r] = V::spread_byte(kZeroByte);
#pragma GCC unroll 4 // more, and clang 14 keeps sums on the stack
      for (int k = 0; k < link; ++k) {
        c.add(x, y, k);
        if (finds) raise<link>(top, ahead.a, ahead.b, row, k);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r) c.end(p, r);
      for (int r = 0; finds && r < kRowsAhead; ++r) ahead.tops->set(row + r, top[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r)
      for (int h = 0; h < 2; ++h) V::store(acc[r] + h * kHalf, c.sum[h][r]);
  }

  /// Accumulators of a vector of columns from FP32 numbers, and back.
  static void take(const FdpaPanel &a, const double *scales, const float *in, double (*acc)[V::lanes]) {
    const D s0 = V::load(scales), s1 = V::load(scales + kHalf), zero = V::broadcast(0.0);
    for (int r = 0; r < kMr; ++r) { // adding +0 makes -0 +0
      const F x = V::load(in + kNr * r);
      const D s = V::spread_d(bytes(a.scales + r));
      V::store(acc[r], V::add(V::mul(V::mul(V::widen_first(x), s), s0), zero));
      V::store(acc[r] + kHalf, V::add(V::mul(V::mul(V::widen_second(x), s), s1), zero));
    }
  }
  static void give(const FdpaPanel &a, const double *scales, const double (*acc)[V::lanes], float *out) {
    const D s0 = V::load(scales + kNr), s1 = V::load(scales + kNr + kHalf);
    for (int r = 0; r < kMr; ++r) {
      const D s = V::spread_d(bytes(a.scales + kMr + r));
      V::store(out + kNr * r, V::narrow(V::mul(V::mul(V::load(acc[r]), s), s0),
                                        V::mul(V::mul(V::load(acc[r] + kHalf), s), s1)));
    }
  }

  /// The rounding mode must be toward zero.
  template <int link>
  [[gnu::noinline]] static void tile_of(const FdpaPanel &a, const FdpaPanel &b, int64_t steps,
                                        const FdpaStep &step, int cols, const float *in, float *out) {
    constexpr int64_t kKeep24 = -(int64_t{1} << 29), kKeep14 = -(int64_t{1} << 39);
    const Panels p{a, b, steps, V::broadcast((52 - step.fraction_bits) << 20 | 0x80000),
                   V::spread_d(bytes(step.e8m13 ? &kKeep14 : &kKeep24))};
    const int vectors = (cols + V::lanes - 1) / V::lanes;
    alignas(64) double acc[kVectors][kMr][V::lanes]; // in the products' scale
    for (int v = 0; v < vectors; ++v) take(a, b.scales + v * V::lanes, in + v * V::lanes, acc[v]);
    Tops tops[2][kSteps];
    const auto at = [&](int64_t i, Tops *to) {
      return Ahead{a.exponents + 4 * i * kMr * link, b.exponents + i * kNr * link, to};
    };
    const auto find = [&](int64_t first, Tops *to) {
      for (int64_t i = first; i < steps && i < first + kSteps; ++i, ++to)
        find_tops<link>(at(i, to).a, at(i, to).b, *to);
    };
    find(0, tops[0]);
    for (int64_t t = 0; t < steps; t += kSteps) {
      Tops *const now = tops[t / kSteps % 2], *const then = tops[(t / kSteps + 1) % 2];
      if (vectors == kVectors && t + 2 * kSteps <= steps) {
        for (int v = 0; v < kVectors; ++v)
          chain<link, true>(p, t, kSteps, v, now, acc[v], at(t + kSteps + v, then + v));
      } else {
        const int n = int(steps - t < kSteps ? steps - t : kSteps);
        for (int v = 0; v < vectors; ++v) chain<link, false>(p, t, n, v, now, acc[v], {});
        find(t + kSteps, then);
      }
    }
    for (int v = 0; v < vectors; ++v) give(a, b.scales + v * V::lanes, acc[v], out + v * V::lanes);
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
