// SPDX-License-Identifier: Apache-2.0
// Making operands: sizes are checked, scales laid out row by row, dense values rounded, K padded.
#include "nvfp4/emulator/gemm/operand.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/gemm/engine.hpp"
#include "nvfp4/emulator/quantize/hadamard.hpp"

#include <algorithm>
#include <cstring>
#include <omp.h>

namespace nvfp4 {
namespace {

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

std::string operand_name(Side side) { return side == Side::a ? "operand A" : "operand B"; }

FormatId element_of(const UnitRule &rule, Side side) { return side == Side::a ? rule.a : rule.b; }

/// Copies rows of codes of which `bytes` belong to logical K.
void copy_codes(GemmOperand &o, const uint8_t *codes, int64_t stride, int64_t bytes) {
  if (bytes == 0) return;
  for (int64_t r = 0; r < o.rows; ++r)
    std::memcpy(o.codes.data() + r * o.row_bytes(), codes + r * stride, size_t(bytes));
}

/// Copies scales (rows, blocks) in either layout.
void copy_scales(GemmOperand &o, std::span<const uint8_t> scales, ScaleLayout layout, int64_t blocks) {
  for (int64_t r = 0; r < o.rows; ++r) {
    uint8_t *const to = o.scales.data() + r * o.scale_cols();
    if (layout == ScaleLayout::linear)
      std::copy_n(scales.begin() + r * blocks, blocks, to);
    else
      for (int64_t b = 0; b < blocks; ++b) to[b] = scales[size_t(scale_offset_128x4(r, b, blocks))];
  }
}

void check_scales(const std::string &name, const Unit &unit, int64_t rows, int64_t blocks, size_t got,
                  ScaleLayout layout) {
  const bool linear = layout == ScaleLayout::linear;
  const int64_t want = linear ? rows * blocks : scale_size_128x4(rows, blocks);
  if (int64_t(got) == want) return;
  const bool other = int64_t(got) == (linear ? scale_size_128x4(rows, blocks) : rows * blocks);
  throw Error(
      name + ": unit " + unit.name() + " needs " + gemm::shape_text(rows, blocks) + " scales, " + std::to_string(want) +
      (linear ? " bytes row by row" : " bytes in 128x4 tiles") + ", got " + std::to_string(got) + " bytes" +
      (other ? linear ? "; that is the size of 128x4 tiles" : "; that is the size of linear scales" : ""));
}

void check_codes(const std::string &name, FormatId id, int64_t rows, int64_t k, size_t got) {
  const int bits = format(id).storage_bits;
  const int64_t want = rows < 0 || k < 0 ? -1 : rows * ((k * bits + 7) / 8);
  if (int64_t(got) != want)
    throw Error(name + ": " + gemm::shape_text(rows, k) + " " + format(id).name + " codes take " + std::to_string(want) +
                " bytes, got " + std::to_string(got));
}

} // namespace

void GemmOperand::set_shape(const UnitRule &rule, Side side, int64_t row_count, int64_t k_count) {
  format = element_of(rule, side);
  scale = rule.scale;
  family = rule.family;
  scale_block = rule.scale_block;
  rows = row_count;
  k = k_count;
  padded_k = round_up(k, rule.k);
  ranges.clear();
  axis = Axis::row;
  hadamard = 0;
  sign_mask = 0;
  global = {};
  parts.clear();
  row_factors.clear();
}

void GemmOperand::reshape(const UnitRule &rule, Side side, int64_t row_count, int64_t k_count) {
  set_shape(rule, side, row_count, k_count);
  codes.resize(size_t(rows * row_bytes()));
  scales.resize(size_t(rows * scale_cols()));
}

void GemmOperand::seal(const UnitRule &rule, int threads) {
  const int bits = nvfp4::format(format).storage_bits;
  const int64_t bytes = (k * bits + 7) / 8,
                width = scale_block == 0 ? 0 : scale_bytes(scale),
                first = scale_block == 0 ? 0 : (k + scale_block - 1) / scale_block * width;
  const uint32_t one = scale_block == 0 ? 0 : uint32_t(encode(scale, 1.0f));
  ranges.resize(size_t(rows));
  if (threads <= 0) threads = omp_get_max_threads();
#pragma omp parallel for num_threads(threads) if (rows * padded_k > (1 << 18))
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t *const line = codes.data() + r * row_bytes();
    if (bits == 4 && k % 2 != 0) line[bytes - 1] &= 0x0F;
    std::fill(line + bytes, line + row_bytes(), uint8_t{0});
    for (int64_t at = first; at < scale_cols(); ++at)
      scales[size_t(r * scale_cols() + at)] = scale_byte(one, int(at % width));
    ranges[size_t(r)] = row_range(rule, *this, r);
  }
}

