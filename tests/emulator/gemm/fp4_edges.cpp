// SPDX-License-Identifier: Apache-2.0
// Directed cases at the edge of every shortcut of the FP4 engine: spans of 26 to 28, accumulators that cut a
// group, groups that cancel but keep their exponent, sums of a step that just fit 24 bits. Moving a bound of
// fp4_engine.cpp by one in the unsafe direction fails here.
#include "tests/emulator/gemm/support.hpp"

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

const Unit &unit16() { return find_unit("sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"); }
const Unit &unit32() { return find_unit("sm_120:mma.m16n8k64.f32.mxf4.ue8m0.block32"); }

/// What the 16 codes of a group are: nothing, one small product, a pair that cancels, or all of the largest.
enum class Codes { zero, one, minus_one, cancel, largest, minus_largest, any };

/// A row or column, group after group.
struct Line {
  std::vector<uint8_t> codes, scales; // nibbles packed

  /// Appends a group of 16. Signs belong to A: B's line has the magnitudes.
  void add(Codes c, bool a_side, uint8_t scale, Random &random) {
    uint8_t x[16] = {};
    switch (c) {
    case Codes::zero: break;
    case Codes::one: x[0] = 1; break;
    case Codes::minus_one: x[0] = a_side ? 9 : 1; break;
    case Codes::cancel:
      x[0] = x[1] = 7;
      if (a_side) x[1] = 15;
      break;
    case Codes::largest: std::fill_n(x, 16, uint8_t{7}); break;
    case Codes::minus_largest: std::fill_n(x, 16, uint8_t(a_side ? 15 : 7)); break;
    case Codes::any:
      for (uint8_t &v : x) v = uint8_t(random()) & 15;
      break;
    }
    for (int i = 0; i < 16; i += 2) codes.push_back(uint8_t(x[i] | x[i + 1] << 4));
    scales.push_back(scale);
  }
};

/// A UE4M3 code: exponent -6 (with an odd significand for `odd`) to 8.
uint8_t ue4m3(int exponent, bool odd, Random &random) {
  if (exponent == -6 && odd) return random.below(2) == 0 ? 0x01 : 0x09;
  return uint8_t(((exponent + 7) << 3) | (odd ? (exponent == 8 ? 5 : 7) : 0));
}

Matrix stack(const std::vector<Line> &lines, int64_t k) {
  Matrix m{int64_t(lines.size()), k, {}, {}};
  for (const Line &l : lines) {
    m.codes.insert(m.codes.end(), l.codes.begin(), l.codes.end());
    m.scales.insert(m.scales.end(), l.scales.begin(), l.scales.end());
  }
  return m;
}

} // namespace

TEST_CASE("FP4 accumulators and groups at the edge of alignment", "[gemm][fp4][edges]") {
  Random random{11};
  const Codes menu[] = {Codes::zero,   Codes::one,     Codes::minus_one,     Codes::minus_one,
                        Codes::cancel, Codes::largest, Codes::minus_largest, Codes::any};
  for (int round = 0; round < 150; ++round) {
    const int low = -6, high = 8 - random.below(4); // spans from 22 to 28 with both sides
    const int high_b = 8 - random.below(2), steps = 1 + random.below(round % 10 == 0 ? 40 : 4);
    std::vector<Line> a(9), b(18);
    // one pattern of codes per group for both sides: products are what the menu says
    for (int g = 0; g < 4 * steps; ++g) {
      const Codes c = menu[random.below(8)];
      const bool small =
          c == Codes::one || c == Codes::minus_one ? random.below(4) != 0 : random.below(4) == 0;
      for (Line &l : a)
        l.add(random.below(8) == 0 ? menu[random.below(8)] : c, true,
              ue4m3(small ? low : high, random.below(4) != 0, random), random);
      for (Line &l : b) l.add(c, false, ue4m3(small ? low : high_b, random.below(4) != 0, random), random);
    }
    const Matrix ma = stack(a, 64 * steps), mb = stack(b, 64 * steps);
    for (const Accumulation model : enumerators<Accumulation>())
      check_product(unit16(), ma, mb, "round " + std::to_string(round), model);
  }
}

