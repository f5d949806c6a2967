// SPDX-License-Identifier: Apache-2.0
// What a report says of D before any hypothesis, and how facts, fitted parts of K and pairs meet: each kind
// of defect is made in a right output and has to be described by the plainest true sentence.
#include "nvfp4/golden/diagnosis/structure.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/golden/diagnosis/index_set.hpp"
#include "tests/golden/diagnosis/support.hpp"

#include <cmath>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

struct Made {
  Problem p;
  std::vector<uint8_t> d;

  explicit Made(Problem problem) : p(std::move(problem)), d(whole(p, reference_computation(p))) {}

  [[nodiscard]] float get(int64_t i, int64_t j) const {
    float v;
    std::memcpy(&v, d.data() + (i * p.n() + j) * 4, 4);
    return v;
  }
  void set(int64_t i, int64_t j, float v) { std::memcpy(d.data() + (i * p.n() + j) * 4, &v, 4); }
  void set(int64_t i0, int64_t i1, int64_t j0, int64_t j1, float v) {
    for (int64_t i = i0; i < i1; ++i)
      for (int64_t j = j0; j < j1; ++j) set(i, j, v);
  }
  /// Row i takes what row from(i) had.
  template <class From> void move_rows(From from) {
    const Made old = *this;
    for (int64_t i = 0; i < p.m(); ++i)
      for (int64_t j = 0; j < p.n(); ++j) set(i, j, old.get(from(i), j));
  }
  template <class From> void move_cols(From from) {
    const Made old = *this;
    for (int64_t i = 0; i < p.m(); ++i)
      for (int64_t j = 0; j < p.n(); ++j) set(i, j, old.get(i, from(j)));
  }
  [[nodiscard]] Report report() const { return diagnose(p, d); }
  [[nodiscard]] std::string verdict() const { return report().verdict; }
};

Problem plain(int64_t m, int64_t n, int64_t k, uint64_t seed) {
  Problem p = nvfp4_problem(m, n, k, seed);
  p.a.source.reset();
  p.b.source.reset();
  return p;
}

