// SPDX-License-Identifier: Apache-2.0
// The exact units in doubles against their definition: the same words, and the engine says that it ran.
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "tests/catch.hpp"

#include <random>

namespace nvfp4::test {
namespace {

constexpr const char *kUnits[] = {"exact:dot.k64.f32.e2m1.ue4m3.block16", "exact:dot.k64.f32.e1m2.ue4m3.block16",
                                  "exact:dot.k64.f32.int4.ue4m3.block16"};

struct Codes {
  int64_t rows, k;
  std::vector<uint8_t> codes, scales;

  Codes(int64_t r, int64_t c)
      : rows(r), k(c), codes(size_t(r * ((c + 1) / 2))), scales(size_t(r * ((c + 15) / 16)), 0x38) {} // scales of 1
  void set(int64_t row, int64_t at, uint8_t code) {
    uint8_t &pair = codes[size_t(row * ((k + 1) / 2) + at / 2)];
    pair = uint8_t(at % 2 == 0 ? (pair & 0xF0) | code : (pair & 0x0F) | code << 4);
  }
  void scale(int64_t row, int64_t block, uint8_t code) { scales[size_t(row * ((k + 15) / 16) + block)] = code; }
  [[nodiscard]] GemmOperand operand(const Unit &unit, Side side) const {
    return make_operand(unit, side, RawCodes{rows, k, codes}, RawScales{scales, ScaleLayout::linear});
  }
};

/// Every code, scales of every size, of neighbours far apart, zeros, and NaN where wanted.
Codes random_codes(int64_t rows, int64_t k, bool nan, uint64_t seed) {
  std::mt19937_64 random(seed);
  Codes out(rows, k);
  for (int64_t r = 0; r < rows; ++r) {
    const bool sparse = random() % 4 == 0;
    for (int64_t i = 0; i < k; ++i) out.set(r, i, uint8_t(sparse && random() % 3 != 0 ? 0 : random() % 16));
    for (int64_t b = 0; b < (k + 15) / 16; ++b) {
      const uint64_t kind = random() % 8;
      out.scale(r, b, uint8_t(kind == 0 ? random() % 8 : kind == 1 ? 0x7E : kind == 2 ? 0 : random() % 0x7F));
      if (nan && random() % 97 == 0) out.scale(r, b, 0x7F);
    }
  }
  return out;
}

struct Words {
  std::vector<uint64_t> words;
  GemmReport report;
};
Words run(const Unit &unit, const Codes &a, const Codes &b, Isa isa, int threads = 1) {
  Words out{std::vector<uint64_t>(size_t(a.rows * b.rows)), {}};
  out.report = GemmPlan(unit, {.threads = threads, .isa = isa})
                   .accumulate(a.operand(unit, Side::a), b.operand(unit, Side::b), out.words);
  return out;
}

} // namespace

TEST_CASE("exact sums in doubles have the words of the definition", "[gemm][exact]") {
  for (const char *name : kUnits) {
    const Unit &unit = find_unit(name);
    uint64_t seed = 1;
    for (const auto &[m, n, k] : {std::tuple(1, 1, 64), {3, 5, 7}, {4, 16, 640}, {9, 33, 200}, {70, 67, 130}, {2, 70, 1090}})
      for (const bool nan : {false, true}) {
        const Codes a = random_codes(m, k, nan, ++seed), b = random_codes(n, k, nan, ++seed);
        const Words want = run(unit, a, b, Isa::scalar);
        CHECK(want.report.engine == GemmEngine::definition);
        int64_t of_nan = 0;
        for (const uint64_t w : want.words) of_nan += (w & 0x7FFFFFFF) > 0x7F800000;
        for (const Isa isa : kVectorIsas) {
          if (!supported(isa)) continue;
          const Words got = run(unit, a, b, isa, 3);
          CAPTURE(name, m, n, k, nan, to_string(isa));
          CHECK(got.report.engine == GemmEngine::exact_vector);
          CHECK(got.report.by_definition == of_nan);
          CHECK(got.words == want.words);
        }
      }
  }
}

TEST_CASE("a sum longer than a double is rounded once", "[gemm][exact]") {
  // 256 steps of 64 (-8 * 2^8)^2 make 2^36, whose last bit is 2^13 in FP32 and 2^-16 in a double; then 2^12, a tie, and
  // 2^-18 beside it, which breaks it
  const Unit &unit = find_unit(kUnits[2]);
  for (const bool less : {false, true}) {
    const int64_t k = 257 * 64;
    Codes a(2, k), b(2, k);
    for (Codes *x : {&a, &b}) {
      for (int64_t i = 0; i < 256 * 64; ++i) x->set(0, i, 8);
      for (int64_t block = 0; block < 256 * 4; ++block) x->scale(0, block, 0x78); // 2^8
      x->set(0, 256 * 64, 1);
      x->scale(0, 256 * 4, 0x68); // 2^6
      x->scale(0, 256 * 4 + 1, 0x01); // 2^-9
      x->set(0, 256 * 64 + 16, 1);
    }
    if (less) a.set(0, 256 * 64 + 16, 0xF); // -1
    const Words want = run(unit, a, b, Isa::scalar);
    CHECK(bit_cast<float>(uint32_t(want.words[0])) == (less ? 0x1p36f : 0x1p36f + 0x1p13f));
    for (const Isa isa : kVectorIsas)
      if (supported(isa)) CHECK(run(unit, a, b, isa).words == want.words);
  }
}

TEST_CASE("exact units of other scales, and chains that go on, are left to the definition", "[gemm][exact]") {
  const Codes a = random_codes(4, 128, false, 1), b = random_codes(4, 128, false, 2);
  for (const Isa isa : kVectorIsas) {
    if (!supported(isa)) continue;
    CHECK(run(find_unit("exact:dot.k64.f32.int4.ue5m3.block16"), a, b, isa).report.engine == GemmEngine::definition);
    const Unit &unit = find_unit(kUnits[0]);
    std::vector<uint64_t> acc(16), start(16, 0x3F800000), want(16);
    const GemmOperand x = a.operand(unit, Side::a), y = b.operand(unit, Side::b);
    CHECK(GemmPlan(unit, {.isa = isa}).accumulate(x, y, acc, start).engine == GemmEngine::definition);
    GemmPlan(unit, {.isa = Isa::scalar}).accumulate(x, y, want, start);
    CHECK(acc == want);
  }
}

} // namespace nvfp4::test
