// SPDX-License-Identifier: Apache-2.0
// The GPU's steps of the FP4 product in FP32 pairs, on the CPU: chains against gst_fdpa(), word by word, on
// data whose groups span many binades and on the operands of a model.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/gpu/emulated/gemm_fp4_frame.hpp"
#include "nvfp4/gpu/emulated/gemm_fp4_carry.hpp"
#include "nvfp4/tests/catch.hpp"

#include <array>
#include <random>

using namespace nvfp4;
using namespace nvfp4::cuda;

namespace {

const UnitRule &rule() {
  static const UnitRule &r = find_unit("sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16").rule;
  return r;
}

struct Row {
  std::vector<uint8_t> codes, scales;
  int64_t steps() const { return int64_t(scales.size()) / 4; }
};

/// As gemm_fp4_prepare.cu finds them, all of K.
struct RowFacts {
  bool empty = true;
  int max = -1000, lsb = 1000, norm = 0;

  explicit RowFacts(const Row &r) {
    double squares = 0;
    for (size_t g = 0; g < r.scales.size(); ++g) {
      const GroupScale s = decode_scale(rule().scale, r.scales[g]);
      for (int i = 0; i < kGroup; ++i) {
        const int m = e2m1_twice(CodeView{r.codes.data() + g * 8, 4}[i]) * int(s.significand);
        if (m == 0) continue;
        empty = false;
        max = std::max(max, s.exponent);
        lsb = std::min(lsb, __builtin_ctz(unsigned(std::abs(m))) + s.exponent - 4);
        squares += std::ldexp(double(m) * m, 2 * (s.exponent - 4));
      }
    }
    if (!empty) norm = int(std::ceil(std::log2(squares) / 2));
  }
};

StepGroups groups_of(const Row &a, const Row &b, int64_t t) {
  float g[kMaxGroups];
  for (int i = 0; i < kMaxGroups; ++i) {
    const size_t at = size_t(t) * kMaxGroups + size_t(i);
    const ScaledGroup s =
        scale_group({a.codes.data() + at * 8, 4}, {b.codes.data() + at * 8, 4},
                    decode_scale(rule().scale, a.scales[at]), decode_scale(rule().scale, b.scales[at]));
    g[i] = s.scaled == 0 ? 0.0f : std::ldexp(float(s.scaled), s.scale_exponent - 8);
  }
  return {g[0], g[1], g[2], g[3]};
}

/// A step of a row as gemm_fp4_prepare.cu finds it.
struct StepFacts {
  GroupNorm groups[kMaxGroups] = {};
  int scale_lsbs[kMaxGroups] = {}; ///< what a group's elements are multiples of whatever its codes
  int width = 0; ///< 0 for rows of zeros

  StepFacts(const Row &r, int64_t t) {
    double norm2 = 0;
    int least = 1000;
    for (int i = 0; i < kMaxGroups; ++i) {
      const size_t at = size_t(t) * kMaxGroups + size_t(i);
      const GroupScale s = decode_scale(rule().scale, r.scales[at]);
      int squares = 0, lsb = 1000;
      for (int k = 0; k < kGroup; ++k) {
        const int m = e2m1_twice(CodeView{r.codes.data() + at * 8, 4}[k]) * int(s.significand);
        squares += m * m;
        if (m != 0) lsb = std::min(lsb, __builtin_ctz(unsigned(std::abs(m))) + s.exponent - 4);
      }
      scale_lsbs[i] = __builtin_ctz(s.significand | 16u) + s.exponent - 4;
      groups[i] = {std::ldexp(double(squares), 2 * (s.exponent - 4)), s.exponent, lsb};
      norm2 += groups[i].norm2;
      least = std::min(least, lsb);
    }
    if (norm2 != 0) width = ceil_log2(norm2) - 2 * least;
  }
  /// 2^(largest scale exponent); 0 for rows of zeros.
  [[nodiscard]] float top() const {
    int largest = -1000;
    for (const GroupNorm &g : groups)
      if (g.norm2 != 0) largest = std::max(largest, g.exponent);
    return largest == -1000 ? 0.0f : power_of_two(largest);
  }
};

/// A row whose accumulators may be carried, all of K.
struct Carry {
  bool holds = false;
  int least = 0, grid = 0;