TEST_CASE("an FP4 group is cut once the accumulator reaches 2^(28 + its exponent)", "[gemm][fp4][edges]") {
  // The accumulator grows, by just under 2^(13 + e) a step or in powers of two; then comes the smallest
  // possible negative group, 2^-20: cut, it vanishes; kept, truncation toward zero takes the accumulator's
  // last place.
  Random random{12};
  for (const Accumulation model : {Accumulation::mmasim, Accumulation::nadpe, Accumulation::tcgen05_model})
    for (int e = -12; e <= 15; ++e)
      for (const bool powers : {false, true})
        for (const int grow : {1, 2, 3, 4, 7, 8, 15, 16, 31}) {
          const int ea = std::min(e + 6, 8), eb = e - ea;
          Line a, b;
          for (int g = 0; g < 4 * grow; ++g) {
            const int ones = powers ? 0 : 7; // significand 8 or 15; 14 where 15 is NaN
            const auto scale = [&](int x) {
              return uint8_t((x + 7) << 3 | (x == 8 && ones != 0 ? 6 : ones));
            };
            a.add(powers ? Codes::one : Codes::largest, true, scale(ea), random);
            b.add(powers ? Codes::one : Codes::largest, false, scale(eb), random);
          }
          for (int g = 0; g < 4; ++g) {
            a.add(g == 0 ? Codes::minus_one : Codes::zero, true, 0x01, random);
            b.add(Codes::one, false, 0x01, random);
          }
          check_product(unit16(), stack({a}, 64 * (grow + 1)), stack({b}, 64 * (grow + 1)),
                        "e " + std::to_string(e) + " grow " + std::to_string(grow), model);
        }
}

TEST_CASE("FP4 steps whose sum just fits FP32, and just does not", "[gemm][fp4][edges]") {
  Random random{13};
  for (int spread = 0; spread <= 14; ++spread)
    for (int round = 0; round < 4; ++round) {
      std::vector<Line> a(8), b(16);
      const int steps = 3;
      for (int g = 0; g < 4 * steps; ++g) {
        const bool small = random.below(2) == 0;
        for (Line &l : a) l.add(Codes::any, true, ue4m3(small ? -6 : -6 + spread, true, random), random);
        for (Line &l : b)
          l.add(round % 2 == 0 ? Codes::any : Codes::largest, false, ue4m3(0, true, random), random);
      }
      check_product(unit16(), stack(a, 64 * steps), stack(b, 64 * steps), "spread " + std::to_string(spread));
    }
}

TEST_CASE("MXFP4 scales over spans, both ends of FP32, and halves of a block cut one by one",
          "[gemm][fp4][edges]") {
  Random random{14};
  const Codes menu[] = {Codes::zero, Codes::one, Codes::minus_one, Codes::cancel, Codes::largest, Codes::any};
  for (int round = 0; round < 600; ++round) {
    // exponents of both sides: in the middle, anywhere, or such that sums meet an end of FP32
    const int kind = random.below(4), steps = 1 + random.below(4);
    const int base = kind < 2    ? 90 + random.below(80)
                     : kind == 2 ? random.below(255)
                                 : random.below(2) * 180 + random.below(60);
    const int other = kind < 2 ? 127 : random.below(255);
    const int span = kind == 3 ? random.below(6) : 24 + random.below(8);
    std::vector<Line> a(8), b(16);
    for (int block = 0; block < 2 * steps; ++block) {
      const auto scale = [&](int x) { return uint8_t(x < 0 ? 0 : x > 254 ? 254 : x); };
      const uint8_t sa = scale(base + (random.below(2) == 0 ? span : 0)), sb = scale(other + random.below(2));
      for (int half = 0; half < 2; ++half) {
        const Codes c = menu[random.below(6)];
        for (Line &l : a) l.add(c, true, sa, random);
        for (Line &l : b) l.add(c, false, sb, random);
      }
      for (std::vector<Line> *side : {&a, &b})
        for (Line &l : *side) l.scales.pop_back(); // one scale per 32
    }
    const Matrix ma = stack(a, 64 * steps), mb = stack(b, 64 * steps);
    for (const Accumulation model : enumerators<Accumulation>())
      check_product(unit32(), ma, mb, "round " + std::to_string(round), model);
  }
}

TEST_CASE("blocks of zeros under the largest scales add nothing", "[gemm][fp4][edges]") {
  // 2^127 * 2^127 is Inf in FP32 and Inf * 0 is NaN; a row of nothing but such blocks is 0
  Random random{14};
  std::vector<Line> a(9), b(18);
  for (std::vector<Line> *side : {&a, &b})
    for (size_t r = 0; r < side->size(); ++r)
      for (int block = 0; block < 4; ++block) {
        const bool zero = r == 0 || (block + int(r)) % 3 == 0;
        Line &l = (*side)[r];
        for (int half = 0; half < 2; ++half)
          l.add(zero ? Codes::zero : Codes::any, side == &a, uint8_t(zero ? 254 - random.below(40) : 120 + random.below(9)),
                random);
        l.scales.pop_back(); // one scale per 32
      }
  const Matrix ma = stack(a, 128), mb = stack(b, 128);
  for (const Accumulation model : enumerators<Accumulation>()) check_product(unit32(), ma, mb, "zeros", model);
}
