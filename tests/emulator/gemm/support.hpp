// SPDX-License-Identifier: Apache-2.0
// What the GEMM tests share: random operands of named classes, and the comparison of every instruction set
// with the definition, output by output and word by word.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/tensorcore/accumulation.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

namespace nvfp4::test {

/// SplitMix64.
struct Random {
  uint64_t state;

  uint64_t operator()() {
    uint64_t z = (state += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  int below(int n) { return int((*this)() % uint64_t(n)); }
  double uniform() { return double((*this)() >> 11) * 0x1p-53; }
  double normal() {
    return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(6.283185307179586 * uniform());
  }
};

struct Matrix {
  int64_t rows, k;
  std::vector<uint8_t> codes, scales;
};

/// Accumulators of a product on one instruction set.
inline std::vector<uint64_t> accumulate(const Unit &unit, const Matrix &a, const Matrix &b, Isa isa,
                                        Accumulation accumulation = Accumulation::mmasim, int threads = 2) {
  GemmOptions options;
  options.isa = isa;
  options.accumulation = accumulation;
  options.threads = threads;
  if (unit.rule.acc == FormatId::f64) options.out = FormatId::f64;
  std::vector<uint64_t> acc(size_t(a.rows * b.rows), 0xDEADBEEF);
  GemmPlan(unit, options)
      .accumulate(make_operand(unit, Side::a, RawCodes{a.rows, a.k, a.codes},
                               RawScales(a.scales, ScaleLayout::linear)),
                  make_operand(unit, Side::b, RawCodes{b.rows, b.k, b.codes},
                               RawScales(b.scales, ScaleLayout::linear)),
                  acc);
  return acc;
}

/// The first output that differs, as text; empty when all words agree.
inline std::string first_difference(const std::vector<uint64_t> &got, const std::vector<uint64_t> &want,
                                    int64_t n) {
  for (size_t o = 0; o < want.size(); ++o)
    if (got[o] != want[o]) {
      char text[160];
      std::snprintf(text, sizeof text, "output (%lld, %lld): got %llx, want %llx",
                    static_cast<long long>(int64_t(o) / n), static_cast<long long>(int64_t(o) % n),
                    static_cast<unsigned long long>(got[o]), static_cast<unsigned long long>(want[o]));
      return text;
    }
  return "";
}

/// Every supported vector instruction set against the definition.
inline void check_product(const Unit &unit, const Matrix &a, const Matrix &b, const std::string &what,
                          Accumulation accumulation = Accumulation::mmasim, int threads = 2) {
  const std::vector<uint64_t> want = accumulate(unit, a, b, Isa::scalar, accumulation);
  for (const Isa isa : kVectorIsas) {
    if (!supported(isa)) continue;
    INFO(unit.name() << " " << to_string(isa) << " " << to_string(accumulation) << " " << what << " ["
                     << a.rows << ", " << b.rows << ", " << a.k << "]");
    CHECK(first_difference(accumulate(unit, a, b, isa, accumulation, threads), want, b.rows) == "");
  }
}

} // namespace nvfp4::test