bool contains(const std::string &text, const std::string &part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("sets of indices are described by the plainest true words") {
  CHECK(describe({3}, 9, "row") == "row 3");
  CHECK(describe({0, 1, 2}, 3, "row") == "all rows");
  CHECK(describe({8, 9, 10, 11}, 64, "row") == "rows 8 to 11");
  CHECK(describe({1, 3, 5, 7}, 8, "column") == "every 2nd column from 1");
  CHECK(describe({1, 3, 5}, 8, "column") == "columns 1, 3 and 5");
  CHECK(describe({8, 9, 24, 25, 40, 41}, 48, "row") == "rows 8 to 9 of every 16");
  CHECK(describe({0, 1, 5, 9, 20, 21, 22, 40}, 64, "row") == "8 rows between 0 and 40");
  CHECK(describe({}, 64, "row") == "no row");
}

TEST_CASE("parts that are zero, NaN, Inf or one word are named with their place") {
  const Made right(plain(48, 64, 320, 41));
  const auto with = [&](auto edit) {
    Made o = right;
    edit(o);
    return o;
  };
  const float nan = std::nanf("");
  CHECK(right.verdict() == "equal: all 3072 outputs");
  Problem sick = plain(48, 64, 320, 41);
  sick.a.raw.scales[0] = 0x7F;
  CHECK(Made(sick).verdict() == "equal: all 3072 outputs, 64 of them NaN with the same bits");
  CHECK(with([](Made &o) { o.set(0, 48, 0, 64, 0.0f); }).verdict() == "D is zero everywhere");
  CHECK(with([&](Made &o) { o.set(0, 48, 0, 64, nan); }).verdict() == "D is NaN everywhere");
  CHECK(with([&](Made &o) { o.set(3, 4, 0, 64, nan); }).verdict() ==
        "row 3 is NaN, all other outputs are equal");
  CHECK(with([](Made &o) { o.set(8, 16, 0, 64, 0.0f); }).verdict() ==
        "rows 8 to 15 are zero, all other outputs are equal");
  CHECK(with([](Made &o) { o.set(0, 48, 32, 64, -INFINITY); }).verdict() ==
        "columns 32 to 63 are Inf, all other outputs are equal");
  CHECK(with([&](Made &o) { o.set(5, 7, nan); }).verdict() ==
        "output (5, 7) is NaN, all other outputs are equal");
  CHECK(with([](Made &o) { o.set(16, 48, 48, 64, 0.0f); }).verdict() ==
        "rows 16 to 47 of columns 48 to 63 are zero, all other outputs are equal");
  CHECK(with([](Made &o) { o.set(16, 32, 16, 32, 0.0f), o.set(0, 16, 48, 64, 0.0f); }).verdict() ==
        "2 of 12 tiles of 16 x 16, the first at (0, 48), are zero, all other outputs are equal");
  CHECK(with([](Made &o) { o.set(0, 48, 7, 8, 0.0f), o.set(9, 10, 0, 64, 0.0f); }).verdict() ==
        "row 9, and column 7 are zero, all other outputs are equal");
  CHECK(contains(with([](Made &o) { o.set(32, 48, 0, 64, 1234.5f); }).verdict(),
                 "rows 32 to 47 are the one word 449a5000 (1234.5)"));
  // a lone zero among wrong outputs says nothing, a lone NaN does
  Made swapped(right.p);
  swapped.d = *inject(right.p, find(hypotheses(right.p), "nibbles-swapped:a"));
  swapped.set(9, 9, 0.0f);
  CHECK(swapped.report().facts.empty());
  swapped.set(9, 9, nan);
  const Report r = swapped.report();
  CHECK(contains(r.verdict, "output (9, 9) is NaN; the nibbles"));
  CHECK(contains(r.verdict, "explains all (apart from those outputs)"));
  REQUIRE(has(r.candidates, "nibbles-swapped:a"));
  CHECK(r.candidates[0].equal == 48 * 64 - 1);
  CHECK(!r.candidates[0].explains_all);
}

TEST_CASE("distances over nothing are not a number, and others say what they leave out") {
  const Made right(plain(16, 16, 64, 42));
  Made o = right;
  o.set(0, 16, 0, 16, std::nanf(""));
  const Comparison all = o.report().comparison;
  CHECK(all.finite_pairs == 0);
  CHECK(std::isnan(all.distance));
  CHECK(std::isnan(all.max_relative));
  CHECK(std::isnan(all.mean_ulp));
  o = right;
  o.set(2, 3, INFINITY);
  const Comparison one = o.report().comparison;
  CHECK(one.finite_pairs == 255);
  CHECK(one.distance == 0);
}

TEST_CASE("a NaN that is expected and missing is named") {
  Problem p = plain(16, 24, 64, 43);
  p.a.scaled->scales[0] = 0x7F; // NaN, row 0
  p.a.raw = raw_operand(*p.a.scaled);
  Made o(p);
  CHECK(o.verdict() == "equal: all 384 outputs, 24 of them NaN with the same bits");
  o.set(0, 1, 0, 24, 1.0f);
  CHECK(o.verdict() == "row 0 is a number where NaN is expected, all other outputs are equal");
}

TEST_CASE("rows, columns and tiles in another place are named") {
  const Made right(plain(64, 96, 128, 44));
  const auto rows = [&](auto from) {
    Made o = right;
    o.move_rows(from);
    return o.verdict();
  };
  const auto cols = [&](auto from) {
    Made o = right;
    o.move_cols(from);
    return o.verdict();
  };
  CHECK(rows([](int64_t i) { return (i + 32) % 64; }) ==
        "rows are right but in another place: the two halves are exchanged");
  CHECK(contains(rows([](int64_t i) { return 63 - i; }), "from the last to the first"));
  CHECK(contains(rows([](int64_t i) { return i == 3 ? 5 : i == 5 ? 3 : i; }), "rows 3 and 5 are exchanged"));
  CHECK(contains(rows([](int64_t i) { return i < 32 ? i : i - 32; }),
                 "rows 32 to 63 hold what belongs in rows 0 to 31"));
  CHECK(contains(cols([](int64_t j) { return j / 32 * 32 + j % 32 / 2 + j % 2 * 16; }),
                 "in every 32 the two halves are interleaved"));
  CHECK(contains(cols([](int64_t j) { return j / 32 * 32 + j % 16 * 2 + j % 32 / 16; }),
                 "an interleaving undone"));
  CHECK(contains(cols([](int64_t j) { return (j * 35 + 7) % 96; }),
                 "columns are right but in another place: column 0 holds column 7"));
  Made both = right;
  both.move_rows([](int64_t i) { return (i + 32) % 64; });
  both.move_cols([](int64_t j) { return 95 - j; });
  CHECK(contains(both.verdict(), "the two halves are exchanged, and columns are right but in another place"));
  Made tile = right;
  for (int64_t i = 0; i < 32; ++i)
    for (int64_t j = 0; j < 32; ++j) tile.set(32 + i, 64 + j, right.get(i, j));
  CHECK(tile.verdict() ==
        "the tile of 32 x 32 at (32, 64) holds what belongs at (0, 0), all other outputs are equal");
}

TEST_CASE("factors by range are found exactly, and named where they are constants") {
  const Problem p = plain(48, 64, 320, 45);
  const auto scaled_columns = [&](int64_t first, float factor) {
    Made o(p);
    Computation c = reference_computation(p);
    c.epilogue.alpha *= factor;
    const std::vector<uint8_t> other = whole(p, c);
    for (int64_t i = 0; i < 48; ++i)
      std::copy_n(other.begin() + (i * 64 + first) * 4, (64 - first) * 4, o.d.begin() + (i * 64 + first) * 4);
    return o.report();
  };
  const Report half = scaled_columns(32, 1.37f);
  CHECK(half.verdict == "columns 32 to 63 are 1.37 times what is expected, all other outputs are equal");
  REQUIRE(half.facts.size() == 1);
  CHECK(half.facts[0].factor == Approx(1.37).epsilon(1e-6));
  CHECK(half.facts[0].cols.front() == 32);
  CHECK(half.by_factor);
  CHECK(contains(scaled_columns(48, 448.0f).verdict,
                 "columns 48 to 63 are 448 (448, the largest E4M3 value) times"));
  CHECK(contains(scaled_columns(16, -0.25f).verdict, "columns 16 to 63 are -0.25 (2^-2"));
  Made two(p);
  for (int64_t i = 0; i < 48; ++i)
    for (int64_t j = 0; j < 64; ++j)
      if (j % 2 == 1) two.set(i, j, two.get(i, j) * 3.0f);
  CHECK(contains(two.verdict(), "every 2nd column from 1 are 3 times what is expected"));
  Made rows(p);
  for (int64_t i = 16; i < 48; ++i)
    for (int64_t j = 0; j < 64; ++j) rows.set(i, j, rows.get(i, j) * (i < 32 ? 0.7f : 1.9f));
  const std::string text = rows.verdict();
  CHECK(contains(text, "rows 16 to 31 are 0.7"));
  CHECK(contains(text, "rows 32 to 47 are 1.9"));
}

TEST_CASE("factors by range allow for the rounding of the output: BF16") {
  Problem p = plain(48, 64, 320, 45);
  p.round = p.word = FormatId::bf16;
  std::vector<uint8_t> d = whole(p, reference_computation(p));
  Computation c = reference_computation(p);
  c.epilogue.alpha *= 1.37f;
  const std::vector<uint8_t> other = whole(p, c);
  REQUIRE(d.size() == 48 * 64 * 2);
  for (size_t i = 0; i < 48; ++i)
    std::copy_n(other.begin() + long(i * 64 + 32) * 2, 64, d.begin() + long(i * 64 + 32) * 2);
  const Report half = diagnose(p, d);
  REQUIRE(half.facts.size() == 1);
  CHECK(half.facts[0].factor == Approx(1.37).epsilon(1e-3));
  CHECK(contains(half.verdict, "columns 32 to 63 are 1.37"));
}

TEST_CASE("parts of K that are left out or taken twice are named") {
  const Problem p = plain(24, 32, 640, 46);
  const auto jump = [&](int64_t from, int64_t to) {
    Computation c = reference_computation(p);
    REQUIRE(take_k(c, from, to));
    return diagnose(p, whole(p, c)).verdict;
  };
  CHECK(jump(256, 640) == "only k < 256 of 640 is summed: explains all");
  CHECK(jump(0, 192) == "only k >= 192 of 640 is summed: explains all");
  CHECK(jump(128, 256) == "128 <= k < 256 is not summed: explains all");
  CHECK(jump(448, 384) == "384 <= k < 448 is summed twice: explains all");
}

TEST_CASE("uneven cuts, other types of partial sums and alpha on every step are named") {
  Random random{47};
  Problem p = plain(24, 32, 1152, 47);
  p.a = quantized(random_source(24, 1152, 2.0, random), "te");
  p.a.source.reset();
  const auto named = [&](const std::string &name, auto change) {
    Computation c = reference_computation(p);
    change(c.reduction);
    const std::vector<uint8_t> d = whole(p, c);
    REQUIRE(d != whole(p, reference_computation(p)));
    const Report r = diagnose(p, d);
    INFO(name << ": " << names(r.candidates) << " / " << r.verdict);
    CHECK(has(r.candidates, name));
    return r.verdict;
  };
  CHECK(contains(named("split-at-1", [](Reduction &r) { r.cuts = {192}; }), "cut at 192"));
  CHECK(contains(named("split-at-2", [](Reduction &r) { r.cuts = {192, 1024}; }), "cut at 192, 1024"));
  (void)named("split-at-3", [](Reduction &r) { r.cuts = {64, 576, 1024}; });
  (void)named("split-k-3", [](Reduction &r) { r.cuts = {384, 768}; });
  (void)named("split-k-9",
              [](Reduction &r) { r.cuts = cuts_every(128, 1152), r.combine = Combine::pairwise; });
  const std::string stored =
      named("split-k-6", [](Reduction &r) { r.cuts = cuts_every(192, 1152), r.partial = FormatId::bf16; });
  const size_t at = stored.find("partial sums are stored in BF16");
  REQUIRE(at != std::string::npos);
  CHECK(stored[at + 31] != ','); // in order, not in another
  (void)named("split-k-18", [](Reduction &r) {
    r.cuts = cuts_every(64, 1152), r.alpha_on_partials = r.fused_alpha = true;
  });
  (void)named("accumulator-rounded-between-bf16", [](Reduction &r) {
    r.cuts = cuts_every(128, 1152), r.combine = Combine::carried, r.partial = FormatId::bf16;
  });
}

TEST_CASE("an amax of another tensor is found") {
  Problem p = nvfp4_problem(48, 64, 320, 48);
  QuantizeOptions options;
  const auto &s = *p.a.source;
  for (const float share : {0.8f, 0.5625f}) {
    options.global_amax = share * p.a.scaled->global_amax;
    Computation c = reference_computation(p);
    c.a = std::make_shared<const RawOperand>(
        raw_operand(quantize({s.values.data(), s.rows, s.cols}, find_convention("te"), options)));
    const Report r = diagnose(p, whole(p, c));
    INFO(r.verdict);
    CHECK(has(r.candidates, "quantizer-amax:a"));
  }
}

TEST_CASE("FP32 references, swapped nibbles and noise do not get one headline") {
  Problem p = plain(32, 48, 512, 49);
  // the FP64 product, rounded once: no chain of anything
  Made fp64(p);
  const Computation c = reference_computation(p);
  for (int64_t i = 0; i < 32; ++i)
    for (int64_t j = 0; j < 48; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < 512; ++k)
        sum += value(FormatId::e2m1, c.a->code(i, k)) * value(FormatId::e2m1, c.b->code(j, k)) *
               value(FormatId::ue4m3, c.a->scales[size_t(i * 32 + k / 16)]) *
               value(FormatId::ue4m3, c.b->scales[size_t(j * 32 + k / 16)]);
      fp64.set(i, j, float(sum * double(c.epilogue.alpha)));
    }
  CHECK(contains(fp64.verdict(), "equal but for summation order or rounding: distance "));
  Made noise(p);
  Random random{50};
  for (int64_t i = 0; i < 32; ++i)
    for (int64_t j = 0; j < 48; ++j) noise.set(i, j, float(random.normal()));
  const Report r = noise.report();
  CHECK(contains(r.verdict, "not explained"));
  CHECK(r.candidates.empty());
  CHECK(r.likely.empty());
  CHECK(!r.next.empty());
  CHECK(r.pairs_tried > 100);
  // nearest first, values that are not finite last
  bool finite = true;
  for (const Finding &f : r.others) {
    CHECK((finite || !f.finite));
    finite = f.finite;
  }
}

