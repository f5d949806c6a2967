// SPDX-License-Identifier: Apache-2.0
// Every mistake is made in a computed output and must be named. Any other mistake that is named beside it
// must have given the same bits.
#include "tests/golden/diagnosis/support.hpp"

#include <set>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

/// What one problem showed: names that were made and found, and those that changed nothing.
struct Tally {
  std::set<std::string> found, alone;
};

/// Makes every mistake, or those whose names begin with one of `only`.
void inject_all(const Problem &p, const std::string &what, Tally &tally,
                const std::vector<std::string> &only = {}) {
  const std::vector<Hypothesis> all = hypotheses(p);
  const std::vector<uint8_t> reference = whole(p, reference_computation(p));
  REQUIRE(diagnose(p, reference).comparison.equal());
  const auto wanted = [&](const Hypothesis &h) {
    return only.empty() || std::any_of(only.begin(), only.end(),
                                       [&](const std::string &o) { return h.name.rfind(o, 0) == 0; });
  };
  const auto few_splits = [](const std::string &name) { // of 63 splits
    const std::string kept = " split-k-2 split-k-3 split-k-4 split-k-8 split-k-10 ";
    return name.rfind("split-k-", 0) != 0 || kept.find(" " + name + " ") != std::string::npos;
  };
  for (const Hypothesis &h : all)
    for (const int variant : {0, 1, 4}) {
      if (!wanted(h) || !few_splits(h.name) || (variant == 4 && !h.by_parts)) continue;
      const auto d = inject(p, h, variant);
      if (!d || *d == reference) continue;
      DiagnoseOptions options;
      options.pair_cost = 0; // one mistake was made
      const Report r = diagnose(p, *d, options);
      INFO(what << ": " << h.name << " variant " << variant << ", named: " << names(r.candidates));
      CHECK(!r.comparison.equal());
      CHECK(has(r.candidates, h.name));
      for (const Finding &f : r.candidates) {
        CHECK(f.equal == p.m() * p.n() - r.covered);
        if (f.name.rfind("k-prefix", 0) == 0 || f.name.rfind("k-suffix", 0) == 0 || f.name.rfind("k-missing", 0) == 0 ||
            f.name.rfind("k-twice", 0) == 0 || f.name.rfind("quantizer-amax", 0) == 0 || f.name.find(" + ") != std::string::npos)
          continue; // fitted to this output
        const auto same = inject(p, find(all, f.name), f.variant);
        CHECK((same && *same == *d));
      }
      tally.found.insert(h.name);
      if (r.candidates.size() == 1) tally.alone.insert(h.name);
    }
}

void check_found(const Tally &tally, std::initializer_list<const char *> wanted) {
  for (const char *name : wanted) {
    INFO(name);
    CHECK(tally.found.count(name) == 1);
  }
}
void check_alone(const Tally &tally, std::initializer_list<const char *> wanted) {
  for (const char *name : wanted) {
    INFO(name);
    CHECK(tally.alone.count(name) == 1);
  }
}

} // namespace

TEST_CASE("mistakes in an NVFP4 product are named") {
  Tally tally;
  Problem p = nvfp4_problem(12, 16, 768, 1);
  p.a.source.reset();
  p.b.source.reset();
  inject_all(p, "te", tally);
  // swapping the pairs of one operand pairs the same elements as swapping those of the other; both together
  // change nothing
  const Report swapped = diagnose(p, *inject(p, find(hypotheses(p), "nibbles-swapped:b")));
  CHECK(names(swapped.candidates) == "nibbles-swapped:a nibbles-swapped:b ");
  CHECK(std::count(swapped.no_effect.begin(), swapped.no_effect.end(), "nibbles-swapped:ab") == 1);
  check_alone(tally, {"scales-linear-as-128x4:a",
                      "scales-linear-as-128x4:b",
                      "scales-linear-as-128x4:ab",
                      "scales-128x4-as-linear:a",
                      "scales-128x4-as-linear:b",
                      "scales-128x4-as-linear:ab",
                      "operand-transposed:a",
                      "operand-transposed:b",
                      "operand-transposed:ab",
                      "scales-linear-as-mn-major:a",
                      "scales-linear-as-mn-major:b",
                      "scales-linear-as-mn-major:ab",
                      "block-size-doubled:a",
                      "block-size-doubled:b",
                      "block-size-doubled:ab",
                      "block-size-quadrupled:ab",
                      "block-scale-reciprocal:a",
                      "block-scale-reciprocal:b",
                      "block-scale-reciprocal:ab",
                      "block-scale-missing:a",
                      "block-scale-missing:b",
                      "block-scale-missing:ab",
                      "scales-exchanged",
                      "global-scale-missing:a",
                      "global-scale-missing:b",
                      "global-scale-missing:ab",
                      "global-scale-doubled:a",
                      "global-scale-doubled:b",
                      "global-scale-doubled:ab",
                      "global-scale-reciprocal:a",
                      "global-scale-reciprocal:b",
                      "global-scale-reciprocal:ab",
                      "k-reversed",
                      "accumulate-nearest",
                      "fp32-fma",
                      "dequantize-bf16-gemm",
                      "dequantize-f16-gemm",
                      "output-transposed",
                      "output-rounding-extra-bf16",
                      "output-rounding-extra-f16",
                      "accumulator-rounded-bf16"});
  check_found(tally, {"split-k-2", "split-k-4", "split-k-8", "nibbles-swapped:a", "nibbles-swapped:b", "k-interleaved-2", "k-interleaved-4",
                      "k-promotion-128", "k-promotion-256", "k-promotion-512"});
}