  Carry(const Row &r, int norm) {
    uint64_t leasts = 0;
    for (int64_t t = 0; t < r.steps(); ++t)
      for (int i = 0; i < kMaxGroups; ++i) {
        const StepFacts f(r, t);
        if (f.groups[i].norm2 != 0) leasts |= least_bit(f.scale_lsbs[i]);
      }
    holds = carries(leasts);
    if (holds) least = least_of(leasts), grid = carry_grid(leasts, norm);
  }
  [[nodiscard]] CarriedStep step(const Row &r, int64_t t) const {
    const StepFacts f(r, t);
    double norms[kMaxGroups];
    int lsbs[kMaxGroups];
    for (int i = 0; i < kMaxGroups; ++i) norms[i] = f.groups[i].norm2, lsbs[i] = f.scale_lsbs[i];
    return carried_step_of(norms, lsbs, least, grid);
  }
};

/// The group at `at` of a row as BF16: elements times their scale.
std::array<uint16_t, kGroup> bf16_group(const Row &r, size_t at) {
  const GroupScale s = decode_scale(rule().scale, r.scales[at]);
  std::array<uint16_t, kGroup> words{};
  for (int i = 0; i < kGroup; ++i) {
    const int m = e2m1_twice(CodeView{r.codes.data() + at * 8, 4}[i]) * int(s.significand);
    words[size_t(i)] = uint16_t(bit_cast<uint32_t>(std::ldexp(float(m), s.exponent - 4)) >> 16);
  }
  return words;
}

/// Hopper's wgmma of K = 16: `sum` plus the group's products, those of A left out unless `of_a`.
float hopper_sum(float sum, const Row &a, const Row &b, size_t at, bool of_a) {
  static const UnitRule &r = find_unit("sm_90:wgmma.k16.f32.bf16").rule;
  const auto x = of_a ? bf16_group(a, at) : std::array<uint16_t, kGroup>{}, y = bf16_group(b, at);
  return bit_cast<float>(uint32_t(fdpa(r, {reinterpret_cast<const uint8_t *>(x.data()), 16},
                                       {reinterpret_cast<const uint8_t *>(y.data()), 16}, kGroup,
                                       bit_cast<uint32_t>(sum))));
}

struct Seen {
  int64_t carried = 0, both = 0, outgrown = 0, halved = 0, framed = 0, cut = 0, open = 0, wrong = 0;
};

/// One output: every step by every way that vouches for it.
void compare_chain(const Row &a, const Row &b, Seen &seen) {
  const RowFacts x(a), y(b);
  const float magic_a = frame_magic(true, x.norm), magic_b = frame_magic(false, y.norm);
  const bool holds = x.norm - x.lsb + y.norm - y.lsb <= 44 && x.max - x.lsb + y.max - y.lsb <= 35;
  const float limit = holds ? std::ldexp(1.0f, x.lsb + y.lsb + 36) : 0.0f;
  const Carry ca(a, x.norm), cb(b, y.norm);
  const bool carried = ca.holds && cb.holds && x.max - x.lsb + y.max - y.lsb <= 35;
  const float carried_limit = carried ? carry_limit(ca.grid + cb.least) : 0.0f;
  float acc = 0.0f;
  for (int64_t t = 0; t < a.steps(); ++t) {
    const StepGroups g = groups_of(a, b, t);
    const float want = bit_cast<float>(uint32_t(
        gst_fdpa(rule(), {a.codes.data() + t * 32, 4}, {b.codes.data() + t * 32, 4}, a.scales.data() + t * 4,
                 b.scales.data() + t * 4, bit_cast<uint32_t>(acc), Accumulation::mmasim)));
    const auto same = [&](float got) { seen.wrong += bit_cast<uint32_t>(got) != bit_cast<uint32_t>(want); };
    const StepFacts step(a, t);
    const StepHalves halves = halves_of(step.groups, step.width);
    if (std::fabs(acc) < limit && halves.width + StepFacts(b, t).width <= 48) {
      const float groups[] = {g.g0, g.g1, g.g2, g.g3};
      double high = 0, low = 0;
      for (int i = 0; i < kMaxGroups; ++i) ((halves.low >> i & 1) != 0 ? low : high) += double(groups[i]);
      seen.wrong += double(float(high)) != high || double(float(low)) != low; // 24 bits
      seen.halved += halves.low != 0;
      same(halved_step(acc, float(high), float(low)));
    }
    if (carried && ca.step(a, t).width + cb.step(b, t).norm - 8 * cb.least <= kCarriedWidth) {
      if (std::fabs(acc) < carried_limit) {
        const CarriedStep c = ca.step(a, t);
        float high, low;
        part_accumulator(acc, carry_magic(ca.grid + cb.least), high, low);
        const float groups[] = {g.g0, g.g1, g.g2, g.g3};
        double sums[] = {double(high), double(low)};
        for (int i = 0; i < kMaxGroups; ++i) {
          double &sum = sums[c.low >> i & 1];
          sum += double(groups[i]);
          seen.wrong += double(float(sum)) != sum; // 24 bits after every group
          const size_t at = size_t(t) * kMaxGroups + size_t(i);
          high = hopper_sum(high, a, b, at, (c.low >> i & 1) == 0);
          low = hopper_sum(low, a, b, at, (c.low >> i & 1) != 0);
        }
        ++seen.carried;
        seen.both += c.low != 0 && c.low != 15 && high != 0 && low != 0;
        seen.wrong += high != float(sums[0]) || low != float(sums[1]);
        same(add_rz(high, low));
      } else {
        ++seen.outgrown;
      }
    }
    if (std::fabs(acc) < limit) {
      ++seen.framed;
      same(framed_step(magic_a, magic_b, acc, g));
    }
    float result;
    if (cut_step(mul_rn(step.top(), StepFacts(b, t).top()), acc, g, result)) {
      ++seen.cut;
      same(result);
    } else {
      ++seen.open;
    }
    acc = want;
  }
}

enum class Data { lognormal1, lognormal3, raw, outliers, sparse };

Row random_row(Data data, int64_t steps, std::mt19937_64 &random) {
  std::normal_distribution<double> normal;
  Row r{std::vector<uint8_t>(size_t(steps * 32)), std::vector<uint8_t>(size_t(steps * 4))};
  const auto element = [&] { return uint8_t(encode(FormatId::e2m1, float(2.2 * normal(random)))); };
  for (uint8_t &c : r.codes) {
    c = data == Data::raw ? uint8_t(random()) : uint8_t(element() | element() << 4);
    if (data == Data::sparse && random() % 3 != 0) c &= 0x88;
  }
  for (uint8_t &s : r.scales) {
    double x = 1.0 + 0.5 * double(random() % 3);
    if (data == Data::lognormal1) x = std::exp(normal(random));
    if (data == Data::lognormal3 || data == Data::sparse) x = std::exp(3.0 * normal(random));
    if (data == Data::outliers && random() % 40 == 0) x = random() % 2 == 0 ? 448.0 : 0.0;
    s = data == Data::raw ? uint8_t(random() % 127) : uint8_t(encode(FormatId::ue4m3, float(x)));
  }
  return r;
}

} // namespace