TEST_CASE("what would take too long to compute is not said to explain all") {
  const Problem p = plain(40, 48, 256, 51);
  const std::vector<uint8_t> d = *inject(p, find(hypotheses(p), "accumulate-nearest"));
  DiagnoseOptions options;
  options.sample = 16;
  options.check_cost = 0;
  const Report r = diagnose(p, d, options);
  CHECK(r.candidates.empty());
  REQUIRE(has(r.likely, "accumulate-nearest"));
  CHECK(r.likely[0].equal < 0);
  CHECK(contains(r.verdict, "sampled outputs"));
  CHECK(!contains(r.verdict, "explains all outputs"));
}

TEST_CASE("what was added to D is described, for all outputs or by line") {
  Made m(plain(24, 40, 192, 31));
  const Made right = m;
  for (int64_t i = 0; i < 24; ++i)
    for (int64_t j = 0; j < 40; ++j) m.set(i, j, right.get(i, j) + 0.75f);
  Report r = m.report();
  CHECK(r.verdict == "0.75 is added to every output");
  CHECK(r.by_factor);
  // a bias of columns, fused with alpha or not, and of rows
  std::vector<float> bias;
  Random random{5};
  for (int j = 0; j < 40; ++j) bias.push_back(float(random.normal()));
  for (const bool fused : {false, true}) {
    m = right;
    for (int64_t i = 0; i < 24; ++i)
      for (int64_t j = 0; j < 40; ++j) {
        const float b = bias[size_t(j)];
        // a sum of two roundings, and one near it of one
        m.set(i, j, fused ? float(double(right.get(i, j)) + double(b)) : right.get(i, j) + b);
      }
    r = m.report();
    INFO(r.verdict);
    CHECK(contains(r.verdict, "an addend is on top of every column, one for each column ("));
    CHECK(contains(r.verdict, "), as a bias"));
    REQUIRE(r.facts.size() == 1);
    REQUIRE(r.facts[0].addends.size() == 40);
    for (size_t j = 0; j < 40; ++j)
      CHECK(std::fabs(r.facts[0].addends[j] - double(bias[j])) <= 1e-6 * std::fabs(double(bias[j])) + 1e-6);
  }
  m = right;
  for (int64_t i = 8; i < 24; ++i)
    for (int64_t j = 0; j < 40; ++j) m.set(i, j, right.get(i, j) + bias[size_t(i)]);
  r = m.report();
  CHECK(contains(r.verdict, "an addend is on top of rows 8 to 23, one for each row"));
  CHECK(contains(r.verdict, "all other outputs are equal"));
  // noise of a few units is no addend
  m = right;
  for (int64_t i = 0; i < 24; ++i)
    for (int64_t j = 0; j < 40; ++j) m.set(i, j, std::nextafter(right.get(i, j), 1e9f));
  r = m.report();
  CHECK(std::none_of(r.facts.begin(), r.facts.end(), [](const Fact &f) { return f.kind == "addend"; }));
}

