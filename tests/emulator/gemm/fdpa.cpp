// SPDX-License-Identifier: Apache-2.0
// The FDPA engine against the definition: every unit with an FP32 accumulator, element classes from ordinary
// to raw words, ragged shapes, and sums at the edge of 32 bits.
#include "tests/emulator/gemm/support.hpp"

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

enum class Elements { normal, lognormal4, lognormal20, raw_finite, raw, largest, zeros };
constexpr Elements kClasses[] = {Elements::normal,     Elements::lognormal4, Elements::lognormal20,
                                 Elements::raw_finite, Elements::raw,        Elements::largest,
                                 Elements::zeros};
const char *name(Elements e) {
  const char *names[] = {"normal", "lognormal4", "lognormal20", "raw_finite", "raw", "largest", "zeros"};
  return names[int(e)];
}

uint64_t element(FormatId id, Elements e, Random &random) {
  const Format f = format(id);
  const auto rounded = [&](double x) {
    return convert(f, format(FormatId::f64), bit_cast<uint64_t>(x), Rounding::nearest_even,
                   Overflow::satfinite);
  };
  const double sign = random.below(2) == 0 ? 1 : -1;
  switch (e) {
  case Elements::normal: return rounded(random.normal());
  case Elements::lognormal4: return rounded(sign * std::exp2(4 * random.normal()));
  case Elements::lognormal20: return rounded(sign * std::exp2(20 * random.normal()));
  case Elements::raw_finite:
    for (;;) {
      const uint64_t w = random() & ((uint64_t{1} << f.storage_bits) - 1);
      const Decoded d = decode(f, w);
      if (d.cls == Class::finite || d.cls == Class::zero) return w;
    }
  case Elements::raw: return random() & ((uint64_t{1} << f.storage_bits) - 1);
  case Elements::largest: { // all-ones significands of few exponents: sums reach past 31 bits
    const int exponent = random.below(8) == 0 ? random.below(3) : 0;
    return rounded(std::ldexp(2 - std::ldexp(1.0, -f.mantissa_bits), exponent));
  }
  case Elements::zeros: return random.below(4) == 0 ? rounded(random.normal()) : rounded(sign * 0.0);
  }
  return 0;
}

Matrix random_matrix(const UnitRule &rule, FormatId id, int64_t rows, int64_t k, Elements e, Random &random) {
  const int bytes = format(id).storage_bits / 8;
  Matrix m{rows, k, {}, {}};
  if (bytes == 0) { // two codes to a byte
    m.codes.resize(size_t(rows * ((k + 1) / 2)));
    for (uint8_t &c : m.codes) c = uint8_t(element(id, e, random) | element(id, e, random) << 4);
  } else {
    m.codes.resize(size_t(rows * k * bytes));
    for (size_t i = 0; i < m.codes.size(); i += size_t(bytes)) {
      uint64_t word = element(id, e, random);
      // raw words, but mostly without NaN and Inf: the vector path has to see them as well
      if (e == Elements::raw && random.below(64) != 0) word = element(id, Elements::raw_finite, random);
      std::memcpy(&m.codes[i], &word, size_t(bytes));
    }
  }
  if (rule.scale_block == 0) return m;
  m.scales.resize(size_t(rows * ((k + rule.scale_block - 1) / rule.scale_block)));
  const int kind = random.below(4); // equal, near, wide, raw
  for (uint8_t &s : m.scales)
    s = kind == 0   ? uint8_t(127)
        : kind == 1 ? uint8_t(120 + random.below(14))
        : kind == 2 ? uint8_t(87 + random.below(80))
                    : uint8_t(random());
  // a block of zeros may have any scale
  const int64_t blocks = int64_t(m.scales.size()) / rows, bits = std::max(8 * bytes, 4),
                row_bytes = int64_t(m.codes.size()) / rows;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t s = 0; s < blocks; ++s) {
      if (random.below(5) != 0) continue;
      const int64_t first = s * rule.scale_block * bits / 8,
                    last = std::min(row_bytes, (s + 1) * rule.scale_block * bits / 8);
      std::fill(m.codes.begin() + r * row_bytes + first, m.codes.begin() + r * row_bytes + last, uint8_t{0});
      m.scales[size_t(r * blocks + s)] = uint8_t(random.below(2) == 0 ? 254 : random.below(4));
    }
  return m;
}

