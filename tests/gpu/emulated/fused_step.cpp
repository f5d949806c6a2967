// SPDX-License-Identifier: Apache-2.0
// The GPU's steps of 32 products with 25 fraction bits, on the CPU: chains against the definition, word by
// word, on operands of several formats, with and without scales, tame and wild.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/gpu/emulated/gemm_parts_step.hpp"
#include "nvfp4/tests/catch.hpp"

#include <random>

using namespace nvfp4;
using namespace nvfp4::cuda;

namespace {

enum class Data { filling, normal, graded, spread, raw, sparse, flat, spikes, edge };
constexpr Data kData[] = {Data::filling, Data::normal, Data::graded, Data::spread, Data::raw,
                          Data::sparse,  Data::flat,   Data::spikes, Data::edge};

struct Row {
  FormatId format;
  std::vector<uint8_t> codes, scales; ///< codes one to a byte or two; scales empty where the unit has none
};

Row random_row(const UnitRule &rule, FormatId id, Data data, int64_t steps, std::mt19937_64 &random) {
  const Format f = format(id);
  std::normal_distribution<double> normal;
  Row r{id, std::vector<uint8_t>(size_t(steps * kPartsLink * f.storage_bits / 8)), {}};
  const bool one_sign = random() % 4 != 0;
  const double full = value(id, f.max_finite_magnitude()) / 4;
  const double peak = full * (random() % 4 == 0 ? 3.9 : random() % 4 == 0 ? 2.7 : 3.65);
  for (size_t i = 0; i < size_t(steps) * kPartsLink; ++i) {
    double x = normal(random) * (data == Data::normal ? 1.0 : full);
    if (data == Data::spread) x = std::ldexp(x, -int(random() % 20));
    if (data == Data::graded) x = std::ldexp(x, -int(random() % 7));
    if (data == Data::flat ||
        data == Data::spikes) { // sums as large as can be, of high parts and of low ones
      const bool small = data == Data::spikes && i % 8 != 0,
                 odd_one = data == Data::flat && i % kPartsLink == 7;
      x = std::ldexp(one_sign ? peak : std::copysign(peak, x), small     ? -7
                                                               : odd_one ? -5 - int(random() % 10)
                                                                         : 0);
    }
    if (data == Data::edge) { // one product that may be cut by one bit
      x = std::ldexp(x < 0 ? -1.0 : 1.0, std::ilogb(4 * full) - int(random() % 2));
      if (i % kPartsLink == 7)
        x = std::ldexp(1 + std::ldexp(1.0, -f.mantissa_bits), std::ilogb(4 * full) - 8 - int(random() % 5));
    }
    uint64_t code = encode(id, float(x), Rounding::nearest_even, Overflow::satfinite);
    if (data == Data::raw) {
      code = random() & ((uint64_t{1} << f.code_bits) - 1);
      const Class c = decode(f, code).cls;
      if (c == Class::nan || c == Class::infinity) code = 0;
    }
    if (data == Data::sparse && random() % 4 != 0) code = with_sign(f, random() % 2 != 0, 0);
    r.codes[i * size_t(f.storage_bits) / 8] =
        uint8_t(r.codes[i * size_t(f.storage_bits) / 8] | code << (f.storage_bits == 4 ? i % 2 * 4 : 0));
  }
  for (int64_t t = 0; rule.scale_block != 0 && t < steps; ++t)
    r.scales.push_back(uint8_t(127 + int(random() % (data == Data::spread ? 21 : 3)) - 10));
  return r;
}

/// A step of one row as gemm_parts_prepare.cu makes it.
struct Step {
  float high[kPartsLink], low[kPartsLink], inverse[kPartsLink], largest = 0.0f, least;
  PartNorms norms{0.0f, 0.0f};