void GemmOperand::adopt(const UnitRule &rule, Side side, BlockScaled &q, int threads) {
  set_shape(rule, side, q.rows, q.padded_k);
  if (padded_k == q.padded_k) {
    std::swap(codes, q.codes);
    std::swap(scales, q.scales);
  } else {
    codes.resize(size_t(rows * row_bytes()));
    scales.resize(size_t(rows * scale_cols()));
    copy_codes(*this, q.codes.data(), q.row_bytes(), q.row_bytes());
    copy_scales(*this, q.scales, ScaleLayout::linear, q.scale_cols());
  }
  seal(rule, threads);
  k = q.k; // the tensor's own padding is codes of 0 under scales that count
  take_facts(q);
}

void GemmOperand::take_facts(const BlockScaled &q) {
  axis = q.axis;
  hadamard = q.hadamard ? kHadamardSize : 0;
  sign_mask = q.hadamard ? q.sign_mask : uint16_t{0};
  global = global_factor(q);
  parts.clear();
  const bool own = q.convention.empty() || has_row_factors(find_convention(q.convention).rule);
  row_factors = own ? q.row_amax : std::vector<float>{};
}

void GemmOperand::set_parts(std::vector<RowsFactor> factors) {
  int64_t next = 0;
  for (const RowsFactor &p : factors) {
    if (p.first != next || p.last < p.first)
      throw Error("global scales of rows " + std::to_string(p.first) + " to " + std::to_string(p.last) +
                  ": expected a range that starts at " + std::to_string(next) +
                  "; ranges must follow each other");
    next = p.last;
  }
  if (next != rows)
    throw Error("global scales by rows end at " + std::to_string(next) + ", the operand has " +
                std::to_string(rows) + " rows");
  if (!row_factors.empty())
    throw Error("an operand with a global scale per row takes none per range of rows");
  parts = std::move(factors);
}

const GlobalFactor &GemmOperand::global_of(int64_t row) const {
  const auto after = std::upper_bound(parts.begin(), parts.end(), row,
                                      [](int64_t r, const RowsFactor &p) { return r < p.last; });
  return after == parts.end() ? global : after->factor;
}

GemmOperand make_operand(const Unit &unit, Side side, const BlockScaled &q) {
  const UnitRule &rule = unit.rule;
  const std::string name = operand_name(side);
  if (rule.scale_block == 0)
    throw Error(name + " is quantized, but unit " + unit.name() +
                " takes no scales; use a block-scaled unit or dequantize first");
  if (q.element != element_of(rule, side) || q.scale != rule.scale || q.block != rule.scale_block)
    throw Error(name + ": " + format(q.element).name + " with " + format(q.scale).name + " per " +
                std::to_string(q.block) + " does not fit unit " + unit.name());
  if (q.padded_k < q.k || q.padded_k % q.block != 0)
    throw Error(name + ": K = " + std::to_string(q.k) + " is padded to " + std::to_string(q.padded_k) +
                ", expected a multiple of " + std::to_string(q.block) + " that holds it");
  check_codes(name, q.element, q.rows, q.padded_k, q.codes.size());
  check_scales(name, unit, q.rows, q.scale_cols(), q.scales.size(), q.layout);
  if (!q.row_amax.empty() && int64_t(q.row_amax.size()) != q.rows)
    throw Error(name + " has " + std::to_string(q.rows) + " rows and " + std::to_string(q.row_amax.size()) +
                " global scales of rows");
  GemmOperand o;
  o.reshape(rule, side, q.rows, q.padded_k);
  copy_codes(o, q.codes.data(), q.row_bytes(), q.row_bytes());
  copy_scales(o, q.scales, q.layout, q.scale_cols());
  o.seal(rule);
  o.k = q.k; // the tensor's own padding is codes of 0 under scales that count
  o.take_facts(q);
  return o;
}

