// SPDX-License-Identifier: Apache-2.0
// What a report says: statistics of differing words, sampling of large outputs, partial and missing
// explanations, stages, pairs, and refusals.
#include "nvfp4/golden/diagnosis/compare.hpp"
#include "tests/golden/diagnosis/support.hpp"

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

std::vector<uint8_t> words_of(const std::vector<uint32_t> &words) {
  std::vector<uint8_t> bytes(words.size() * 4);
  std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

} // namespace

TEST_CASE("the comparison counts words and distances") {
  const std::vector<uint8_t> want = words_of(
      {0x3F800000, 0x3F800000, 0x00000000, 0x80000001, 0x7FFFFFFF, 0x7F800000, 0x40000000, 0x3F800000});
  const std::vector<uint8_t> got = words_of(
      {0x3F800000, 0x3F800003, 0x80000000, 0x00000001, 0x7FC00000, 0xFF800000, 0x7FC00000, 0x3F7FFFFF});
  const Comparison c = compare(FormatId::f32, 2, 4, got, want);
  CHECK(c.total == 8);
  CHECK(c.differing == 7);
  CHECK(c.first == 1);
  CHECK(c.first_got == 0x3F800003);
  CHECK(c.first_want == 0x3F800000);
  CHECK(c.rows_hit == 2);
  CHECK(c.cols_hit == 4);
  CHECK(c.max_ulp == 3);
  CHECK(c.max_ulp_at == 1);
  CHECK(c.mean_ulp == Approx((3 + 0 + 2 + 1) / 4.0));
  CHECK(c.zero_signs == 1);
  CHECK(c.nan_words == 1);
  CHECK(c.nan_got == 1);
  CHECK(c.nan_missing == 0);
  CHECK(c.infinities == 1);
  CHECK(c.max_relative == 2.0); // 2^-149 against -2^-149
  CHECK((c.bins[0] == 1 && c.bins[1] == 1 && c.bins[2] == 1 && c.bins[3] == 1));
  CHECK((bin_text(2) == "2" && bin_text(3) == "3-4" && bin_text(4) == "5-8" && bin_text(19) == "> 131072"));
  CHECK(compare(FormatId::f32, 2, 4, want, want).equal());
}

TEST_CASE("a large output is sampled, the winner is verified on all of it") {
  const Problem p = nvfp4_problem(300, 260, 256, 21);
  const std::vector<Hypothesis> all = hypotheses(p);
  for (const char *name :
       {"nibbles-swapped:b", "accumulate-nearest", "global-scale-missing:a", "output-transposed"}) {
    const std::vector<uint8_t> d = *inject(p, find(all, name));
    DiagnoseOptions options;
    options.sample = 32;
    const Report r = diagnose(p, d, options);
    INFO(name << ": " << names(r.candidates));
    CHECK(r.sampled <= 32 * 32);
    REQUIRE(has(r.candidates, name));
    CHECK(r.candidates.front().equal == 300 * 260);
  }
}

TEST_CASE("few differing outputs get into the sample") {
  const Problem p = nvfp4_problem(400, 400, 128, 22);
  std::vector<uint8_t> d = whole(p, reference_computation(p));
  d[(399 * 400 + 398) * 4] ^= 1;
  DiagnoseOptions options;
  options.sample = 16;
  const Report r = diagnose(p, d, options);
  CHECK(r.comparison.differing == 1);
  CHECK(r.comparison.first == 399 * 400 + 398);
  CHECK(r.sampled_equal == r.sampled - 1);
  CHECK(r.candidates.empty());
  CHECK(r.partial.empty());
  CHECK(r.others.size() > 50);
}

TEST_CASE("a mistake in a part of the output is a partial explanation") {
  const Problem p = nvfp4_problem(64, 48, 256, 23);
  const std::vector<uint8_t> good = whole(p, reference_computation(p));
  std::vector<uint8_t> d = *inject(p, find(hypotheses(p), "scales-linear-as-mn-major:a"));
  std::copy_n(good.begin(), 10 * 48 * 4, d.begin()); // the first ten rows are right
  const Report r = diagnose(p, d);
  CHECK(r.candidates.empty());
  REQUIRE(!r.partial.empty());
  CHECK(r.partial.front().name == "scales-linear-as-mn-major:a");
  CHECK(r.partial.front().equal >= 54 * 48);
  CHECK(r.partial.front().equal < 64 * 48);
}