TEST_CASE("roundings on the CPU are those of the rounding modes") {
  std::mt19937_64 random(5);
  const auto number = [&](int bits, int exponents) {
    const int64_t half = int64_t{1} << bits;
    return std::ldexp(float(int64_t(random() % uint64_t(2 * half)) - half),
                      int(random() % uint64_t(exponents)) - exponents / 2);
  };
  for (int i = 0; i < 200000; ++i) { // 64 bits hold every sum
    const float a = number(24, 36), b = number(24, 36), z = add_rz(a, b);
    const long double sum = static_cast<long double>(a) + b;
    REQUIRE(std::fabs(z) <= std::fabs(sum));
    REQUIRE(std::nextafter(std::fabs(z), INFINITY) > std::fabs(sum));
    const float x = number(20, 10), y = number(20, 10), c = i % 3 == 0 ? -x * y : number(20, 10);
    const long double fused = static_cast<long double>(x) * y + c;
    const float down = fma_down(x, y, c), up = fma_up(x, y, c);
    REQUIRE(down <= fused);
    REQUIRE(up >= fused);
    REQUIRE((up == down || std::nextafter(down, INFINITY) == up));
  }
}

TEST_CASE("steps in frames are the chain's words") {
  std::mt19937_64 random(11);
  Seen all;
  for (const Data data : {Data::lognormal1, Data::lognormal3, Data::raw, Data::outliers, Data::sparse})
    for (int i = 0; i < 300; ++i) {
      const Data other = i % 4 == 0 ? Data(random() % 5) : data;
      const int64_t steps = 1 + int64_t(random() % 64);
      compare_chain(random_row(data, steps, random), random_row(other, steps, random), all);
    }
  CHECK(all.wrong == 0);
  // every way is taken, and few steps are left to FP64
  CHECK(all.halved > 2000);
  CHECK(all.carried > 10000);
  CHECK(all.both > 1000);
  CHECK(all.framed > 5000);
  CHECK(all.cut > 20000);
  CHECK(all.open > 0);
  CHECK(all.open < 200);
}