  Step(const Row &r, int64_t t) {
    const Format f = format(r.format);
    const int shift = r.scales.empty() ? 0 : int(r.scales[size_t(t)]) - 127;
    float x[kPartsLink];
    least = power_of_two(f.min_exponent() + shift);
    for (int i = 0; i < kPartsLink; ++i) {
      x[i] = std::ldexp(float(value(r.format, CodeView{r.codes.data(), f.storage_bits}[t * kPartsLink + i])),
                        shift);
      largest = std::fmax(largest, field_power(x[i], least));
    }
    for (int i = 0; i < kPartsLink; ++i) {
      const bool part = in_high_part(x[i], largest);
      high[i] = part ? x[i] : 0.0f;
      low[i] = part ? 0.0f : x[i];
      inverse[i] = inverse_of_lowest(x[i]);
      const float share = largest == 0.0f ? 0.0f : x[i] / largest;
      norms.whole = fma_up(share, share, norms.whole);
      if (!part) norms.low = fma_up(share, share, norms.low);
    }
  }
  [[nodiscard]] float operator[](int i) const { return high[i] + low[i]; }
};

struct Seen {
  int64_t whole = 0, cut = 0, wide = 0, wrong = 0;
};

float repaired(const Step &a, const Step &b, float acc) {
  float top = leading_power(acc);
  for (int i = 0; i < kPartsLink; ++i)
    top = std::fmax(top, field_power(a[i], a.least) * field_power(b[i], b.least));
  if (top == 0.0f) return 0.0f;
  int64_t sum = cut_term(acc, lift_of(top));
  for (int i = 0; i < kPartsLink; ++i) sum += cut_term(a[i] * b[i], lift_of(top));
  return sum_of_terms(sum, top);
}

void compare_chain(const UnitRule &rule, const Row &x, const Row &y, int64_t steps, Seen &seen) {
  const Format fa = format(rule.a), fb = format(rule.b);
  const float limit = high_limit(fa.mantissa_bits, fb.mantissa_bits);
  float acc = 0.0f;
  for (int64_t t = 0; t < steps; ++t) {
    const Step a(x, t), b(y, t);
    const uint64_t word = fdpa(
        rule, CodeView{x.codes.data(), fa.storage_bits}.from(t * kPartsLink),
        CodeView{y.codes.data(), fb.storage_bits}.from(t * kPartsLink), kPartsLink, bit_cast<uint32_t>(acc),
        x.scales.empty() ? 0 : int(x.scales[size_t(t)]) + int(y.scales[size_t(t)]) - 254);
    const float want = bit_cast<float>(uint32_t(word));
    double high = 0, low = 0, inverse = 0;
    for (int i = 0; i < kPartsLink; ++i) {
      high += double(a.high[i]) * double(b.high[i]);
      low += double(a.high[i]) * double(b.low[i]) + double(a.low[i]) * double(b[i]);
      inverse += double(a.inverse[i]) * double(b.inverse[i]);
    }
    float result = 0;
    if (!sums_are_exact(a.norms, b.norms, limit)) {
      ++seen.wide;
    } else {
      seen.wrong += double(float(high)) != high;
      if (fused_step(a.largest * b.largest, float(high), float(low),
                     toward_zero(float(inverse), inverse - double(float(inverse))), acc, result)) {
        seen.wrong += double(float(low)) != low;
        seen.wrong += bit_cast<uint32_t>(result) != bit_cast<uint32_t>(want);
        ++seen.whole;
      } else {
        ++seen.cut;
      }
    }
    seen.wrong += bit_cast<uint32_t>(repaired(a, b, acc)) != bit_cast<uint32_t>(want);
    acc = want;
  }
}

} // namespace

TEST_CASE("fused steps of 32 products are the chain's words") {
  std::mt19937_64 random(23);
  int64_t wide = 0; // steps with sums of more bits than FP32 has
  for (const char *name :
       {"sm_120:mma.m16n8k32.f32.e4m3", "sm_120:mma.m16n8k32.f32.e5m2", "sm_100:tcgen05.k32.f32.e4m3.e5m2",
        "sm_120:mma.m16n8k32.f32.e3m2.e2m3", "sm_120:mma.m16n8k32.f32.mxf8f6f4.e4m3.ue8m0.block32",
        "sm_120:mma.m16n8k32.f32.mxf8f6f4.e2m1.e5m2.ue8m0.block32"}) {
    const UnitRule &rule = find_unit(name).rule;
    Seen all;
    for (const Data data : kData)
      for (int i = 0; i < (data == Data::edge ? 600 : 120); ++i) {
        const Data other = data == Data::spikes ? Data::flat
                           : i % 4 == 0         ? kData[random() % std::size(kData)]
                                                : data;
        const int64_t steps = 1 + int64_t(random() % 64);
        Seen seen;
        compare_chain(rule, random_row(rule, rule.a, data, steps, random),
                      random_row(rule, rule.b, other, steps, random), steps, seen);
        all.whole += seen.whole, all.cut += seen.cut, all.wide += seen.wide, all.wrong += seen.wrong;
      }
    INFO(name << ": whole " << all.whole << " cut " << all.cut << " wide " << all.wide);
    CHECK(all.wrong == 0);
    CHECK(all.whole > 5000);
    wide += all.wide;
    if (format(rule.a).exponent_bits + format(rule.b).exponent_bits > 6) CHECK(all.cut > 20);
  }
  CHECK(wide > 100);
}
