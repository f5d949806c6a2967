// SPDX-License-Identifier: Apache-2.0
// Unpacks operands and checks that a problem makes sense.
#include "nvfp4/golden/diagnosis/problem.hpp"

#include <algorithm>
#include <cstring>

namespace nvfp4::diagnosis {

void RawOperand::set(int64_t r, int64_t i, uint64_t code) {
  const int width = bits();
  uint8_t *at = codes.data() + r * ((k * width + 7) / 8);
  if (width == 4) {
    const int shift = int(i & 1) * 4;
    at[i / 2] = uint8_t((at[i / 2] & ~(0xF << shift)) | int(code & 0xF) << shift);
  } else {
    std::memcpy(at + i * width / 8, &code, size_t(width / 8));
  }
}

RawOperand raw_operand(const BlockScaled &q) {
  return {q.element,
          q.scale,
          q.block,
          q.rows,
          q.padded_k,
          q.codes,
          q.layout == ScaleLayout::linear ? q.scales : untile_scales(q.scales, q.rows, q.scale_cols())};
}

RawOperand raw_operand(const GemmOperand &p) {
  RawOperand raw{p.format, p.scale, p.scale_block, p.rows, p.k, {}, {}};
  raw.codes.resize(size_t(raw.rows * raw.row_bytes()));
  raw.scales.resize(size_t(raw.rows * raw.scale_cols()));
  for (int64_t r = 0; r < raw.rows; ++r) {
    std::copy_n(p.codes.begin() + r * p.row_bytes(), raw.row_bytes(),
                raw.codes.begin() + r * raw.row_bytes());
    if (raw.block != 0) std::copy_n(p.row_scales(r), raw.scale_cols(), raw.scales.begin() + r * raw.scale_cols());
  }
  return raw;
}

void check_problem(const Problem &p, std::span<const uint8_t> words) {
  const UnitRule &rule = p.unit->rule;
  const auto shape = [](int64_t r, int64_t c) {
    return "[" + std::to_string(r) + ", " + std::to_string(c) + "]";
  };
  for (const auto &[o, id] : {std::pair(&p.a, rule.a), std::pair(&p.b, rule.b)}) {
    if (o->raw.format != id || o->raw.block != rule.scale_block ||
        (o->raw.block != 0 && o->raw.scale != rule.scale))
      throw Error("operands do not fit unit " + p.unit->name());
    if (o->source && o->scaled) {
      const bool transposed = o->scaled->axis == Axis::col;
      const int64_t rows = transposed ? o->scaled->k : o->scaled->rows,
                    cols = transposed ? o->scaled->rows : o->scaled->k;
      if (o->source->rows != rows || o->source->cols != cols)
        throw Error("the unquantized tensor is " + shape(o->source->rows, o->source->cols) +
                    ", the quantized one was made from " + shape(rows, cols));
    } else if (o->source) {
      throw Error("an unquantized source goes with a quantized operand only");
    }
  }
  if (p.a.raw.k != p.b.raw.k)
    throw Error("A has K = " + std::to_string(p.a.raw.k) + ", B has K = " + std::to_string(p.b.raw.k) +
                "; they must be equal");
  const bool f64 = rule.acc == FormatId::f64;
  if (f64 != (p.word == FormatId::f64) || f64 != (p.round == FormatId::f64))
    throw Error("unit " + p.unit->name() + (f64 ? " writes f64" : " writes f32, bf16 or f16") + ", D is " +
                format(p.word).name);
  if (p.round != p.word && p.word != FormatId::f32)
    throw Error(std::string("D is ") + format(p.word).name + ", which cannot hold values rounded to " +
                format(p.round).name);
  const int64_t outputs = p.m() * p.n();
  if (!p.c.empty() && int64_t(p.c.size()) != outputs * (f64 ? 8 : 4))
    throw Error("C must be " + shape(p.m(), p.n()));
  if (p.beta != 0.0f && p.c.empty()) throw Error("beta needs C");
  if (p.a.scaled && p.b.scaled) // rotation, logical K, row scales: what the product itself demands
    GemmPlan(*p.unit, {.beta = p.beta, .out = p.round, .alpha_rule = p.alpha_rule})
        .check(make_operand(*p.unit, Side::a, *p.a.scaled), make_operand(*p.unit, Side::b, *p.b.scaled),
               {.c = p.c});
  if (int64_t(words.size()) != outputs * format(p.word).storage_bits / 8)
    throw Error("D must be " + shape(p.m(), p.n()) + " " + format(p.word).name);
}

float total_alpha(const Problem &p) {
  if (!p.a.scaled || !p.b.scaled) return p.alpha;
  return global_alpha(*p.a.scaled, *p.b.scaled, p.alpha, p.alpha_rule);
}

} // namespace nvfp4::diagnosis