TEST_CASE("transposed tiles, ReLU and a turned sign are named") {
  Made m(plain(48, 64, 128, 33));
  const Made right = m;
  for (int64_t i = 0; i < 16; ++i)
    for (int64_t j = 0; j < 16; ++j) m.set(16 + i, 32 + j, right.get(16 + j, 32 + i));
  CHECK(m.verdict() == "the tile of 16 x 16 at (16, 32) is transposed, all other outputs are equal");
  for (int64_t i = 0; i < 48; ++i)
    for (int64_t j = 0; j < 64; ++j) m.set(i, j, right.get(i / 8 * 8 + j % 8, j / 8 * 8 + i % 8));
  CHECK(m.verdict() == "48 tiles of 8 x 8 are transposed, the first at (0, 0), all other outputs are equal");
  for (int64_t i = 0; i < 48; ++i)
    for (int64_t j = 0; j < 64; ++j) m.set(i, j, std::max(right.get(i, j), 0.0f));
  CHECK(contains(m.verdict(),
                 " outputs that should be negative are zero, as under ReLU, all other outputs are equal"));
  m.set(3, 5, 0.0f), m.set(3, 6, 0.0f), m.set(3, 7, 0.0f); // then it is not
  m.set(4, 5, 0.0f), m.set(4, 6, 0.0f), m.set(4, 7, 0.0f);
  CHECK(!contains(m.verdict(), "ReLU"));
  for (int64_t i = 0; i < 48; ++i)
    for (int64_t j = 0; j < 64; ++j) m.set(i, j, -right.get(i, j));
  CHECK(m.verdict() == "D is -1 (the sign is turned) times what is expected");
}

