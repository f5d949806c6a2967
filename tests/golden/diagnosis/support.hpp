// SPDX-License-Identifier: Apache-2.0
// Problems for the diagnosis tests: random operands with seeds, and the injection of a mistake by its name.
#pragma once
#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/diagnosis/diagnose.hpp"
#include "tests/emulator/gemm/support.hpp"

#include <numeric>

namespace nvfp4::test {

using namespace diagnosis;

inline const char *const kNvfp4Unit = "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16";

/// Normal values whose blocks of 16 have magnitudes exp(spread * normal).
inline SourceTensor random_source(int64_t rows, int64_t k, double spread, Random &random) {
  SourceTensor s{rows, k, {}};
  double scale = 1;
  for (int64_t i = 0; i < rows * k; ++i) {
    if (i % 16 == 0) scale = std::exp(spread * random.normal());
    s.values.push_back(float(random.normal() * scale));
  }
  return s;
}

inline ProblemOperand quantized(SourceTensor source, const std::string &convention,
                                const QuantizeOptions &options = {}) {
  ProblemOperand o;
  o.scaled = quantize({source.values.data(), source.rows, source.cols}, find_convention(convention), options);
  o.raw = raw_operand(*o.scaled);
  o.source = std::move(source);
  return o;
}

/// Dense operand of a unit: normal values rounded to its format.
inline ProblemOperand dense(FormatId format_id, int64_t rows, int64_t k, double spread, Random &random) {
  RawOperand raw{format_id, FormatId::ue4m3, 0, rows, k, {}, {}};
  raw.codes.resize(size_t(rows * raw.row_bytes()));
  const SourceTensor s = random_source(rows, k, spread, random);
  for (int64_t i = 0; i < rows * k; ++i) {
    const Format wide = format(FormatId::f64);
    raw.set(i / k, i % k,
            convert(format(format_id), wide, bit_cast<uint64_t>(double(s.values[size_t(i)])),
                    Rounding::nearest_even, Overflow::satfinite));
  }
  return {raw, {}, {}};
}

inline std::vector<uint8_t> f32_words(const SourceTensor &s) {
  std::vector<uint8_t> words(s.values.size() * 4);
  std::memcpy(words.data(), s.values.data(), words.size());
  return words;
}

inline std::vector<int64_t> indices(int64_t n) {
  std::vector<int64_t> v(static_cast<size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  return v;
}

inline std::vector<uint8_t> whole(const Problem &p, const Computation &c) {
  return evaluate(p, c, indices(p.m()), indices(p.n()));
}

/// The output with one mistake made, or nothing where it cannot be made.
inline std::optional<std::vector<uint8_t>> inject(const Problem &p, const Hypothesis &h, int variant = 0) {
  Computation c = reference_computation(p);
  if (!h.apply(p, variant, c)) return std::nullopt;
  return whole(p, c);
}

inline const Hypothesis &find(const std::vector<Hypothesis> &all, const std::string &name) {
  for (const Hypothesis &h : all)
    if (h.name == name) return h;
  FAIL("no mistake is named " << name);
  return all.front();
}

inline bool has(const std::vector<Finding> &list, const std::string &name) {
  return std::any_of(list.begin(), list.end(), [&](const Finding &f) { return f.name == name; });
}

inline std::string names(const std::vector<Finding> &list) {
  std::string text;
  for (const Finding &f : list) text += f.name + " ";
  return text;
}

/// NVFP4 of two convention-quantized tensors with their sources.
inline Problem nvfp4_problem(int64_t m, int64_t n, int64_t k, uint64_t seed,
                             const std::string &convention = "te") {
  Random random{seed};
  Problem p;
  p.unit = &find_unit(kNvfp4Unit);
  p.a = quantized(random_source(m, k, 1.0, random), convention);
  p.b = quantized(random_source(n, k, 1.0, random), convention);
  p.threads = 1;
  return p;
}

} // namespace nvfp4::test
