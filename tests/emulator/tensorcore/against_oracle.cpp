// SPDX-License-Identifier: Apache-2.0
// The integer reference against the multiprecision oracle: every unit, every input class, crafted and random. The
// number of cases per unit and class is NVFP4_ORACLE_CASES (default: the quick set).
#include "nvfp4/emulator/gemm/gemm_oracle.hpp"
#include "nvfp4/emulator/tensorcore/accumulation.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/golden/mma_kind.hpp"
#include "tests/catch.hpp"

#include <cstdlib>
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
          for (const Accumulation a : {Accumulation::mmasim, Accumulation::nadpe, Accumulation::exact}) {
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
