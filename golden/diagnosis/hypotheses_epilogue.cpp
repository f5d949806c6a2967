// SPDX-License-Identifier: Apache-2.0
// Mistakes after the accumulation (global scales, alpha, beta * C, output rounding, layout of D) and the
// quantizers that could have made the operands.
#include "nvfp4/golden/diagnosis/hypothesis.hpp"

#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <algorithm>

namespace nvfp4::diagnosis {
namespace {

/// An operand's global scale: p with which values are multiplied, and 1 / p as the convention has it.
struct Global {
  float decode = 1.0f, encode = 1.0f, amax = 1.0f, range = 1.0f;
  bool by_amax = false; ///< mul_const may be used
};

Global global_of(const std::optional<BlockScaled> &q) {
  if (!q) return {};
  const Rule &rule = find_convention(q->convention).rule;
  if (!has_tensor_level(rule)) return {};
  const AlphaShare share = alpha_share(rule, q->global_amax, q->global_decode);
  return {q->global_decode, stores_decode(rule) ? 1.0f / q->global_decode : q->global_encode, q->global_amax, share.range,
          share.follows_amax};
}

/// Forms of alpha without, with twice, or with the inverse of the global scales of `sides` (1: A, 2: B).
using AlphaForms = std::vector<float> (*)(const Problem &, int sides);

std::vector<float> alpha_missing(const Problem &p, int sides) {
  if (sides == 3) return {p.alpha};
  const Global g = global_of(sides == 1 ? p.b.scaled : p.a.scaled);
  std::vector<float> forms = {p.alpha * g.decode};
  if (g.by_amax) {
    forms.push_back(p.alpha * g.amax * (1.0f / g.range));
    forms.push_back(p.alpha * g.amax / g.range);
  }
  return forms;
}

std::vector<float> alpha_doubled(const Problem &p, int sides) {
  const float total = total_alpha(p), pa = global_of(p.a.scaled).decode, pb = global_of(p.b.scaled).decode;
  if (sides == 3) {
    const float g = global_alpha(*p.a.scaled, *p.b.scaled, 1.0f, p.alpha_rule);
    return {total * (pa * pb), total * g, p.alpha * (g * g), total * pa * pb};
  }
  const float once = sides == 1 ? pa : pb;
  return {total * once, p.alpha * (once * once * (sides == 1 ? pb : pa))};
}

std::vector<float> alpha_reciprocal(const Problem &p, int sides) {
  const Global a = global_of(p.a.scaled), b = global_of(p.b.scaled);
  const float x = (sides & 1) != 0 ? a.encode : a.decode, y = (sides & 2) != 0 ? b.encode : b.decode;
  std::vector<float> forms = {p.alpha * (x * y), p.alpha * x * y};
  if (sides == 3) forms.push_back(p.alpha / global_alpha(*p.a.scaled, *p.b.scaled, 1.0f, p.alpha_rule));
  return forms;
}

std::vector<float> alpha_amax(const Problem &p, int sides) {
  const Global a = global_of(p.a.scaled), b = global_of(p.b.scaled);
  const float x = (sides & 1) != 0 ? a.amax : a.decode, y = (sides & 2) != 0 ? b.amax : b.decode;
  return {p.alpha * (x * y), p.alpha * x * y};
}

struct GlobalRow {
  const char *name, *title, *advice;
  AlphaForms forms;
};
constexpr GlobalRow kGlobalRows[] = {
    {"global-scale-missing", "the global scale of % is not applied",
     "Multiply the accumulator with alpha = p_A * p_B, p = amax / (6 * 448).", alpha_missing},
    {"global-scale-doubled", "the global scale of % is applied twice",
     "Apply each global scale once: in alpha or in the values, not both.", alpha_doubled},
    {"global-scale-reciprocal", "the encode scale of % is applied in place of the decode scale",
     "Multiply with the decode scale p = 1 / S.", alpha_reciprocal},
    {"global-scale-is-amax", "the amax of % is taken for its decode scale",
     "Divide amax by 6 * 448 (6 * 256 for four-over-six).", alpha_amax},
};

/// One global scale where two belong.
struct JointRow {
  const char *name, *title;
  float (*joint)(float a, float b);
};
constexpr JointRow kJointRows[] = {
    {"global-scale-a-twice", "A's global scale is applied for B too", [](float a, float) { return a * a; }},
    {"global-scale-b-twice", "B's global scale is applied for A too", [](float, float b) { return b * b; }},
};

void add_global_scales(const Problem &p, std::vector<Hypothesis> &out) {
  if (!p.a.scaled || !p.b.scaled) return;
  for (const GlobalRow &row : kGlobalRows)
    for (int sides = 1; sides <= 3; ++sides) {
      out.push_back({std::string(row.name) + side_key(sides), fill_in(row.title, side_name(sides)),
                     row.advice, Topic::epilogue,
                     [forms = row.forms, sides](const Problem &q, int variant, Computation &c) {
                       const std::vector<float> all = forms(q, sides);
                       if (variant >= int(all.size())) return false;
                       c.epilogue.alpha = all[size_t(variant)];
                       return true;
                     }});
    }
  for (const JointRow &row : kJointRows)
    out.push_back({row.name, row.title, "Give each operand its own global scale.", Topic::epilogue,
                   [joint = row.joint](const Problem &q, int variant, Computation &c) {
                     const float a = global_of(q.a.scaled).decode, b = global_of(q.b.scaled).decode;
                     c.epilogue.alpha = q.alpha * joint(a, b);
                     return variant == 0;
                   }});
  const std::tuple<const char *, AlphaRule> rules[] = {{"mul_const", AlphaRule::mul_const},
                                                       {"div", AlphaRule::div},
                                                       {"sdec_product", AlphaRule::sdec_product}};
  for (const auto &[name, rule] : rules)
    out.push_back({std::string("alpha-rule:") + name,
                   std::string("global scales are combined by the rule '") + name + "'",
                   std::string("Compare with --alpha-rule ") + name + "; the rules differ in the last bit.",
                   Topic::epilogue, [how = rule](const Problem &q, int variant, Computation &c) {
                     if (variant != 0) return false;
                     try {
                       c.epilogue.alpha = global_alpha(*q.a.scaled, *q.b.scaled, q.alpha, how);
                     } catch (const Error &) { // the convention's scale does not allow this rule
                       return false;
                     }
                     return true;
                   }});
}

/// A row without variants whose whole effect is a change of the epilogue or the chain.
struct EpilogueRow {
  const char *name, *title, *advice;
  bool (*change)(const Problem &, int variant, Computation &);
  bool whole = false; ///< Hypothesis::whole
};

bool unscaled_alpha(const Problem &p, Computation &c) {
  Problem q = p;
  q.alpha = 1.0f;
  c.epilogue.alpha = total_alpha(q);
  return p.alpha != 1.0f;
}
bool has_c(const Problem &p) { return !p.c.empty() && p.beta != 0.0f; }
bool f32_acc(const Problem &p) { return p.unit->rule.acc != FormatId::f64; }

bool start_from_c(const Problem &p, int variant, Computation &c) {
  if (variant != 0 || !has_c(p) || p.unit->rule.acc == FormatId::f16) return false;
  c.reduction.start_from_c = true;
  c.epilogue.beta = 0.0f;
  return true;
}

bool round_missing(const Problem &p, int variant, Computation &c) {
  c.epilogue.round = p.word;
  return variant == 0 && p.round != p.word;
}

template <FormatId type, bool truncate = false>
bool round_extra(const Problem &p, int variant, Computation &c) {
  c.epilogue.round_twice = type;
  c.epilogue.truncate_first = truncate;
  return variant == 0 && f32_acc(p) && p.round != type;
}

/// The accumulator (and so alpha's argument) goes through a 16-bit type.
template <FormatId type> bool round_accumulator(const Problem &p, int variant, Computation &c) {
  c.epilogue.round_acc = type;
  return variant == 0 && f32_acc(p) && p.unit->rule.acc != type;
}

bool truncate_output(const Problem &p, int variant, Computation &c) {
  c.epilogue.truncate = true;
  return variant == 0 && f32_acc(p) && p.round != FormatId::f32;
}

constexpr EpilogueRow kEpilogueRows[] = {
    {"alpha-omitted", "alpha is taken as 1", "Multiply with alpha.",
     [](const Problem &p, int v, Computation &c) { return v == 0 && unscaled_alpha(p, c); }},
    {"beta-c-omitted", "beta * C is left out", "Add beta * C.",
     [](const Problem &p, int v, Computation &c) {
       c.epilogue.beta = 0.0f;
       return v == 0 && has_c(p);
     }},
    {"beta-omitted", "C is added without beta", "Multiply C with beta.",
     [](const Problem &p, int v, Computation &c) {
       c.epilogue.beta = 1.0f;
       return v == 0 && has_c(p) && p.beta != 1.0f;
     }},
    {"beta-negated", "beta * C is subtracted", "Add beta * C.",
     [](const Problem &p, int v, Computation &c) {
       c.epilogue.beta = -p.beta;
       return v == 0 && has_c(p);
     }},
    {"c-transposed", "C is read column by column", "Exchange the strides of C.",
     [](const Problem &p, int v, Computation &c) {
       c.epilogue.column_major_c = true;
       return v == 0 && has_c(p);
     },
     true},
    {"c-in-accumulator", "the accumulator starts from C, so beta is 1 and alpha scales C too",
     "Start from 0 and add beta * C in the epilogue.", start_from_c},
    {"epilogue-unfused", "alpha * acc + beta * C is rounded three times",
     "Compute fma(alpha, acc, beta * C) as cuBLASLt does.",
     [](const Problem &p, int v, Computation &c) {
       c.epilogue.unfused = true;
       return v == 0 && has_c(p) && f32_acc(p);
     }},
    {"output-rounding-missing", "D is not rounded to the output type",
     "Round the epilogue's FP32 result to the output type.", round_missing},
    {"output-rounding-extra-bf16", "D is rounded to BF16 before it is written in its own type",
     "Write the FP32 result with one rounding to the type of D.", round_extra<FormatId::bf16>},
    {"output-rounding-extra-f16", "D is rounded to FP16 before it is written in its own type",
     "Write the FP32 result with one rounding to the type of D.", round_extra<FormatId::f16>},
    {"output-truncated-extra-bf16", "D is truncated to BF16 before it is written in its own type",
     "Write the FP32 result with one rounding to the type of D.", round_extra<FormatId::bf16, true>},
    {"output-truncated-extra-f16", "D is truncated to FP16 before it is written in its own type",
     "Write the FP32 result with one rounding to the type of D.", round_extra<FormatId::f16, true>},
    {"output-signs-dropped", "the signs of D are dropped", "Keep the sign of the result.",
     [](const Problem &p, int v, Computation &c) {
       c.epilogue.drop_sign = true;
       return v == 0 && f32_acc(p);
     }},
    {"output-truncated", "D is truncated to its type, not rounded", "Round to nearest even (cvt.rn).",
     truncate_output},
    {"accumulator-rounded-bf16", "the accumulator is rounded to BF16 before alpha is applied",
     "Apply alpha and beta in FP32 and round once.", round_accumulator<FormatId::bf16>},
    {"accumulator-rounded-f16", "the accumulator is rounded to FP16 before alpha is applied",
     "Apply alpha and beta in FP32 and round once.", round_accumulator<FormatId::f16>},
    {"output-transposed", "D is written column by column", "Exchange the strides of D.",
     [](const Problem &p, int v, Computation &c) {
       c.epilogue.column_major_d = true;
       return v == 0 && p.m() > 1 && p.n() > 1;
     },
     true},
    {"row-scales-missing", "the global scales per row are not applied",
     "Multiply each row of D with the row's amax.",
     [](const Problem &, int v, Computation &c) {
       const bool any = !c.epilogue.row_a.empty() || !c.epilogue.row_b.empty();
       c.epilogue.row_a.clear();
       c.epilogue.row_b.clear();
       return v == 0 && any;
     }},
};

} // namespace

void add_epilogue_hypotheses(const Problem &p, std::vector<Hypothesis> &out) {
  add_global_scales(p, out);
  for (const EpilogueRow &row : kEpilogueRows) {
    out.push_back({row.name, row.title, row.advice, Topic::epilogue, row.change});
    out.back().whole = row.whole;
  }
}

} // namespace nvfp4::diagnosis