TEST_CASE("groups of a step in halves") {
  // a large scale, two of a norm of 2^9.5 and 19 half bits each, and a group of zeros
  const double norm2 = std::ldexp(1.0, 19);
  const auto group = [&](int exponent) {
    return GroupNorm{std::ldexp(norm2, 2 * (exponent - 4)), exponent, exponent - 4};
  };
  const GroupNorm zero{0.0, 100, 100};
  const auto halves = [&](const GroupNorm(&g)[4], int width) {
    const StepHalves h = halves_of(g, width);
    return std::pair{h.low, h.width};
  };
  CHECK(halves({group(0), group(8), zero, group(0)}, 35) == std::pair{9u, 20});   // both low ones: 2 * 2^19
  CHECK(halves({group(8), group(0), group(-8), zero}, 51) == std::pair{6u, 36});  // of two ways the first
  CHECK(halves({group(-8), group(0), group(8), zero}, 51) == std::pair{1u, 36});
  CHECK(halves({group(3), group(3), group(3), group(3)}, 21) == std::pair{0u, 21}); // nothing to tell apart
  CHECK(halves({group(0), group(8), zero, zero}, 19) == std::pair{0u, 19});       // narrow as it is
  CHECK(halves({zero, zero, zero, zero}, 0) == std::pair{0u, 0});
  // of all thresholds the one that needs the fewest bits
  std::mt19937_64 random(7);
  int64_t parted = 0;
  for (int round = 0; round < 20000; ++round) {
    GroupNorm g[kMaxGroups];
    for (GroupNorm &x : g) {
      const int e = int(random() % 17) - 8, lsb = e - 4 + int(random() % 3);
      x = random() % 8 == 0 ? zero : GroupNorm{std::ldexp(double(1 + random() % 4095), 2 * (e - 4) + 8), e, lsb};
    }
    const int width = 20 + int(random() % 40);
    int least = width;
    for (int threshold = -9; threshold <= 9; ++threshold) {
      double sums[2] = {0, 0};
      int lsbs[2] = {1000, 1000};
      for (const GroupNorm &x : g)
        if (x.norm2 != 0) {
          const int side = x.exponent > threshold ? 1 : 0;
          sums[side] += x.norm2; // of few bits: exact
          lsbs[side] = std::min(lsbs[side], x.lsb);
        }
      if (sums[0] == 0 || sums[1] == 0) continue;
      least = std::min(least, std::max({ceil_log2(sums[1]) - 2 * lsbs[1], ceil_log2(sums[0]) - 2 * lsbs[0],
                                        ceil_log2(sums[0]) - 2 * lsbs[1] + 1}));
    }
    const StepHalves h = halves_of(g, width);
    REQUIRE(h.width == least);
    REQUIRE((h.low != 0) == (least < width));
    parted += h.low != 0;
  }
  CHECK(parted > 5000);
  // norms are added upward
  const double tiny = std::ldexp(1.0, -60);
  CHECK(sum_up(1.0, tiny) > 1.0);
  CHECK(sum_up(1.0, 1.0) == 2.0);
  CHECK(ceil_log2(1.0) == 0);
  CHECK(ceil_log2(1.0 + std::ldexp(1.0, -52)) == 1);
}