TEST_CASE("a constant factor is seen, noise is not explained") {
  const Problem p = nvfp4_problem(32, 32, 128, 24);
  std::vector<uint8_t> d = whole(p, reference_computation(p));
  std::vector<uint8_t> noise = d;
  Random random{25};
  for (size_t o = 0; o < d.size(); o += 4) {
    float v;
    std::memcpy(&v, d.data() + o, 4);
    v *= 0.375f;
    std::memcpy(d.data() + o, &v, 4);
    noise[o] = uint8_t(random());
  }
  const Report r = diagnose(p, d);
  REQUIRE(r.facts.size() == 1);
  CHECK(r.facts[0].kind == "factor");
  CHECK(r.facts[0].factor == 0.375);
  CHECK(r.by_factor);
  CHECK(r.verdict == "D is 0.375 times what is expected");
  const Report n = diagnose(p, noise);
  CHECK(n.candidates.empty());
  CHECK(n.likely.empty());
  CHECK(n.facts.empty());
}

TEST_CASE("stages are named") {
  const Problem p = nvfp4_problem(32, 32, 512, 26);
  const std::vector<Hypothesis> all = hypotheses(p);
  const auto stage = [&](const char *name) {
    const Report r = diagnose(p, *inject(p, find(all, name)));
    INFO(name);
    for (const Finding &f : r.candidates)
      if (f.name == name) {
        REQUIRE(f.parting.has_value());
        return f.parting->stage;
      }
    FAIL("not named");
    return Stage::special;
  };
  CHECK(stage("accumulate-nearest") == Stage::rounding);
  CHECK(stage("split-k-2") == Stage::reduction);
  CHECK(stage("k-reversed") == Stage::reduction);
  CHECK(stage("fp32-fma") == Stage::reduction);
  CHECK(stage("output-rounding-extra-bf16") == Stage::epilogue);
  CHECK(stage("global-scale-missing:a") == Stage::epilogue);
  const Report operand = diagnose(p, *inject(p, find(all, "nibbles-swapped:a")));
  CHECK(!operand.candidates.front().parting.has_value());
  CHECK(operand.reference_trace.find("k 448..511") != std::string::npos);
}

TEST_CASE("two mistakes at once are found when asked for") {
  Problem p = nvfp4_problem(16, 16, 128, 27);
  p.a.source.reset();
  p.b.source.reset();
  const std::vector<Hypothesis> all = hypotheses(p);
  Computation c = reference_computation(p);
  REQUIRE(find(all, "nibbles-swapped:a").apply(p, 0, c));
  REQUIRE(find(all, "global-scale-missing:ab").apply(p, 0, c));
  const std::vector<uint8_t> d = whole(p, c);
  DiagnoseOptions options;
  options.pair_cost = 0;
  CHECK(diagnose(p, d, options).candidates.empty());
  const Report r = diagnose(p, d);
  INFO(names(r.candidates));
  CHECK(has(r.candidates, "nibbles-swapped:a + global-scale-missing:ab"));
}

TEST_CASE("problems that do not fit together are refused") {
  Problem p = nvfp4_problem(16, 16, 128, 28);
  const std::vector<uint8_t> d = whole(p, reference_computation(p));
  const auto refused = [&](Problem q, size_t bytes, const std::string &with) {
    try {
      (void)diagnose(q, std::vector<uint8_t>(bytes));
    } catch (const Error &e) {
      INFO(e.what());
      CHECK(std::string(e.what()).find(with) != std::string::npos);
      return;
    }
    FAIL("accepted: " << with);
  };
  refused(p, d.size() - 4, "D must be [16, 16]");
  Problem q = p;
  q.beta = 1.0f;
  refused(q, d.size(), "beta needs C");
  q.c.resize(12);
  refused(q, d.size(), "C must be");
  q = p;
  q.unit = &find_unit("sm_90:wgmma.k16.f32.bf16");
  refused(q, d.size(), "do not fit unit");
  q = p;
  q.b = nvfp4_problem(16, 16, 64, 1).b;
  refused(q, d.size(), "must be equal");
  q = p;
  q.word = q.round = FormatId::f64;
  refused(q, 2 * d.size(), "writes f32");
  q = p;
  q.word = FormatId::bf16;
  q.round = FormatId::f16;
  refused(q, d.size() / 2, "cannot hold");
  q = p;
  q.a.source = SourceTensor{3, 5, std::vector<float>(15)};
  refused(q, d.size(), "unquantized tensor is [3, 5]");
}
