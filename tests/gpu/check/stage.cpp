// SPDX-License-Identifier: Apache-2.0
// What nvfp4 crosscheck says of a word that differs: words made with a changed definition are traced back to
// the change and to the stage where the chains part.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/gpu/check/stage.hpp"
#include "tests/catch.hpp"

#include <cstring>
#include <random>

using namespace nvfp4;

namespace {

/// FP16 operands of two instructions; exponents far enough apart that alignment cuts.
struct Operands {
  std::vector<uint16_t> a, b;
  explicit Operands(uint64_t seed, int64_t k) {
    std::mt19937_64 random(seed);
    for (int64_t i = 0; i < k; ++i) {
      a.push_back(uint16_t((random() & 0x83FF) | (5 + random() % 20) << 10));
      b.push_back(uint16_t((random() & 0x83FF) | (5 + random() % 20) << 10));
    }
  }
  [[nodiscard]] DotOperands view() const {
    return {{reinterpret_cast<const uint8_t *>(a.data()), 16},
            {reinterpret_cast<const uint8_t *>(b.data()), 16}};
  }
};

bool contains(const std::string &text, const char *part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("a word made with another rule is traced back to its stage", "[crosscheck]") {
  const UnitRule &rule = find_unit("sm_90:mma.m16n8k16.f32.f16").rule;
  const int64_t k = 2 * rule.k;
  int narrower = 0, rounded = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const Operands x(seed, k);
    const uint64_t word = dot(rule, x.view(), k, 0, Accumulation::mmasim);
    REQUIRE(crosscheck::explain_word(rule, x.view(), k, 0, Accumulation::mmasim, word) == "equal");

    UnitRule narrow = rule;
    narrow.fraction_bits = int16_t(rule.fraction_bits - 2);
    const uint64_t cut = dot(narrow, x.view(), k, 0, Accumulation::mmasim);
    if (cut != word) {
      const std::string text = crosscheck::explain_word(rule, x.view(), k, 0, Accumulation::mmasim, cut);
      REQUIRE(contains(text, "as with"));
      narrower += contains(text, "truncation");
    }
    const uint64_t nearest = trace_dot(rule, x.view(), k, 0, Accumulation::mmasim, Finish::nearest_even).word;
    if (nearest != word) {
      const std::string text = crosscheck::explain_word(rule, x.view(), k, 0, Accumulation::mmasim, nearest);
      INFO(text);
      REQUIRE(contains(text, "nearest-even final rounding; parts in final rounding"));
      ++rounded;
    }
    REQUIRE(contains(crosscheck::explain_word(rule, x.view(), k, 0, Accumulation::mmasim, word ^ 0x00300000),
                     "no single change"));
  }
  REQUIRE(narrower > 20);
  REQUIRE(rounded > 20);
}