GemmOperand make_operand(const Unit &unit, Side side, const DenseView &dense) {
  const std::string name = operand_name(side);
  if (unit.rule.scale_block != 0)
    throw Error(name + " is dense, but unit " + unit.name() +
                " multiplies block-scaled operands; quantize it first");
  const Format source = format(dense.format), target = format(element_of(unit.rule, side));
  check_codes(name, dense.format, dense.rows, dense.k, dense.words.size());
  if (source.id == target.id) return make_operand(unit, side, RawCodes{dense.rows, dense.k, dense.words});
  const Overflow overflow = target.storage_bits <= 8 ? Overflow::satfinite : Overflow::ieee;
  GemmOperand o;
  o.reshape(unit.rule, side, dense.rows, dense.k);
  const int64_t stride = (dense.k * source.storage_bits + 7) / 8;
#pragma omp parallel for if (dense.rows * dense.k > (1 << 16))
  for (int64_t r = 0; r < dense.rows; ++r) {
    const CodeView in{dense.words.data() + r * stride, source.storage_bits};
    uint8_t *const row = o.codes.data() + r * o.row_bytes();
    if (target.storage_bits == 4) std::fill_n(row, o.row_bytes(), uint8_t{0});
    for (int64_t i = 0; i < dense.k; ++i) {
      const uint64_t code = convert(target, source, in[i], Rounding::nearest_even, overflow);
      if (target.storage_bits == 4)
        row[i / 2] = uint8_t(row[i / 2] | code << (i % 2 * 4));
      else
        std::memcpy(row + i * target.storage_bits / 8, &code, size_t(target.storage_bits / 8));
    }
  }
  o.seal(unit.rule);
  return o;
}

GemmOperand make_operand(const Unit &unit, Side side, const RawCodes &raw, const RawScales &scales) {
  const UnitRule &rule = unit.rule;
  const std::string name = operand_name(side);
  const FormatId id = element_of(rule, side);
  check_codes(name, id, raw.rows, raw.k, raw.codes.size());
  const int64_t bytes = (raw.k * format(id).storage_bits + 7) / 8;
  const int64_t blocks =
      rule.scale_block == 0 ? 0 : (raw.k + rule.scale_block - 1) / rule.scale_block * scale_bytes(rule.scale);
  if (rule.scale_block == 0 && !scales.scales.empty())
    throw Error(name + ": unit " + unit.name() + " takes no scales, got some");
  if (rule.scale_block != 0) check_scales(name, unit, raw.rows, blocks, scales.scales.size(), scales.layout);
  GemmOperand o;
  o.reshape(rule, side, raw.rows, raw.k);
  copy_codes(o, raw.codes.data(), bytes, bytes);
  copy_scales(o, scales.scales, scales.layout, blocks);
  o.seal(rule);
  return o;
}

void check_operands(const Unit &unit, const GemmOperand &a, const GemmOperand &b) {
  const UnitRule &rule = unit.rule;
  for (const auto &[side, o] : {std::pair(Side::a, &a), std::pair(Side::b, &b)}) {
    if (!o->sealed()) throw Error(operand_name(side) + " was filled by hand and not sealed");
    if (o->format != element_of(rule, side) || o->family != rule.family ||
        o->scale_block != rule.scale_block || (rule.scale_block != 0 && o->scale != rule.scale) ||
        o->padded_k != round_up(o->padded_k, rule.k))
      throw Error(operand_name(side) + " was not made for unit " + unit.name());
  }
  if (a.k != b.k)
    throw Error("A has K = " + std::to_string(a.k) + ", B has K = " + std::to_string(b.k) +
                "; they must be equal");
  if (a.padded_k != b.padded_k)
    throw Error("A is padded to K = " + std::to_string(a.padded_k) + ", B to " + std::to_string(b.padded_k) +
                "; they must be equal");
  if (a.hadamard != b.hadamard || a.sign_mask != b.sign_mask)
    throw Error(
        "only one of A and B is Hadamard-rotated, or their sign masks differ; rotate both alike or neither");
}

} // namespace nvfp4