/// One unit per rule that an engine may take.
std::vector<const Unit *> units() {
  std::vector<const Unit *> list;
  std::vector<std::string> seen;
  for (const Unit &u : catalogue()) {
    const UnitRule &r = u.rule;
    if ((r.family != Family::fdpa && r.family != Family::st_fdpa) || r.acc != FormatId::f32) continue;
    const std::string key = std::to_string(int(r.family)) + " " + std::to_string(int(r.a)) + " " +
                            std::to_string(int(r.b)) + " " + std::to_string(r.k) + " " +
                            std::to_string(r.link) + " " + std::to_string(r.fraction_bits) + " " +
                            std::to_string(int(r.output));
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) continue;
    seen.push_back(key);
    list.push_back(&u);
  }
  return list;
}

} // namespace

TEST_CASE("FDPA products equal the definition on every unit with an FP32 accumulator", "[gemm][fdpa]") {
  Random random{99};
  for (const Unit *unit : units())
    for (const Elements e : kClasses) {
      const Elements other = random.below(2) == 0 ? e : kClasses[random.below(7)];
      const int64_t m = 1 + random.below(10), n = 1 + random.below(36),
                    k = 1 + random.below(random.below(6) == 0 ? 600 : 100);
      const Matrix a = random_matrix(unit->rule, unit->rule.a, m, k, e, random);
      const Matrix b = random_matrix(unit->rule, unit->rule.b, n, k, other, random);
      check_product(*unit, a, b, std::string(name(e)) + " x " + name(other), Accumulation::mmasim,
                    1 + random.below(3));
    }
}

TEST_CASE("BF16 products cross blocks of rows, columns and K", "[gemm][fdpa]") {
  const Unit &unit = find_unit("sm_90:wgmma.k16.f32.bf16");
  Random random{3};
  const Matrix a = random_matrix(unit.rule, FormatId::bf16, 262, 530, Elements::normal, random);
  const Matrix b = random_matrix(unit.rule, FormatId::bf16, 131, 530, Elements::lognormal4, random);
  const std::vector<uint64_t> want = accumulate(unit, a, b, Isa::scalar);
  for (const int threads : {1, 2, 3})
    for (const Isa isa : kVectorIsas)
      if (supported(isa))
        CHECK(first_difference(accumulate(unit, a, b, isa, Accumulation::mmasim, threads), want, b.rows) ==
              "");
}

TEST_CASE("MXFP8 blocks of zeros may have any scale", "[gemm][fdpa]") {
  const Unit &unit = find_unit("sm_100:tcgen05.k32.f32.mxf8f6f4.e4m3.ue8m0.block32");
  Random random{5};
  for (const uint8_t other : {uint8_t(20), uint8_t(127), uint8_t(180)}) {
    Matrix a{255, 96, std::vector<uint8_t>(255 * 96, 0), {}},
        b = random_matrix(unit.rule, unit.rule.b, 20, 96, Elements::normal, random);
    b.scales.assign(b.scales.size(), 127);
    for (size_t r = 0; r < 20; ++r) b.scales[3 * r + 1] = other;
    for (size_t r = 0; r < 255; ++r) {
      for (size_t k = 0; k < 32; ++k)
        a.codes[96 * r + k] = a.codes[96 * r + 64 + k] =
            uint8_t(element(unit.rule.a, Elements::normal, random));
      a.scales.insert(a.scales.end(), {uint8_t(127), uint8_t(r), uint8_t(120)});
    }
    check_product(unit, a, b, "zero block");
  }
}