TEST_CASE("what a partial explanation leaves is described, and chance is no explanation") {
  const Problem p = plain(32, 48, 256, 35);
  Made m(p);
  m.d = *inject(p, find(hypotheses(p), "scales-pairs-reversed:a"));
  const Made wrong = m;
  for (int64_t i = 16; i < 32; ++i)
    for (int64_t j = 0; j < 48; ++j) m.set(i, j, wrong.get(i, j) * 1.375f);
  Report r = m.report();
  CHECK(r.verdict ==
        "the two scales in each 16-bit word of A are exchanged; then rows 16 to 31 are 1.375 times what is "
        "expected: together they account for all");
  REQUIRE(!r.partial.empty());
  CHECK(r.partial[0].rest_accounts);
  CHECK(!r.partial[0].explains_all);
  CHECK(r.next.empty());
  m = wrong;
  m.set(0, 8, 8, 40, NAN);
  m.set(20, 3, 7.0f); // and one that nothing explains
  r = m.report();
  INFO(r.verdict);
  CHECK(contains(r.verdict, "rows 0 to 7 of columns 8 to 39 are NaN; the two scales in each 16-bit word of A "
                            "are exchanged, but not everywhere: leaves 1 output"));
  // one output of many that a hypothesis gives
  Random random{9};
  for (int64_t i = 0; i < 32; ++i)
    for (int64_t j = 0; j < 48; ++j) m.set(i, j, float(50 * random.normal()));
  m.set(5, 5, wrong.get(5, 5));
  CHECK(contains(m.verdict(), "not explained"));
  CHECK(m.report().partial.empty());
}

