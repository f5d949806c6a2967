// SPDX-License-Identifier: Apache-2.0
// The kinds as rows: the first whose test holds takes the difference.
#include "nvfp4/golden/diagnosis/quantizer_kinds.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::diagnosis {
namespace {

struct ScalePair {
  uint32_t got, want; ///< words
  float got_value, want_value;
  uint32_t largest, first_normal;
};
struct ElementPair {
  bool scale_right, zero_block;
  float x, y; ///< of the source; what is rounded
  uint16_t got, want;
  float got_value, want_value, largest, first_normal;
};

template <class Pair> struct KindRow {
  const char *name, *title;
  bool (*test)(const Pair &);
};

constexpr KindRow<ScalePair> kScaleKinds[] = {
    {"scale-nan", "scales: NaN for a number or the reverse",
     [](const ScalePair &s) { return std::isnan(s.got_value) != std::isnan(s.want_value); }},
    {"scale-flushed", "scales: zero for a subnormal",
     [](const ScalePair &s) { return s.got_value == 0.0f && s.want < s.first_normal; }},
    {"scale-zero", "scales: zero for another number or the reverse",
     [](const ScalePair &s) { return (s.got_value == 0.0f) != (s.want_value == 0.0f); }},
    {"scale-one-up", "scales: one step too large", [](const ScalePair &s) { return s.got == s.want + 1; }},
    {"scale-one-down", "scales: one step too small", [](const ScalePair &s) { return s.got + 1 == s.want; }},
    {"scale-saturated", "scales: the largest for a smaller one or the reverse",
     [](const ScalePair &s) { return s.got == s.largest || s.want == s.largest; }},
    {"scale-other", "scales: several steps off", [](const ScalePair &) { return true; }},
};

/// The two codes are the neighbours of y, on either side.
bool around(const ElementPair &e) {
  const double a = e.got_value, b = e.want_value, y = e.y;
  return std::min(a, b) <= y && y <= std::max(a, b) && a != b;
}
bool next_to(const ElementPair &e) { return std::abs(int(e.got) - int(e.want)) == 1; }

constexpr KindRow<ElementPair> kElementKinds[] = {
    {"follows-scale", "codes under a wrong scale", [](const ElementPair &e) { return !e.scale_right; }},
    {"nan-input", "codes of a NaN", [](const ElementPair &e) { return std::isnan(e.x); }},
    {"zero-block", "codes of a block of zeros",
     [](const ElementPair &e) { return e.zero_block && e.got_value != e.want_value; }},
    {"zero-sign", "zeros of the other sign",
     [](const ElementPair &e) { return e.got_value == 0.0f && e.want_value == 0.0f; }},
    {"sign", "codes of the other sign", [](const ElementPair &e) { return e.got_value == -e.want_value; }},
    {"tie", "ties that fell the other way",
     [](const ElementPair &e) {
       return next_to(e) &&
              std::fabs(double(e.y) - double(e.got_value)) == std::fabs(double(e.want_value) - double(e.y));
     }},
    {"saturation", "codes of values beyond the largest",
     [](const ElementPair &e) { return std::fabs(e.y) > e.largest; }},
    {"flushed", "zero for a subnormal code",
     [](const ElementPair &e) { return e.got_value == 0.0f && std::fabs(e.want_value) < e.first_normal; }},
    {"one-step", "codes one step off", [](const ElementPair &e) { return next_to(e); }},
    {"other", "other codes", [](const ElementPair &) { return true; }},
};

template <class Pair, size_t n> size_t kind_of(const KindRow<Pair> (&rows)[n], const Pair &pair) {
  size_t i = 0;
  while (!rows[i].test(pair)) ++i;
  return i;
}

} // namespace

