// SPDX-License-Identifier: Apache-2.0
// Other quantizers: what the product would be, had the operands been made from their sources by another
// convention.
#include "nvfp4/golden/diagnosis/hypothesis.hpp"

#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <tuple>

namespace nvfp4::diagnosis {
namespace {

/// Signs of a rotation in place of the file's.
using Signs = uint16_t (*)(uint16_t file);

/// A way to quantize an operand anew; the rest stays as the operand says.
struct Recipe {
  std::string convention = {}; ///< empty: the operand's own
  bool other_block_rows = false, other_hadamard = false;
  Signs signs = nullptr;
  int rotation = 0; ///< groups of so many are rotated without signs, in place of the file's rotation
  std::optional<float> amax = {};
};

/// The orthonormal Walsh-Hadamard transform of groups along the contraction, butterflies in FP32.
std::vector<float> rotated(const SourceTensor &s, bool along_rows, int size) {
  std::vector<float> v = s.values;
  const int64_t length = along_rows ? s.cols : s.rows, lines = along_rows ? s.rows : s.cols,
                stride = along_rows ? 1 : s.cols, step = along_rows ? s.cols : 1;
  const float norm = 1.0f / std::sqrt(float(size));
  for (int64_t line = 0; line < lines; ++line)
    for (int64_t first = 0; first + size <= length; first += size) {
      float *const x = v.data() + line * step + first * stride;
      for (int half = 1; half < size; half *= 2)
        for (int i = 0; i < size; ++i)
          if ((i & half) == 0) {
            float &lo = x[i * stride], &hi = x[(i + half) * stride];
            const float sum = lo + hi, difference = lo - hi;
            lo = sum, hi = difference;
          }
      for (int i = 0; i < size; ++i) x[i * stride] *= norm;
    }
  return v;
}

/// Nothing where the recipe has no meaning for this operand or gives another element, scale or block.
std::optional<BlockScaled> requantize(const ProblemOperand &o, const Recipe &recipe) {
  if (!o.source || !o.scaled) return std::nullopt;
  const BlockScaled &q = *o.scaled;
  const Convention &convention =
      find_convention(recipe.convention.empty() ? q.convention : recipe.convention);
  const Rule &rule = convention.rule;
  if (rule.element != q.element || rule.scale != q.scale || rule.block != q.block) return std::nullopt;
  if (rule.per_row || !q.row_amax.empty()) return std::nullopt; // its epilogue is another one
  QuantizeOptions options;
  options.axis = q.axis;
  options.block_rows = recipe.other_block_rows ? (q.block_rows == 1 ? 16 : 1) : q.block_rows;
  options.hadamard = q.hadamard != recipe.other_hadamard;
  if (q.hadamard) options.sign_mask = q.sign_mask;
  options.source = q.source;
  options.global_amax = recipe.amax;
  if (recipe.signs != nullptr) {
    if (!q.hadamard || recipe.signs(q.sign_mask) == q.sign_mask) return std::nullopt;
    options.sign_mask = recipe.signs(q.sign_mask);
  }
  if (recipe.rotation != 0) options.hadamard = false;
  if (recipe.rotation != 0 && q.k % recipe.rotation != 0) return std::nullopt;
  try {
    const std::vector<float> values =
        recipe.rotation == 0 ? std::vector<float>{} : rotated(*o.source, q.axis == Axis::row, recipe.rotation);
    return quantize({recipe.rotation == 0 ? o.source->values.data() : values.data(), o.source->rows, o.source->cols},
                    convention, options);
  } catch (const Error &) { // a combination that the convention excludes
    return std::nullopt;
  }
}

/// Quantizes operands anew. `keep_alpha`: the epilogue keeps the files' global scales.
bool apply_recipe(const Problem &p, const Recipe &recipe, int sides, bool keep_alpha, Computation &c) {
  std::optional<BlockScaled> a = p.a.scaled, b = p.b.scaled;
  for (const int side : {1, 2}) {
    if ((sides & side) == 0) continue;
    std::optional<BlockScaled> q = requantize(side == 1 ? p.a : p.b, recipe);
    if (!q) return false;
    (side == 1 ? c.a : c.b) = std::make_shared<const RawOperand>(raw_operand(*q));
    (side == 1 ? a : b) = std::move(q);
  }
  if (keep_alpha) return true;
  try {
    c.epilogue.alpha = global_alpha(*a, *b, p.alpha, p.alpha_rule);
  } catch (const Error &) { // the caller's rule does not fit the other convention's scale
    c.epilogue.alpha = global_alpha(*a, *b, p.alpha, AlphaRule::sdec_product);
  }
  return true;
}

/// An amax with what it is in words.
struct Amax {
  float value;
  std::string text;
  bool keep_alpha;
};

float amax_of(const SourceTensor &s, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  float most = 0;
  for (int64_t r = row; r < row + rows; ++r)
    for (int64_t c = col; c < col + cols; ++c) most = std::max(most, std::fabs(s.values[size_t(r * s.cols + c)]));
  return most;
}

/// What an operand could have been quantized under. `ratios`: estimates of how many times larger D is than
/// expected, which tell the amax where the epilogue kept the file's.
std::vector<Amax> amaxes(const ProblemOperand &o, const std::vector<double> &ratios) {
  std::vector<Amax> all;
  const float own = o.scaled->global_amax;
  const SourceTensor &s = *o.source;
  if (!(own > 0) || !o.scaled->row_amax.empty()) return all;
  const auto add = [&](float value, std::string text, bool keep) {
    if (value > 0 && value != own && std::isfinite(value)) all.push_back({value, std::move(text), keep});
  };
  const auto share = [&](double f) {
    char text[64];
    std::snprintf(text, sizeof text, "%.4g times the file's amax", f);
    return std::string(text);
  };
  // the amax of a shard, each with either epilogue
  for (const int64_t parts : {2, 4, 8})
    for (const bool keep : {true, false}) {
      const std::string of = "the amax of the first of " + std::to_string(parts) + " parts of its ";
      if (s.rows % parts == 0) add(amax_of(s, 0, s.rows / parts, 0, s.cols), of + "rows", keep);
      if (s.cols % parts == 0) add(amax_of(s, 0, s.rows, 0, s.cols / parts), of + "columns", keep);
    }
  for (const double ratio : ratios) {
    if (!(ratio >= 1.0 / 16 && ratio <= 16) || std::fabs(ratio - 1) <= 1e-3) continue;
    const double f = 1 / ratio, window = 0.04 * f;
    for (const double grid : {20.0, 16.0, 100.0})
      for (int64_t n = int64_t(std::floor((f - window) * grid)); double(n) <= (f + window) * grid; ++n)
        if (std::fabs(double(n) / grid - f) <= window) add(float(double(n) / grid) * own, share(double(n) / grid), true);
    std::vector<float> near;
    for (const float v : s.values)
      if (std::fabs(double(std::fabs(v)) / double(own) - f) <= window) near.push_back(std::fabs(v));
    std::sort(near.begin(), near.end(), [&](float x, float y) {
      return std::fabs(double(x) / double(own) - f) < std::fabs(double(y) / double(own) - f);
    });
    near.erase(std::unique(near.begin(), near.end()), near.end());
    for (size_t i = 0; i < near.size() && i < 12; ++i)
      add(near[i], share(double(near[i]) / double(own)) + ", one of its elements", true);
  }
  for (const double f : {0.5, 0.75, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.5, 2.0}) add(float(f) * own, share(f), false);
  std::stable_sort(all.begin(), all.end(), [](const Amax &x, const Amax &y) {
    return x.value != y.value ? x.value < y.value : x.keep_alpha < y.keep_alpha;
  });
  all.erase(std::unique(all.begin(), all.end(), [](const Amax &x, const Amax &y) {
              return x.value == y.value && x.keep_alpha == y.keep_alpha;
            }),
            all.end());
  return all;
}

} // namespace

void add_amax_hypotheses(const Problem &p, const std::vector<double> &ratios, std::vector<Hypothesis> &out) {
  for (const int side : {1, 2}) {
    const ProblemOperand &o = side == 1 ? p.a : p.b;
    if (!o.source || !p.a.scaled || !p.b.scaled) continue;
    const auto list = std::make_shared<const std::vector<Amax>>(amaxes(o, ratios));
    if (list->empty()) continue;
    out.push_back({std::string("quantizer-amax") + side_key(side),
                   fill_in("% was quantized under another amax than the file's", side_name(side)),
                   "Use one amax for the codes and for the epilogue: that of the whole tensor.", Topic::quantizer,
                   [=](const Problem &q, int variant, Computation &c) {
                     if (variant >= int(list->size())) return false;
                     const Amax &amax = (*list)[size_t(variant)];
                     return apply_recipe(q, {.amax = amax.value}, side, amax.keep_alpha, c);
                   },
                   false, false, [list](const Problem &, int variant, const Computation &) {
                     const Amax &amax = (*list)[size_t(variant)];
                     return amax.text + (amax.keep_alpha ? ", the epilogue under the file's" : ", the epilogue under that too");
                   }});
  }
}

void add_quantizer_hypotheses(const Problem &p, std::vector<Hypothesis> &out) {
  if (!p.a.scaled || !p.b.scaled) return;
  const int given = (p.a.source ? 1 : 0) | (p.b.source ? 2 : 0);
  const auto add = [&](const Recipe &recipe, const std::string &name, const std::string &what) {
    for (int sides = 1; sides <= 3; ++sides) {
      if ((sides & given) != sides) continue;
      out.push_back({name + side_key(sides),
                     std::string(side_name(sides)) + (sides == 3 ? " are" : " is") + " quantized " + what,
                     "Quantize as the tensor that the kernel is given, or compare with a file made that way.",
                     Topic::quantizer, [recipe, sides](const Problem &q, int variant, Computation &c) {
                       return variant == 0 && apply_recipe(q, recipe, sides, false, c);
                     }});
    }
  };
  for (const Convention &convention : conventions())
    add({.convention = std::string(convention.name)}, "quantizer:" + std::string(convention.name),
        "by convention '" + std::string(convention.name) + "'");
  add({.other_block_rows = true}, "quantizer-tiles", "with the other of 1x16 and 16x16 blocks");
  add({.other_hadamard = true}, "quantizer-hadamard",
      "with the Hadamard rotation only where the file has none, or the reverse");
}

} // namespace nvfp4::diagnosis
