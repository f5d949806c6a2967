// SPDX-License-Identifier: Apache-2.0
// The integer reference against the multiprecision oracle: every unit, every input class, crafted and random. The
// number of cases per unit and class is NVFP4_ORACLE_CASES (default: the quick set).
#include "nvfp4/emulator/gemm/gemm_oracle.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/golden/mma_kind.hpp"
#include "tests/catch.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <random>
#include <string>

using namespace nvfp4;

namespace {

int cases_per_class() {
  const char *text = std::getenv("NVFP4_ORACLE_CASES");
  return text == nullptr ? 3 : std::atoi(text);
}

/// One unit per distinct rule: the oracle sees only the rule, so architectures with equal rules are one case.
std::vector<const Unit *> distinct_units() {
  std::vector<const Unit *> units;
  std::vector<std::string> seen;
  for (const Unit &u : catalogue()) {
    std::string key(reinterpret_cast<const char *>(&u.rule), sizeof u.rule);
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) continue;
    seen.push_back(key);
    units.push_back(&u);
  }
  return units;
}

} // namespace

TEST_CASE("the integer reference equals the oracle on every rule", "[tensorcore][oracle]") {
  const int cases = cases_per_class();
  const std::vector<const Unit *> units = distinct_units();
  uint64_t compared = 0;
  std::string first;
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : compared)
  for (size_t u = 0; u < units.size(); ++u) {
    const UnitRule &rule = units[u]->rule;
    const std::string name = units[u]->name();
    const golden::cases::MmaKind kind = golden::kind_of(*units[u], name);
    for (int c = 0; c < golden::cases::kInputClasses; ++c) {
      if (!golden::cases::applies(kind, golden::cases::InputClass(c))) continue;
      for (int s = 0; s < (rule.scale_block != 0 ? golden::cases::kScaleClasses : 1); ++s)
        for (int i = 0; i < cases; ++i) {
          const golden::cases::Tile t = golden::cases::generate(kind, golden::cases::InputClass(c), golden::cases::ScaleClass(s), 7, i);
          const DotOperands op{{t.a.data(), kind.a_bits}, {t.b.data(), kind.b_bits}, t.scale_a.data(), t.scale_b.data()};
          const uint64_t start = CodeView{t.c.data(), kind.acc_bits}[0];
          for (const Accumulation a : enumerators<Accumulation>()) {
            if (rule.family != Family::gst_fdpa && a != Accumulation::mmasim) continue;
            const uint64_t got = dot(rule, op, rule.k, start, a), want = oracle_dot(rule, op, rule.k, a, start);
            ++compared;
            if (got != want) {
#pragma omp critical
              if (first.empty())
                first = name + " " + std::string(to_string(a)) + " class " + golden::cases::name_of(golden::cases::InputClass(c)) + " case " +
                        std::to_string(i) + ": reference " + std::to_string(got) + ", oracle " + std::to_string(want);
            }
          }
        }
    }
  }
  INFO(compared << " dot products over " << units.size() << " rules; first mismatch: " << first);
  CHECK(first.empty());
  CHECK(compared > 1000);
}

TEST_CASE("FP4 sums that cancel down to what alignment cuts equal the oracle", "[tensorcore][oracle]") {
  // Large products in the first block, C their negative sum or zero, far smaller groups below: only there do the models
  // differ in what they cut. UE8M0 scales go below the floor too.
  std::mt19937_64 random(92801);
  const auto below = [&](uint64_t n) { return random() % n; };
  const int cases = 400 * cases_per_class();
  std::string first;
  std::array<int, 4> unlike_default{};
  for (const char *name : {"ue4m3.block16", "ue8m0.block16", "ue8m0.block32"}) {
    const Unit &unit = find_unit(std::string("sm_100:tcgen05.k64.f32.mxf4nvf4.") + name);
    const UnitRule &rule = unit.rule;
    const int blocks = 64 / rule.scale_block;
    for (int i = 0; i < cases; ++i) {
      uint8_t a[64], b[64], packed_a[32], packed_b[32], scale_a[4] = {}, scale_b[4] = {};
      for (int k = 0; k < 64; ++k) {
        a[k] = below(5) < 2 ? std::array<uint8_t, 7>{0, 1, 2, 7, 9, 10, 15}[below(7)] : 0;
        b[k] = uint8_t(1 + below(7));
      }
      const bool deep = below(2) == 0;
      const uint8_t high = uint8_t(rule.scale == FormatId::ue4m3 ? 0x60 + 6 * below(6) : deep ? 40 + below(20) : 127);
      for (int s = 0; s < blocks; ++s)
        for (uint8_t *side : {scale_a, scale_b})
          side[s] = s == 0 || below(5) == 0             ? high
                    : rule.scale == FormatId::ue4m3 ? uint8_t(1 + below(0x28))
                                                        : uint8_t(high - (deep ? 0 : 5) - below(20));
      double sum = 0;
      for (int k = 0; k < rule.scale_block; ++k)
        sum += value(FormatId::e2m1, a[k]) * value(FormatId::e2m1, b[k]) * value(rule.scale, scale_a[0]) *
               value(rule.scale, scale_b[0]);
      uint64_t c = below(3) != 0 ? bit_cast<uint32_t>(float(-sum)) : 0;
      if (c == 0)
        for (int k = 0; k < rule.scale_block; k += 2) {
          a[k + 1] = a[k] ^ 8;
          b[k + 1] = b[k];
        }
      for (int k = 0; k < 32; ++k) {
        packed_a[k] = uint8_t(a[2 * k] | a[2 * k + 1] << 4);
        packed_b[k] = uint8_t(b[2 * k] | b[2 * k + 1] << 4);
      }
      const DotOperands op{{packed_a, 4}, {packed_b, 4}, scale_a, scale_b};
      const uint64_t by_default = dot(rule, op, 64, c);
      for (const Accumulation model : enumerators<Accumulation>()) {
        const uint64_t got = dot(rule, op, 64, c, model), want = oracle_dot(rule, op, 64, model, c);
        unlike_default[size_t(model)] += got != by_default ? 1 : 0;
        if (got != want && first.empty())
          first = unit.name() + " " + std::string(to_string(model)) + " case " + std::to_string(i);
      }
    }
  }
  CHECK(first == "");
  for (const Accumulation model : {Accumulation::nadpe, Accumulation::exact, Accumulation::tcgen05_model})
    CHECK(unlike_default[size_t(model)] > 3);
}

TEST_CASE("a unit with UE5M3 scales, which no GPU has, equals the oracle under every model", "[tensorcore][oracle]") {
  UnitRule rule = find_unit("sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16").rule;
  rule.scale = FormatId::ue5m3;
  std::mt19937_64 random(53);
  for (int i = 0; i < 500; ++i) {
    uint8_t a[32], b[32], scale_a[4], scale_b[4];
    for (int k = 0; k < 32; ++k) a[k] = uint8_t(random()), b[k] = uint8_t(random());
    for (int g = 0; g < 4; ++g) scale_a[g] = uint8_t(random()), scale_b[g] = uint8_t(random());
    const DotOperands op{{a, 4}, {b, 4}, scale_a, scale_b};
    const uint64_t c = random() >> 32;
    for (const Accumulation model : enumerators<Accumulation>())
      CHECK(dot(rule, op, 64, c, model) == oracle_dot(rule, op, 64, model, c));
  }
}