TEST_CASE("other quantizers are named when the sources are given") {
  Problem p = nvfp4_problem(64, 48, 512, 6);
  // te and te213 part at ties of the scale: look for an amax that brings some
  const auto parts = [](const SourceTensor &s) {
    return quantized(s, "te").scaled->scales != quantized(s, "te213").scaled->scales;
  };
  for (ProblemOperand *o : {&p.a, &p.b}) {
    SourceTensor s = *o->source;
    for (float &v : s.values) v = round_to(FormatId::bf16, std::clamp(v, -40.0f, 40.0f));
    for (s.values.front() = 64.0f; !parts(s) && s.values.front() > 40.0f;) s.values.front() -= 0.25f;
    REQUIRE(parts(s));
    *o = quantized(s, "te");
  }
  Tally tally;
  const std::vector<std::string> made = {
      "quantizer:te213:ab",      "quantizer:flashinfer:ab",     "quantizer:ggml:a",   "quantizer:ggml:ab",
      "quantizer:fouroversix:a", "quantizer:fouroversix-mae:b", "quantizer-tiles:ab", "quantizer-hadamard:a"};
  inject_all(p, "te", tally, made);
  check_found(tally, {"quantizer:te213:ab", "quantizer:ggml:ab", "quantizer:fouroversix:a",
                      "quantizer:fouroversix-mae:b", "quantizer-tiles:ab", "quantizer-hadamard:a"});
  check_alone(tally, {"quantizer:fouroversix:a", "quantizer-tiles:ab", "quantizer-hadamard:a"});
}

TEST_CASE("mistakes in an epilogue with C and 16-bit output are named") {
  Random random{2};
  Problem p = nvfp4_problem(24, 20, 256, 2, "torchao");
  p.a.source.reset();
  p.b.source.reset();
  p.alpha = 1.5f;
  p.beta = 0.75f;
  p.c = f32_words(random_source(24, 20, 1.0, random));
  Tally f32, bf16, widened;
  inject_all(p, "f32 with C", f32, {"alpha", "beta", "c-", "epilogue", "global", "output", "accumulator"});
  check_alone(f32, {"alpha-omitted", "beta-c-omitted", "beta-omitted", "beta-negated", "c-transposed",
                    "c-in-accumulator", "epilogue-unfused"});
  p.round = p.word = FormatId::bf16;
  inject_all(p, "bf16 with C", bf16, {"output", "accumulator", "beta", "global-scale-missing", "scales"});
  check_alone(bf16, {"output-truncated", "accumulator-rounded-bf16", "beta-c-omitted",
                     "global-scale-missing:a", "scales-linear-as-mn-major:a"});
  p.word = FormatId::f32;
  inject_all(p, "bf16 results in f32 words", widened, {"output", "accumulator"});
  check_alone(widened, {"output-rounding-missing", "output-truncated"});
}

TEST_CASE("accumulation models of FP4 are told apart") {
  Random random{3};
  Problem p;
  p.unit = &find_unit("sm_100:tcgen05.k64.f32.mxf4.ue8m0.block32");
  p.threads = 1;
  for (ProblemOperand *o : {&p.a, &p.b}) {
    *o = quantized(random_source(16, 512, 1.0, random), "mxfp4");
    o->source.reset();
    for (uint8_t &s : o->scaled->scales) s = uint8_t(127 + int(8 * random.normal()));
    o->raw = raw_operand(*o->scaled);
  }
  Tally mmasim, exact;
  const std::vector<std::string> chains = {"accumul", "block-size", "unit", "fp32", "split", "k-reversed"};
  inject_all(p, "mxfp4", mmasim, chains);
  check_alone(mmasim, {"accumulation:nadpe", "accumulation:exact", "accumulate-nearest",
                       "block-size-doubled:ab", "block-size-halved:ab"});
  p.accumulation = Accumulation::exact;
  inject_all(p, "mxfp4 exact", exact, {"accumul"});
  check_alone(exact, {"accumulation:nadpe", "accumulate-nearest"});
  check_found(exact, {"accumulation:mmasim", "accumulation:tcgen05-model"}); // equal words on such data
}

