// SPDX-License-Identifier: Apache-2.0
// The directed vectors and their predictions.
#include "nvfp4/gpu/blackwell/directed.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace nvfp4::cuda::blackwell {
namespace {

constexpr uint8_t kHalf = 0x1, kOne = 0x2, kTwo = 0x4, kFour = 0x6, kSix = 0x7, kMinus = 0x8, kScaleOne = 0x38;

/// The UE4M3 code of 2^e, -9 <= e <= 8.
constexpr uint8_t power(int e) { return uint8_t(e >= -6 ? (e + 7) << 3 : 1 << (e + 9)); }

struct Builder {
  Directed x;
  Builder(std::string name, std::string asks, int steps = 1) {
    x.name = std::move(name);
    x.asks = std::move(asks);
    x.a.assign(size_t(64 * steps), 0);
    x.b = x.a;
    x.scale_a.assign(size_t(4 * steps), kScaleOne);
    x.scale_b = x.scale_a;
  }
  /// Product `at` of group `group`, counted over both steps.
  Builder &product(int group, int at, uint8_t a, uint8_t b) {
    x.a[size_t(16 * group + at)] = a;
    x.b[size_t(16 * group + at)] = b;
    return *this;
  }
  Builder &fill(int group, uint8_t a, uint8_t b) {
    for (int at = 0; at < 16; ++at) product(group, at, a, b);
    return *this;
  }
  Builder &scales(int group, uint8_t a, uint8_t b) {
    x.scale_a[size_t(group)] = a;
    x.scale_b[size_t(group)] = b;
    return *this;
  }
  /// 2^-e in a group, 2 <= e <= 20.
  Builder &tiny(int group, int e) {
    const int first = std::min(9, e - 2);
    return product(group, 0, kHalf, kHalf).scales(group, power(-first), power(-(e - 2 - first)));
  }
  /// +-36 * 2^16 in a group.
  Builder &large(int group, bool negative) {
    return product(group, 0, kSix, uint8_t(kSix | (negative ? kMinus : 0))).scales(group, power(8), power(8));
  }
  /// +-2^24 in a group.
  Builder &huge(int group, bool negative) {
    return fill(group, kFour, uint8_t(kFour | (negative ? kMinus : 0))).scales(group, power(8), power(8));
  }
};

} // namespace

std::vector<Directed> directed_vectors() {
  std::vector<Directed> all;
  const auto add = [&](const Builder &b) { all.push_back(b.x); };
  // Groups 36 * 2^16 and its negative cancel over 2^-e. Aligned by the scales' exponents (16) 35 bits reach
  // 2^-19; by the products' (20) only 2^-15.
  for (int e = 16; e <= 19; ++e)
    add(Builder("cancel.e" + std::to_string(e),
                "2^-" + std::to_string(e) + ": groups align by scales; 0: by products")
            .large(0, false)
            .large(1, true)
            .tiny(2, e));
  add(Builder("cancel.e15", "2^-15 in both models; 0: fewer than 35 bits")
          .large(0, false)
          .large(1, true)
          .tiny(2, 15));
  add(Builder("cancel.e20", "0 with 35 bits; 2^-20: more, or an exact sum")
          .large(0, false)
          .large(1, true)
          .tiny(2, 20));
  add(Builder("cancel.order", "as cancel.e18 with the groups in another order")
          .tiny(0, 18)
          .large(1, true)
          .large(3, false));
  // The same over an accumulator: the first instruction makes 2^-e.
  for (int e = 16; e <= 19; ++e)
    add(Builder("chain.cancel.e" + std::to_string(e), "as cancel, 2^-e in the accumulator", 2)
            .tiny(0, e)
            .large(4, false)
            .large(5, true));
  // A group that cancels inside itself, 1 - 1 under scales of 448 * 448, over 2^-20.
  add(Builder("cancel_in_group", "0: a cancelling group keeps its exponent; 2^-20: it does not")
          .product(0, 0, kOne, kOne)
          .product(0, 1, kOne | kMinus, kOne)
          .scales(0, 0x7E, 0x7E)
          .product(1, 0, kHalf, kHalf)
          .scales(1, 0x01, 0x01));
  add(Builder("zero_group", "2^-20: a group of zeros has no exponent; 0: it keeps that of its scales")
          .scales(0, 0x7E, 0x7E)
          .product(1, 0, kHalf, kHalf)
          .scales(1, 0x01, 0x01));
  add(Builder("zero_scale", "2^-20: a zero scale removes its group")
          .fill(0, kFour, kFour)
          .scales(0, 0x00, 0x7E)
          .product(1, 0, kHalf, kHalf)
          .scales(1, 0x01, 0x01));
  add(Builder("width.35", "0: at most 35 bits below 2^24; 2^-12: more", 2)
          .huge(0, true)
          .huge(4, false)
          .product(5, 0, kHalf, kHalf)
          .scales(5, power(-6), power(-4)));
  add(Builder("width.34", "2^-11: at least 35 bits below 2^24; 0: fewer", 2)
          .huge(0, true)
          .huge(4, false)
          .product(5, 0, kHalf, kOne)
          .scales(5, power(-6), power(-4)));
  add(Builder("rounding", "4b7fffff: truncation; 4b800000: nearest", 2)
          .huge(0, false)
          .product(4, 0, kHalf, kHalf | kMinus));
  add(Builder("c_between", "2^-18: aligned by the largest scales under a C that exceeds them; 0: by C", 2)
          .product(0, 0, kFour, kTwo | kMinus)
          .scales(0, power(8), power(8))
          .product(4, 0, kFour, kFour)
          .product(4, 1, kFour | kMinus, kTwo)
          .scales(4, power(8), power(8))
          .product(5, 0, kOne, kOne)
          .scales(5, 0x01, 0x01));
  const auto halves = [](std::string name, std::string asks, int second) {
    return Builder(std::move(name), std::move(asks))
        .product(0, 0, kOne, kOne)
        .product(0, 1, kOne | kMinus, kOne)
        .scales(0, power(8), power(8))
        .product(1, 0, kHalf, kHalf)
        .product(1, second, kHalf, kHalf)
        .scales(1, 0x01, 0x01);
  };
  add(halves("quarters", "2^-19: groups are cut as a whole; 0: in quarters of four products", 4));
  add(halves("quarter", "2^-19: at least quarters of four products are summed before the cut", 1));
  add(Builder("over_small_c", "488fffff: aligned by scales; 48900000: by products", 2)
          .product(0, 0, kHalf, kHalf | kMinus)
          .scales(0, 0x01, 0x01)
          .product(4, 0, kSix, kSix)
          .scales(4, power(8), power(5)));
  add(Builder("scale.sign", "1: the sign bit of a UE4M3 code is ignored")
          .product(0, 0, kOne, kOne)
          .scales(0, 0xB8, 0x38));
  add(Builder("scale.nan", "7fffffff: a NaN scale wins over zeros").scales(3, 0x38, 0x7F));
  Builder full("full_scale", "4ddc8000: 64 products of 36 under 448 * 448, exact");
  for (int g = 0; g < 4; ++g) full.fill(g, kSix, kSix).scales(g, 0x7E, 0x7E);
  add(full);
  return all;
}