TEST_CASE("an operand that was not quantized is named where its source is given") {
  const Problem p = nvfp4_problem(32, 48, 256, 37);
  const std::vector<float> &a = p.a.source->values, &b = p.b.source->values;
  const std::vector<float> qb = dequantize(*p.b.scaled);
  const auto product = [&](const std::vector<float> &x, const std::vector<float> &y) {
    Made m(p);
    for (int64_t i = 0; i < 32; ++i)
      for (int64_t j = 0; j < 48; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < 256; ++k)
          sum += double(x[size_t(i * 256 + k)]) * double(y[size_t(j * 256 + k)]);
        m.set(i, j, float(sum));
      }
    return m.verdict();
  };
  CHECK(contains(product(a, qb), "A is not quantized: the product is one of FP32, but for summation order"));
  CHECK(contains(product(a, b),
                 "A and B are not quantized: the product is one of FP32, but for summation order"));
}

TEST_CASE("factors and addends of 16-bit outputs are the plainest that fit, and pairs that cannot be made "
          "are passed over") {
  Random random{41};
  Problem p;
  p.unit = &find_unit("sm_100:tcgen05.k64.f32.mxf4.ue8m0.block32");
  p.a = quantized(random_source(24, 256, 1.0, random), "mxfp4");
  p.b = quantized(random_source(40, 256, 1.0, random), "mxfp4");
  p.a.source.reset(), p.b.source.reset();
  p.round = p.word = FormatId::f16;
  p.threads = 1;
  const std::vector<uint8_t> right = whole(p, reference_computation(p));
  const auto changed = [&](auto change) {
    std::vector<uint8_t> d = right;
    for (int64_t i = 0; i < 24; ++i)
      for (int64_t j = 0; j < 40; ++j) {
        uint16_t word = 0;
        std::memcpy(&word, d.data() + (i * 40 + j) * 2, 2);
        word = uint16_t(encode(FormatId::f16, change(j, value_f32(FormatId::f16, word)),
                               Rounding::nearest_even, Overflow::ieee));
        std::memcpy(d.data() + (i * 40 + j) * 2, &word, 2);
      }
    return diagnose(p, d);
  };
  Report r = changed([](int64_t j, float v) { return j < 16 ? v * 2 : v; });
  CHECK(contains(r.verdict, "columns 0 to 15 are 2 (2^1"));
  r = changed([](int64_t j, float v) { return v + float(j) * 0.25f; });
  INFO(r.verdict);
  CHECK(contains(
      r.verdict,
      "an addend is on top of columns 1 to 39, one for each column (0.25 to 9.75), as a bias, all other"));
  CHECK(r.by_factor);
  // all of K twice is a factor of 2; two mistakes that need different operands do not end the search
  r = changed([](int64_t, float v) { return 2 * v; });
  CHECK(contains(r.verdict, "D is 2 (2^1"));
  r = changed([&](int64_t, float v) { return v + float(random.normal()); });
  CHECK(contains(r.verdict, "not explained"));
  CHECK(r.pairs_tried > 0);
}