TEST_CASE("other units' arithmetic is named in dense products") {
  for (const char *name : {"sm_90:wgmma.k16.f32.bf16", "sm_90:wgmma.k32.f32.e4m3",
                           "sm_90:mma.m16n8k32.f32.e4m3", "sm_90:wgmma.k16.f16.f16"}) {
    Random random{4};
    Problem p;
    p.unit = &find_unit(name);
    p.threads = 1;
    p.a = dense(p.unit->rule.a, 12, 256, 2.0, random);
    p.b = dense(p.unit->rule.b, 20, 256, 2.0, random);
    Tally tally;
    inject_all(p, name, tally, {"unit", "accumul", "fp32", "split", "k-rev", "operand"});
    const bool f32 = p.unit->rule.acc == FormatId::f32;
    if (f32) check_found(tally, {"accumulate-nearest", "fp32-fma"});
    check_found(tally, {"split-k-2", "split-k-4", "split-k-8", "k-reversed", "operand-transposed:a"});
    int units = 0;
    for (const std::string &n : tally.found) units += n.rfind("unit:", 0) == 0 ? 1 : 0;
    CHECK(units > 1);
  }
}

TEST_CASE("row-scaled, FP64 and FP8 block-scaled products can be checked") {
  Random random{5};
  Problem p = nvfp4_problem(12, 16, 128, 5, "row-scaled");
  Tally rows, f64, mx;
  inject_all(p, "row-scaled", rows, {"row", "scales", "nibbles", "output"});
  check_alone(rows, {"row-scales-missing", "scales-linear-as-mn-major:a"});
  p.unit = &find_unit("sm_90:mma.m8n8k4.f64.f64");
  p.a = dense(FormatId::f64, 12, 64, 1.0, random);
  p.b = dense(FormatId::f64, 8, 64, 1.0, random);
  p.round = p.word = FormatId::f64;
  inject_all(p, "f64", f64);
  check_found(f64, {"split-k-2", "k-reversed", "output-transposed"});
  p.unit = &find_unit("sm_100:tcgen05.k32.f32.mxf8f6f4.e4m3.ue8m0.block32");
  p.a = quantized(random_source(12, 256, 1.0, random), "mxfp8-e4m3");
  p.b = quantized(random_source(16, 256, 1.0, random), "mxfp8-e4m3");
  p.round = p.word = FormatId::f32;
  inject_all(p, "mxfp8", mx, {"scales", "block", "accumulate", "fp32", "quantizer", "unit"});
  check_found(mx, {"scales-linear-as-mn-major:a", "block-size-doubled:ab", "accumulate-nearest", "fp32-fma",
                   "quantizer:mxfp8-e4m3-ceil:ab"});
}

TEST_CASE("mistakes in MXFP6 and mixed MXFP8 x MXFP4 products are named") {
  for (const char *name : {"sm_100:tcgen05.k32.f32.mxf8f6f4.e2m3.ue8m0.block32", "sm_100:tcgen05.k32.f32.mxf8f6f4.e4m3.e2m1.ue8m0.block32"}) {
    Random random{61};
    Problem p;
    p.unit = &find_unit(name);
    p.threads = 1;
    for (const auto &[operand, rows, format_id] :
         {std::tuple(&p.a, 12, p.unit->rule.a), std::tuple(&p.b, 16, p.unit->rule.b)}) {
      *operand = dense(format_id, rows, 256, 0.0, random);
      operand->raw.block = 32;
      operand->raw.scale = FormatId::ue8m0;
      for (int64_t s = 0; s < rows * operand->raw.blocks(); ++s)
        operand->raw.scales.push_back(uint8_t(127 + int(3 * random.normal())));
    }
    Tally tally;
    inject_all(p, name, tally, {"scales", "block", "codes", "signs", "operand", "split-k-2", "accumul", "fp32"});
    check_found(tally, {"scales-linear-as-mn-major:a", "scales-linear-as-128x4:b", "block-size-doubled:ab",
                        "block-scale-missing:a", "scales-shifted-block-next:b", "codes-subnormal-flushed:a", "signs-dropped:b",
                        "operand-transposed:a", "accumulate-nearest", "scales-as-ue4m3"});
  }
}