uint32_t predict(const UnitRule &rule, const Directed &x, Accumulation accumulation) {
  const DotOperands op{{x.a.data(), 8}, {x.b.data(), 8}, x.scale_a.data(), x.scale_b.data()};
  return uint32_t(dot(rule, op, int64_t(x.a.size()), 0, accumulation));
}

DirectedOperands directed_operands(const std::vector<Directed> &vectors) {
  DirectedOperands o;
  o.rows = (int64_t(vectors.size()) + 127) / 128 * 128;
  o.k = vectors.empty() ? 0 : int64_t(vectors.front().a.size());
  const auto pack = [&](std::vector<uint8_t> &codes, std::vector<uint8_t> &scales, auto code, auto scale) {
    codes.assign(size_t(o.rows * o.k / 2), 0);
    scales.assign(size_t(o.rows * o.k / 16), kScaleOne);
    for (size_t i = 0; i < vectors.size(); ++i) {
      for (size_t k = 0; k < size_t(o.k); ++k)
        codes[(i * size_t(o.k) + k) / 2] |= uint8_t((vectors[i].*code)[k] << (4 * (k % 2)));
      std::copy((vectors[i].*scale).begin(), (vectors[i].*scale).end(),
                scales.begin() + int64_t(i) * o.k / 16);
    }
  };
  pack(o.codes_a, o.scales_a, &Directed::a, &Directed::scale_a);
  pack(o.codes_b, o.scales_b, &Directed::b, &Directed::scale_b);
  return o;
}

int64_t ask_directed(const UnitRule &rule,
                     const std::function<std::vector<uint8_t>(const DirectedOperands &)> &multiply) {
  constexpr auto models = enumerators<Accumulation>();
  std::printf("%-16s %-8s", "vector", "D");
  for (const Accumulation model : models) std::printf(" %-13s", std::string(to_string(model)).c_str());
  std::printf(" question\n");
  int64_t wrong[models.size()] = {};
  for (const size_t k : {size_t{64}, size_t{128}}) {
    std::vector<Directed> vectors;
    for (Directed &x : directed_vectors())
      if (x.a.size() == k) vectors.push_back(std::move(x));
    const DirectedOperands o = directed_operands(vectors);
    const std::vector<uint8_t> d = multiply(o);
    for (size_t i = 0; i < vectors.size(); ++i) {
      const uint32_t got = uint32_t(CodeView{d.data(), 32}[int64_t(i) * o.rows + int64_t(i)]);
      std::printf("%-16s %08x", vectors[i].name.c_str(), got);
      for (size_t m = 0; m < models.size(); ++m) {
        const uint32_t want = predict(rule, vectors[i], models[m]);
        wrong[m] += got != want;
        std::printf(" %08x     ", want);
      }
      std::printf(" %s\n", vectors[i].asks.c_str());
    }
  }
  std::printf("vectors that contradict");
  for (size_t m = 0; m < models.size(); ++m)
    std::printf("%s %s: %lld", m == 0 ? "" : ",", std::string(to_string(models[m])).c_str(), (long long)wrong[m]);
  std::printf("\n");
  return wrong[0];
}

} // namespace nvfp4::cuda::blackwell
