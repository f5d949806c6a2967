// SPDX-License-Identifier: Apache-2.0
// Mistakes in the accumulation: order along K, rounding, arithmetic, unit, model.
#include "nvfp4/golden/diagnosis/hypothesis.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"

#include <algorithm>
#include <cstring>
#include <tuple>

namespace nvfp4::diagnosis {
namespace {

using Raw = std::shared_ptr<const RawOperand>;

/// The operand with K filled up to a multiple of `step` by zeros under scales of 1.
RawOperand padded(const RawOperand &o, int64_t step) {
  if (o.k % step == 0) return o;
  RawOperand p = o;
  p.k = (o.k + step - 1) / step * step;
  p.codes.assign(size_t(p.rows * p.row_bytes()), 0);
  p.scales.resize(size_t(p.rows * p.scale_cols()));
  for (size_t i = 0; i < p.scales.size(); ++i)
    p.scales[i] = scale_byte(uint32_t(format(o.scale).one()), int(i % size_t(scale_bytes(o.scale))));
  for (int64_t r = 0; r < o.rows; ++r) {
    for (int64_t i = 0; i < o.k; ++i) p.set(r, i, o.code(r, i));
    std::copy_n(o.scales.begin() + r * o.scale_cols(), o.scale_cols(), p.scales.begin() + r * p.scale_cols());
  }
  return p;
}

/// Steps of `step` elements along K in another order.
Raw reorder(const RawOperand &o, int64_t step, const std::vector<int64_t> &order) {
  const RawOperand from = padded(o, step);
  RawOperand to = from;
  to.k = step * int64_t(order.size());
  to.codes.assign(size_t(to.rows * to.row_bytes()), 0);
  to.scales.assign(size_t(to.rows * to.scale_cols()), 0);
  const int64_t bytes = step * from.bits() / 8, scales = from.block == 0 ? 0 : step / from.block * scale_bytes(from.scale);
  for (int64_t r = 0; r < from.rows; ++r)
    for (size_t s = 0; s < order.size(); ++s) {
      std::copy_n(from.codes.begin() + r * from.row_bytes() + order[s] * bytes, bytes,
                  to.codes.begin() + r * to.row_bytes() + int64_t(s) * bytes);
      std::copy_n(from.scales.begin() + r * from.scale_cols() + order[s] * scales, scales,
                  to.scales.begin() + r * to.scale_cols() + int64_t(s) * scales);
    }
  return std::make_shared<const RawOperand>(std::move(to));
}

int64_t steps_of(const Computation &c, int64_t step) { return (c.a->k + step - 1) / step; }

/// Tiles of 1, 2, 4 instructions in falling order of K.
bool reverse_k(const Problem &, int variant, Computation &c) {
  if (variant > 2) return false;
  const int64_t step = int64_t{c.reduction.unit.rule.k} << variant, steps = steps_of(c, step);
  if (steps < 2) return false;
  std::vector<int64_t> order;
  for (int64_t s = steps; s-- > 0;) order.push_back(s);
  std::tie(c.a, c.b) = std::pair(reorder(*c.a, step, order), reorder(*c.b, step, order));
  return true;
}

/// `ways` accumulators take turns, tiles of 1, 2, 4 instructions each, and are added at the end.
bool interleave_k(int ways, int variant, Computation &c) {
  if (variant > 2) return false;
  const int64_t step = int64_t{c.reduction.unit.rule.k} << variant, steps = steps_of(c, step);
  if (steps < 2 * ways || steps % ways != 0) return false;
  std::vector<int64_t> order;
  for (int w = 0; w < ways; ++w)
    for (int64_t s = w; s < steps; s += ways) order.push_back(s);
  std::tie(c.a, c.b) = std::pair(reorder(*c.a, step, order), reorder(*c.b, step, order));
  c.reduction.cuts = cuts_every(steps / ways * step, steps * step);
  return true;
}

/// After every 1, 2, 4, ... instructions.
bool carry_rounded(FormatId type, int variant, Computation &c) {
  const int64_t slice = variant > 20 ? 0 : int64_t{c.reduction.unit.rule.k} << variant;
  if (c.reduction.unit.rule.acc != FormatId::f32 || slice == 0 || slice >= c.a->k) return false;
  c.reduction.cuts = cuts_every(slice, c.a->k);
  c.reduction.combine = Combine::carried;
  c.reduction.partial = type;
  return true;
}

bool round_nearest(const Problem &, int variant, Computation &c) {
  const Output output = c.reduction.unit.rule.output;
  if (variant != 0 || (output != Output::rz_f32 && output != Output::rz_e8m13)) return false;
  c.reduction.finish = Finish::nearest_even;
  return true;
}

/// The operand as dense codes of `type`: values times block scales, and times the global scale where
/// `global`.
std::optional<Raw> dequantized(const RawOperand &o, const BlockScaled &q, FormatId type, bool global) {
  const Rule &rule = find_convention(q.convention).rule;
  if (global && (!q.row_amax.empty() || q.global_amax != q.global_amax)) return std::nullopt;
  const GlobalScale g{q.global_amax, q.global_encode, q.global_decode};
  const auto word_of = [&](uint8_t code, uint32_t scale, int place) {
    const float v = global ? decode_element(rule, code, scale, place, g)
                           : element_value(o.format, code, is_flagged(format(o.scale), scale)) *
                                 scale_value(o.scale, scale, place);
    return encode(type, v, Rounding::nearest_even, Overflow::ieee);
  };
  // a scale of one byte means the same everywhere in its block: few pairs of scale and code, each computed once
  const int bits = o.bits();
  std::vector<int64_t> words(scale_bytes(o.scale) == 1 && bits <= 8 ? size_t{256} << bits : 0, -1);
  RawOperand d{type, FormatId::ue4m3, 0, o.rows, o.k, {}, {}};
  const int64_t width = d.bits() / 8;
  d.codes.resize(size_t(d.rows * d.k * width));
  uint8_t *to = d.codes.data();
  for (int64_t r = 0; r < o.rows; ++r) {
    const CodeView row = o.row(r);
    uint32_t scale = 0;
    for (int64_t i = 0; i < o.k; ++i, to += width) {
      const int place = int(i % o.block);
      if (place == 0) scale = o.scale_of(r, i);
      const uint8_t code = uint8_t(row[i]);
      uint64_t word = 0;
      if (words.empty()) {
        word = word_of(code, scale, place);
      } else {
        int64_t &known = words[size_t{scale} << bits | code];
        if (known < 0) known = int64_t(word_of(code, scale, place));
        word = uint64_t(known);
      }
      std::memcpy(to, &word, size_t(width));
    }
  }
  return std::make_shared<const RawOperand>(std::move(d));
}

/// The operand before it was quantized, rounded to `type`. Nothing without a source, and for a rotated
/// operand unless the other one is taken as it was, too.
std::optional<Raw> unquantized(const ProblemOperand &o, FormatId type, bool both) {
  if (!o.source || !o.scaled || (o.scaled->hadamard && !both)) return std::nullopt;
  const bool transposed = o.scaled->axis == Axis::col;
  const SourceTensor &s = *o.source;
  RawOperand d{type, FormatId::ue4m3, 0, o.raw.rows, o.raw.k, {}, {}};
  d.codes.resize(size_t(d.rows * d.row_bytes()));
  const int64_t k = transposed ? s.rows : s.cols; // behind it the operand is padded
  if ((transposed ? s.cols : s.rows) != d.rows || k > d.k) return std::nullopt;
  for (int64_t r = 0; r < d.rows; ++r)
    for (int64_t i = 0; i < k; ++i)
      d.set(r, i,
            encode(type, s.values[size_t(transposed ? i * s.cols + r : r * s.cols + i)],
                   Rounding::nearest_even, Overflow::ieee));
  return std::make_shared<const RawOperand>(std::move(d));
}

/// Both operands; with global scales in the values, alpha is the caller's alone.
bool dequantize_both(const Problem &p, Computation &c, FormatId type, bool global) {
  if (!p.a.scaled || !p.b.scaled || c.a->block == 0 || c.b->block == 0) return false;
  const auto a = dequantized(*c.a, *p.a.scaled, type, global),
             b = dequantized(*c.b, *p.b.scaled, type, global);
  if (!a || !b) return false;
  std::tie(c.a, c.b) = std::pair(*a, *b);
  if (global) c.epilogue.alpha = p.alpha;
  return true;
}

/// FP32 fused multiply-adds: with block scales in the values, block by block, or on fully dequantized values.
bool fma_f32(const Problem &p, int variant, Computation &c) {
  if (c.reduction.unit.rule.acc != FormatId::f32) return false;
  c.reduction.arithmetic = variant == 1 ? Arithmetic::block_f32 : Arithmetic::fma_f32;
  if (variant == 0) return true;
  if (variant == 1) return c.a->block != 0 && c.a->format == FormatId::e2m1;
  return variant == 2 && dequantize_both(p, c, FormatId::f32, true);
}

bool same_rule(const UnitRule &x, const UnitRule &y) {
  const auto key = [](const UnitRule &r) {
    return std::tuple(r.family, r.a, r.b, r.acc, r.output, r.k, r.link, r.fraction_bits, r.floor,
                      r.scale_block == 0 ? FormatId::f32 : r.scale, r.scale_block);
  };
  return key(x) == key(y);
}

/// Units of other arithmetic for operands of these formats, each arithmetic once, `arch` first. No kernel runs on
/// a unit that is ours alone.
std::vector<const Unit *> distinct_units(FormatId a, FormatId b, FormatId scale, int block,
                                         const std::string &arch, const UnitRule *except) {
  std::vector<const Unit *> units;
  for (const bool own : {true, false})
    for (const Unit &u : catalogue()) {
      const UnitRule &r = u.rule;
      if (r.a != a || r.b != b || r.scale_block != block || (block != 0 && r.scale != scale) ||
          (u.arch == arch) != own || (u.evidence == Evidence::defined && !own))
        continue;
      if (except != nullptr && same_rule(r, *except)) continue;
      if (std::none_of(units.begin(), units.end(), [&](const Unit *v) { return same_rule(v->rule, r); }))
        units.push_back(&u);
    }
  return units;
}

/// Operands of `type` are multiplied by a dense unit, of `variant`, or by FP32 fused multiply-adds after the
/// last.
bool dense_gemm(FormatId type, const Problem &p, int variant, Computation &c) {
  std::vector<const Unit *> units = distinct_units(type, type, FormatId::f32, 0, p.unit->arch, nullptr);
  std::erase_if(units, [](const Unit *u) { return u->rule.acc != FormatId::f32; });
  const int count = int(units.size());
  if (variant > count) return false;
  if (variant < count)
    c.reduction.unit = *units[size_t(variant)];
  else
    c.reduction.arithmetic = Arithmetic::fma_f32;
  return true;
}

/// Dequantized operands rounded to a 16-bit type and multiplied on a dense unit. Variants: unit, global scale
/// inside.
bool sixteen_bit_gemm(FormatId type, const Problem &p, int variant, Computation &c) {
  return dense_gemm(type, p, variant / 2, c) && dequantize_both(p, c, type, variant % 2 == 0);
}

/// The same where the operands of `sides` are the tensors before quantization.
bool unquantized_gemm(FormatId type, int sides, const Problem &p, int variant, Computation &c) {
  if (!dense_gemm(type, p, variant, c) || !dequantize_both(p, c, type, true)) return false;
  for (const int side : {1, 2}) {
    if ((sides & side) == 0) continue;
    const auto raw = unquantized(side == 1 ? p.a : p.b, type, sides == 3);
    if (!raw) return false;
    (side == 1 ? c.a : c.b) = *raw;
  }
  return true;
}

} // namespace

bool take_k(Computation &c, int64_t from, int64_t to) {
  const int64_t step = c.reduction.unit.rule.k, steps = steps_of(c, step);
  std::vector<int64_t> order;
  for (int64_t s = 0; s * step < from; ++s) order.push_back(s);
  for (int64_t s = (to + step - 1) / step; s < steps; ++s) order.push_back(s);
  if (order.empty()) return false;
  std::tie(c.a, c.b) = std::pair(reorder(*c.a, step, order), reorder(*c.b, step, order));
  return true;
}

void add_chain_hypotheses(const Problem &p, std::vector<Hypothesis> &out) {
  const UnitRule &rule = p.unit->rule;
  const auto add = [&](std::string name, std::string title, std::string advice, auto apply) {
    out.push_back({std::move(name), std::move(title), std::move(advice), Topic::chain, apply});
  };
  for (const int ways : {2, 4})
    add("k-interleaved-" + std::to_string(ways),
        std::to_string(ways) + " accumulators take turns along K and are added at the end",
        "Chain all instructions of an output through one accumulator.",
        [ways](const Problem &, int v, Computation &c) { return interleave_k(ways, v, c); });
  add("k-reversed", "K runs from its end to its start", "Issue the instructions in increasing K.", reverse_k);
  for (const FormatId type : {FormatId::bf16, FormatId::f16})
    add(std::string("accumulator-rounded-between-") + format(type).name,
        std::string("the accumulator is rounded to ") + (type == FormatId::bf16 ? "BF16" : "FP16") +
            " between steps of K",
        "Keep the FP32 accumulator over all of K.",
        [type](const Problem &, int v, Computation &c) { return carry_rounded(type, v, c); });
  add("accumulate-nearest", "the accumulator is rounded to nearest even where the hardware truncates",
      "Truncate after each step: tensor cores round their FP32 accumulator toward zero.", round_nearest);
  add("fp32-fma", "products are accumulated by FP32 fused multiply-adds",
      "Use the tensor-core instruction; FP32 sums have other bits.", fma_f32);
  if (p.a.scaled && p.b.scaled) {
    add("dequantize-bf16-gemm", "operands are dequantized to BF16 and multiplied by a BF16 GEMM",
        "Multiply the codes with a block-scaled instruction.",
        [](const Problem &q, int v, Computation &c) { return sixteen_bit_gemm(FormatId::bf16, q, v, c); });
    add("dequantize-f16-gemm", "operands are dequantized to FP16 and multiplied by an FP16 GEMM",
        "Multiply the codes with a block-scaled instruction.",
        [](const Problem &q, int v, Computation &c) { return sixteen_bit_gemm(FormatId::f16, q, v, c); });
  }
  constexpr std::pair<FormatId, const char *> plain[] = {
      {FormatId::bf16, "BF16"}, {FormatId::f16, "FP16"}, {FormatId::f32, "FP32"}};
  for (const auto &[type, name] : plain)
    for (int sides = 1; sides <= 3; ++sides)
      if ((sides == 2 || p.a.source) && (sides == 1 || p.b.source))
        out.push_back({std::string("not-quantized-") + format(type).name + side_key(sides),
                       std::string(side_name(sides)) + (sides == 3 ? " are" : " is") +
                           " not quantized: the product is one of " + name,
                       "Quantize the operand, or pass the quantized copy.", Topic::operand,
                       [t = type, sides](const Problem &q, int v, Computation &c) {
                         return unquantized_gemm(t, sides, q, v, c);
                       },
                       false, true});
  if (rule.family == Family::gst_fdpa)
    for (const Accumulation model : enumerators<Accumulation>())
      if (model != p.accumulation)
        add("accumulation:" + std::string(to_string(model)),
            "groups are accumulated as the model '" + std::string(to_string(model)) + "' says",
            "Compare with --accumulation " + std::string(to_string(model)) +
                "; public models of the FP4 step disagree.",
            [model](const Problem &, int v, Computation &c) {
              c.reduction.accumulation = model;
              return v == 0;
            });
  for (const Unit *unit : distinct_units(rule.a, rule.b, rule.scale, rule.scale_block, p.unit->arch, &rule))
    if (unit->rule.acc == FormatId::f64 || rule.acc != FormatId::f64)
      add("unit:" + unit->name(), "the output is that of unit " + unit->name(),
          "Compare with --unit " + unit->name() + " if that is what ran.",
          [unit](const Problem &, int v, Computation &c) {
            c.reduction.unit = *unit;
            return v == 0;
          });
}

} // namespace nvfp4::diagnosis
