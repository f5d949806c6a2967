// SPDX-License-Identifier: Apache-2.0
// The directed vectors say what their text says: the words below are written down by hand, not taken from the
// emulator.
#include "nvfp4/gpu/blackwell/directed.hpp"
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "tests/catch.hpp"

#include <map>
#include <optional>

using namespace nvfp4;
using namespace nvfp4::cuda::blackwell;

namespace {

const Unit &unit() { return find_unit("sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"); }
uint32_t two_to(int e) { return uint32_t(e + 127) << 23; }

struct Words {
  uint32_t mmasim, nadpe, exact;
  std::optional<uint32_t> tcgen05 = {}; ///< nothing: as mmasim
};
std::map<std::string, Words> expected() {
  std::map<std::string, Words> words;
  for (int e = 16; e <= 19; ++e) {
    words["cancel.e" + std::to_string(e)] = {two_to(-e), 0, two_to(-e)};
    words["chain.cancel.e" + std::to_string(e)] = {two_to(-e), 0, two_to(-e)};
  }
  words["cancel.e15"] = {two_to(-15), two_to(-15), two_to(-15)};
  words["cancel.e20"] = {0, 0, two_to(-20)};
  words["cancel.order"] = {two_to(-18), 0, two_to(-18)};
  words["cancel_in_group"] = {0, two_to(-20), two_to(-20)};
  words["zero_group"] = {two_to(-20), two_to(-20), two_to(-20)};
  words["zero_scale"] = {two_to(-20), two_to(-20), two_to(-20)};
  words["width.35"] = {0, 0, two_to(-12)};
  words["width.34"] = {two_to(-11), two_to(-11), two_to(-11)};
  words["rounding"] = {0x4b7fffff, 0x4b7fffff, 0x4b7fffff};
  words["c_between"] = {0, 0, two_to(-18), two_to(-18)};
  words["quarters"] = {two_to(-19), two_to(-19), two_to(-19), 0};
  words["quarter"] = {two_to(-19), two_to(-19), two_to(-19)};
  words["over_small_c"] = {0x488fffff, 0x48900000, 0x488fffff};
  words["scale.sign"] = {0x3f800000, 0x3f800000, 0x3f800000};
  words["scale.nan"] = {0x7fffffff, 0x7fffffff, 0x7fffffff};
  words["full_scale"] = {0x4ddc8000, 0x4ddc8000, 0x4ddc8000};
  return words;
}

} // namespace

TEST_CASE("directed vectors give the words that their questions name", "[blackwell]") {
  const std::map<std::string, Words> words = expected();
  const std::vector<Directed> vectors = directed_vectors();
  REQUIRE(vectors.size() == words.size());
  for (const Directed &x : vectors) {
    INFO(x.name);
    REQUIRE(words.count(x.name) == 1);
    const Words &w = words.at(x.name);
    CHECK(predict(unit().rule, x, Accumulation::mmasim) == w.mmasim);
    CHECK(predict(unit().rule, x, Accumulation::nadpe) == w.nadpe);
    CHECK(predict(unit().rule, x, Accumulation::exact) == w.exact);
    CHECK(predict(unit().rule, x, Accumulation::tcgen05_model) == w.tcgen05.value_or(w.mmasim));
  }
}

TEST_CASE("directed vectors as a GEMM answer on the diagonal", "[blackwell]") {
  for (const size_t k : {size_t{64}, size_t{128}}) {
    std::vector<Directed> vectors;
    for (const Directed &x : directed_vectors())
      if (x.a.size() == k) vectors.push_back(x);
    REQUIRE_FALSE(vectors.empty());
    const DirectedOperands o = directed_operands(vectors);
    const GemmOperand a = make_operand(unit(), Side::a, RawCodes{o.rows, o.k, o.codes_a},
                                       RawScales(o.scales_a, ScaleLayout::linear)),
                      b = make_operand(unit(), Side::b, RawCodes{o.rows, o.k, o.codes_b},
                                       RawScales(o.scales_b, ScaleLayout::linear));
    std::vector<uint64_t> acc(size_t(o.rows * o.rows));
    GemmPlan(unit(), {}).accumulate(a, b, acc);
    for (size_t i = 0; i < vectors.size(); ++i) {
      INFO(vectors[i].name);
      CHECK(acc[i * size_t(o.rows) + i] == predict(unit().rule, vectors[i], Accumulation::mmasim));
    }
  }
}