TEST_CASE("both sums of a step in halves, at the ends of what they may be") {
  std::mt19937_64 random(23);
  const auto whole = [&](int64_t most) { // near the ends, powers of two and zero among them
    const int64_t n = most - int64_t(random() % 3);
    const int kind = int(random() % 4);
    const int64_t x = kind == 0 ? n : kind == 1 ? int64_t{1} << random() % 24 : int64_t(random() % uint64_t(most));
    return random() % 2 == 0 ? std::min(x, most) : -std::min(x, most);
  };
  int64_t moved = 0;
  for (int i = 0; i < 1000000; ++i) {
    // high in whole numbers, low down to 2^-spare of them, the accumulator too
    const int spare = int(random() % 20);
    const double high = double(whole(1 << 24)),
                 low = std::ldexp(double(whole((1 << 24) - 1)), -int(random() % uint64_t(spare + 1)));
    const float acc = std::ldexp(float(whole((1 << 24) - 1)), int(random() % 22) - 20);
    const double sum = double(acc) + high + low; // at most 2^26, in 2^-20
    const float want = std::nextafter(float(sum), 0.0f), got = halved_step(acc, float(high), float(low));
    const float near = float(sum);
    REQUIRE(got == (std::fabs(double(near)) > std::fabs(sum) ? want : near));
    moved += double(got) != sum;
  }
  CHECK(moved > 100000);
}

TEST_CASE("grids at which accumulators are parted") {
  const auto set = [](std::initializer_list<int> lsbs) {
    uint64_t s = 0;
    for (const int l : lsbs) s |= least_bit(l);
    return s;
  };
  CHECK(carry_grid(set({-2, -1, 0, 5, 6}), 14) == 5);  // the gap's upper end
  CHECK(carry_grid(set({-2, -1, 0, 1, 2, 3}), 11) == 0); // no gap: 11 bits below the norm
  CHECK(carry_grid(set({-2, -1}), 4) == -2);           // never below the least
  CHECK(carry_grid(set({-2, -1}), 11) == 0);           // nothing above
  CHECK(carry_grid(set({-8, 20}), 30) == 5);           // at most 13 bits above the least
  CHECK(carry_grid(set({-8, 0, 20}), 12) == 5);
  CHECK(carry_grid(set({-2, 0, 5}), 11) == 5);           // from below a wide gap
  CHECK(carry_grid(set({-2, 0, 3}), 11) == 0);
  CHECK(least_of(set({3, -7, 22})) == -7);
  CHECK(carries(set({-39, 22})));
  CHECK_FALSE(carries(set({-40, 0})));
  CHECK_FALSE(carries(set({-1000, 0})));
  CHECK_FALSE(carries(set({0, 23})));
  CHECK_FALSE(carries(0));
  CHECK(eighth_bits(0.0) == -8000);
  CHECK(eighth_bits(1.0) == 0);
  CHECK(eighth_bits(2.0) == 4);
  CHECK(eighth_bits(4.0) == 8);
  CHECK(eighth_bits(std::nextafter(1.0, 2.0)) == 1);
  std::mt19937_64 random(29);
  for (int i = 0; i < 200000; ++i) { // roots of two among them, and their neighbours
    double x = std::ldexp(1.0 + double(random() >> 12) * 0x1p-52, int(random() % 81) - 40);
    if (i % 4 == 0) x = std::nextafter(std::exp2(double(int(random() % 81) - 40) / 4), i % 8 == 0 ? INFINITY : 0.0);
    const int q = eighth_bits(x);
    REQUIRE(exp2l(static_cast<long double>(q) / 4) >= x); // 64 bits: more than x has
    REQUIRE(exp2l(static_cast<long double>(q - 1) / 4) < x);
  }
  // parts of accumulators below the limit, down to 2^-14 grids
  int64_t parted = 0;
  for (int i = 0; i < 200000; ++i) {
    const int g = int(random() % 41) - 20;
    const int64_t n = int64_t(random() % (uint64_t{1} << 24));
    const float acc = std::ldexp(float(random() % 2 == 0 ? n : -n), g - int(random() % 15));
    if (std::fabs(acc) >= carry_limit(g)) continue;
    float high, low;
    part_accumulator(acc, carry_magic(g), high, low);
    const double grids = std::ldexp(double(high), -g);
    REQUIRE(double(high) + double(low) == double(acc));
    REQUIRE(grids / 2 == std::nearbyint(grids / 2));
    REQUIRE(std::fabs(low) <= std::ldexp(1.0f, g));
    parted += high != 0 && low != 0;
  }
  CHECK(parted > 50000);
}