KindsOfDifference kinds_of_difference(const BlockScaled &mine, const BlockScaled &want, const Rule &rule,
                                      const SourceTensor &x) {
  constexpr size_t kScales = std::size(kScaleKinds), kElements = std::size(kElementKinds);
  constexpr size_t kOfKind = 3, kSpread = 20;
  KindsOfDifference out;
  std::array<int64_t, kScales + kElements> counts{};
  std::array<std::vector<std::pair<int64_t, int64_t>>, kScales + kElements> examples;
  std::vector<std::pair<int64_t, int64_t>> differing;
  int64_t neighbours = 0;
  const Format scale_format = format(mine.scale);
  const uint32_t scale_normal = 1u << scale_format.mantissa_bits;
  const float largest_element = largest(mine.element), first_normal = smallest_normal(mine.element);
  for (int64_t r = 0; r < mine.rows; ++r) {
    const GlobalScale g = want.row_amax.empty()
                              ? GlobalScale{want.global_amax, want.global_encode, want.global_decode}
                              : global_from_amax(rule, want.row_amax[size_t(r)], want.source);
    for (int64_t b = 0; b < mine.blocks(); ++b) {
      const uint32_t got = mine.scale_code(r, b), wanted = want.scale_code(r, b);
      const int64_t first = b * mine.block, last = std::min(mine.k, first + mine.block);
      bool differs = got != wanted, zeros = true;
      const auto count = [&](size_t kind) {
        ++counts[kind];
        if (examples[kind].size() < kOfKind &&
            (examples[kind].empty() || examples[kind].back() != std::pair{r, b}))
          examples[kind].emplace_back(r, b);
      };
      if (differs) {
        const ScalePair pair{got,
                             wanted,
                             value_f32(mine.scale, got),
                             value_f32(mine.scale, wanted),
                             uint32_t(scale_format.max_finite_magnitude()),
                             scale_normal};
        count(kind_of(kScaleKinds, pair));
        if (!out.first_scale) out.first_scale = {r, b, got, wanted, pair.got_value, pair.want_value};
        ++out.scales;
      }
      Amax amax;
      for (int64_t i = first; i < last; ++i) {
        const float v = x.values[size_t(r * x.cols + i)];
        amax.add(v);
        zeros = zeros && v == 0.0f;
      }
      const BlockScale scale = scale_of_code(rule, wanted, amax.value(rule.amax_nan), g);
      for (int64_t i = first; i < last; ++i) {
        const uint16_t c = mine.code_word(r, i), w = want.code_word(r, i);
        if (c == w) continue;
        const float v = x.values[size_t(r * x.cols + i)];
        const BlockScale own = element_scale(rule, scale, int(i - first));
        const float y = rule.scaling == Scaling::search ? v / scale.value : scaled_element(rule, v, own);
        // as numbers of the format that y is rounded to
        const FormatId element = own.flagged ? format(mine.element).flagged() : mine.element;
        const ElementPair pair{
            got == wanted,   zeros,       v, y, c, w, value_f32(element, c), value_f32(element, w),
            largest_element, first_normal};
        count(kScales + kind_of(kElementKinds, pair));
        neighbours += pair.scale_right && next_to(pair) && around(pair);
        if (!out.first_code) out.first_code = {r, i, c, w, pair.got_value, pair.want_value};
        ++out.codes;
        differs = true;
      }
      if (differs) differing.emplace_back(r, b);
    }
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    if (i < kScales)
      out.kinds.push_back({kScaleKinds[i].name, kScaleKinds[i].title, counts[i]});
    else
      out.kinds.push_back({kElementKinds[i - kScales].name, kElementKinds[i - kScales].title, counts[i]});
    out.blocks.insert(out.blocks.end(), examples[i].begin(), examples[i].end());
  }
  for (size_t i = 0; i < kSpread && !differing.empty(); ++i)
    out.blocks.push_back(differing[i * differing.size() / kSpread]);
  for (size_t i = 0; i < kSpread && mine.rows * mine.blocks() > 0; ++i) { // right ones too
    const int64_t at = int64_t(i) * mine.rows * mine.blocks() / int64_t(kSpread);
    out.blocks.emplace_back(at / mine.blocks(), at % mine.blocks());
  }
  out.neighbours_only = out.scales == 0 && out.codes > 0 && neighbours == out.codes;
  return out;
}

} // namespace nvfp4::diagnosis