TEST_CASE("cuts that add up at the edge of a word") {
  std::mt19937_64 random(17);
  int64_t cut = 0;
  for (int round = 0; round < 300000; ++round) {
    // in units of an eighth of what is cut below: unit = 2^(top - 38)
    const int exponent = int(random() % 5), largest = exponent - 20 + int(random() % 40),
              top = std::max(exponent, largest), unit = top - 38;
    if (exponent - 23 < unit) continue; // an accumulator that reaches below the units
    const int64_t word = (1 << 23) + int64_t(random() % 4), sign = random() % 2 == 0 ? 1 : -1,
                  acc_units = sign * word << (exponent - 23 - unit);
    int64_t kept = acc_units / 8 * 8;
    float g[kMaxGroups];
    for (float &x : g) {
      int64_t n = int64_t(random() % 81) - 40;
      if (random() % 3 == 0) n = sign * -6;
      if (random() % 4 == 0) n *= 8;
      if (random() % 16 == 0) n = sign * int64_t(random() % (1 << 19)) << 30; // a full group at the top
      if (random() % 8 == 0) n = sign * int64_t(random() % (1 << 19)) << 23 << random() % 6; // about where frames end
      kept += n / 8 * 8;                                                      // toward zero
      x = std::ldexp(float(n), unit);
    }
    int64_t magnitude = std::abs(kept);
    int spare = 0;
    while (magnitude >> spare >= 1 << 24) ++spare;
    magnitude = magnitude >> spare << spare;
    const float want = std::ldexp(float(kept < 0 ? -magnitude : magnitude), unit),
                acc = std::ldexp(float(acc_units), unit);
    // what rows know may be more than what the step has
    const float scale = std::ldexp(1.0f, largest + int(random() % 3));
    const StepGroups groups{g[0], g[1], g[2], g[3]};
    float result;
    if (cut_step(scale, acc, groups, result)) {
      REQUIRE(result == want);
      ++cut;
    }
  }
  CHECK(cut > 50000);
}

TEST_CASE("rows of zeros stay +0 where steps may be cut") {
  std::mt19937_64 random(3);
  Row zero = random_row(Data::raw, 4, random);
  for (uint8_t &c : zero.codes) c &= 0x88;
  Seen seen;
  compare_chain(zero, random_row(Data::lognormal3, 4, random), seen);
  CHECK(seen.wrong == 0);
  CHECK(seen.cut == 4);
  CHECK(seen.open == 0);
}

TEST_CASE("a model's operands take the same words") {
  const io::TensorFile file = io::read_tensors("golden/operands/gla-27m.safetensors");
  for (const std::string name : {"fprop", "dgrad", "wgrad"}) {
    const auto row = [&](const std::string &side, int64_t r) {
      const auto codes = file.elements<uint8_t>(name + side + ".codes"),
                 scales = file.elements<uint8_t>(name + side + ".scales");
      const int64_t c = int64_t(codes.size()) / 128, s = int64_t(scales.size()) / 128;
      return Row{{codes.begin() + r * c, codes.begin() + (r + 1) * c},
                 {scales.begin() + r * s, scales.begin() + (r + 1) * s}};
    };
    Seen seen;
    for (int64_t r = 0; r < 128; r += 3) compare_chain(row(".a", r), row(".b", (r * 7 + 5) % 128), seen);
    CHECK(seen.wrong == 0);
    CHECK(seen.framed > 100);
  }
}
