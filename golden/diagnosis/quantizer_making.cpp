// SPDX-License-Identifier: Apache-2.0
// Makes a quantized tensor in a given way: quantize() with any rule, then what no rule says.
#include "nvfp4/golden/diagnosis/quantizer_making.hpp"

#include <algorithm>
#include <cmath>
#include <set>

namespace nvfp4::diagnosis {
namespace {

constexpr int kStrip = 16;

/// The element's code under another rounding; NaN as the rule has it.
uint8_t encode_with(ElementTies ties, const Rule &r, float x, const BlockScale &scale) {
  const float y = scaled_element(r, x, scale);
  const FormatId element = scale.flagged ? format(r.element).flagged() : r.element;
  const auto code = [&](Rounding how) { return uint8_t(encode(element, y, how, Overflow::satfinite)); };
  if (y != y) return encode_element(r, x, scale);
  switch (ties) {
  case ElementTies::away: return code(Rounding::nearest_away);
  case ElementTies::toward_zero: return code(Rounding::toward_zero);
  case ElementTies::upward: return code(Rounding::upward);
  case ElementTies::downward: return code(Rounding::downward);
  case ElementTies::through_bf16:
    return uint8_t(
        encode(element, round_to(FormatId::bf16, y), Rounding::nearest_even, Overflow::satfinite));
  case ElementTies::through_f16:
    return uint8_t(
        encode(element, round_to(FormatId::f16, y), Rounding::nearest_even, Overflow::satfinite));
  case ElementTies::down: {
    const uint8_t low = code(Rounding::toward_zero), high = code(Rounding::nearest_away);
    const double a = value_f32(element, low), b = value_f32(element, high);
    return std::fabs(double(y) - a) == std::fabs(b - double(y)) ? low : code(Rounding::nearest_even);
  }
  case ElementTies::by_rule: break;
  }
  return encode_element(r, x, scale);
}

void put(BlockScaled &q, int64_t r, int64_t i, uint8_t code) {
  uint8_t *const row = q.codes.data() + r * q.row_bytes();
  if (format(q.element).storage_bits != 4) {
    row[i] = code;
    return;
  }
  const int shift = i % 2 == 0 ? 0 : 4;
  row[i / 2] = uint8_t((row[i / 2] & (0xF0 >> shift)) | code << shift);
}

/// Every element anew, under the scales that q has, or those of another rounding.
void encode_again(BlockScaled &q, const Making &m, const SourceTensor &x) {
  const Rule &rule = m.rule;
  for (int64_t r = 0; r < q.rows; ++r) {
    const GlobalScale g = q.row_amax.empty() ? GlobalScale{q.global_amax, q.global_encode, q.global_decode}
                                             : global_from_amax(rule, q.row_amax[size_t(r)], q.source);
    for (int64_t b = 0; b < q.blocks(); ++b) {
      const int64_t first = b * q.block, last = std::min(q.k, first + q.block);
      Amax amax;
      const int64_t strip = r / q.block_rows * q.block_rows;
      for (int64_t t = strip; t < std::min(q.rows, strip + q.block_rows); ++t)
        for (int64_t i = first; i < last; ++i) amax.add(x.values[size_t(t * x.cols + i)]);
      const float bmax = amax.value(rule.amax_nan);
      if (m.scale_rounding)
        if (const float s = scale_before_rounding(rule, bmax, g, q.source); s == s) {
          const uint32_t word = uint32_t(encode(rule.scale, s, *m.scale_rounding, Overflow::satfinite));
          const BlockScale bare = scale_of_code(rule, word, bmax, g);
          const float *const values = x.values.data() + r * x.cols + first;
          q.set_scale(r, b, with_exponents(rule, bare, values, int(last - first)).code);
        }
      const BlockScale scale = scale_of_code(rule, q.scale_code(r, b), bmax, g);
      for (int64_t i = first; i < last; ++i)
        put(q, r, i, encode_with(m.ties, rule, x.values[size_t(r * x.cols + i)], element_scale(rule, scale, int(i - first))));
    }
  }
}

/// A block whose maximum is `amax`, NaN included.
void carry(const Amax &amax, float *to, int block) {
  const float nan = bit_cast<float>(0x7FC00000u);
  std::fill_n(to, block, amax.number ? bit_cast<float>(amax.word) : amax.nan ? nan : 0.0f);
  if (amax.number && amax.nan) to[1] = nan;
}

} // namespace

bool prepare_alike(const Making &a, const Making &b) {
  return a.options.axis == b.options.axis && a.options.hadamard == b.options.hadamard &&
         (!a.options.hadamard || a.options.sign_mask == b.options.sign_mask) && a.bf16_first == b.bf16_first;
}

SourceTensor prepare(const QuantizerProblem &p, const Making &m) {
  const SourceTensor &s = p.source;
  const bool transposed = m.options.axis == Axis::col;
  SourceTensor x{transposed ? s.cols : s.rows, transposed ? s.rows : s.cols, {}};
  if (!transposed) {
    x.values = s.values;
  } else {
    x.values.resize(s.values.size());
    for (int64_t r0 = 0; r0 < x.rows; r0 += kStrip)
      for (int64_t i = 0; i < x.cols; ++i)
        for (int64_t r = r0; r < std::min(x.rows, r0 + kStrip); ++r)
          x.values[size_t(r * x.cols + i)] = s.values[size_t(i * s.cols + r)];
  }
  if (m.bf16_first)
    for (float &v : x.values) v = round_to(FormatId::bf16, v);
  if (m.options.hadamard && x.cols % kHadamardSize == 0) {
    const int64_t groups = int64_t(x.values.size()) / kHadamardSize;
#pragma omp parallel for schedule(static)
    for (int64_t g = 0; g < groups; ++g) {
      float group[kHadamardSize];
      float *const at = x.values.data() + g * kHadamardSize;
      std::copy_n(at, kHadamardSize, group);
      rotate16(group, m.options.sign_mask);
      std::copy_n(group, kHadamardSize, at);
    }
  }
  return x;
}

BlockSample take_sample(const QuantizerProblem &p, const SourceTensor &prepared,
                        const std::vector<std::pair<int64_t, int64_t>> &blocks) {
  const int block = p.mine.block;
  if (blocks.empty()) return {prepared, true, {}};
  BlockSample s{{0, 2 * block, {}}, false, {}};
  std::set<std::pair<int64_t, int64_t>> strips, ragged;
  for (const auto &[r, b] : blocks)
    (r / kStrip * kStrip + kStrip <= prepared.rows ? strips : ragged).insert({r / kStrip, b});
  if (strips.empty()) strips = ragged;
  std::vector<Amax> maxima(static_cast<size_t>(prepared.rows));
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < prepared.rows; ++r)
    for (int64_t i = 0; i < prepared.cols; ++i)
      maxima[size_t(r)].add(prepared.values[size_t(r * prepared.cols + i)]);
  Amax all;
  for (const Amax &m : maxima) all.merge(m);
  std::vector<float> row(size_t(2 * block));
  for (const auto &[strip, b] : strips)
    for (int64_t r = strip * kStrip; r < (strip + 1) * kStrip; ++r) {
      std::fill(row.begin(), row.end(), 0.0f);
      const int64_t width = std::min<int64_t>(block, prepared.cols - b * block);
      if (r < prepared.rows) {
        std::copy_n(prepared.values.data() + r * prepared.cols + b * block, width, row.data());
        carry(maxima[size_t(r)], row.data() + block, block);
      }
      s.x.values.insert(s.x.values.end(), row.begin(), row.end());
      s.blocks.emplace_back(r < prepared.rows ? r : -1, b);
    }
  for (int r = 0; r < kStrip; ++r) {
    carry(all, row.data(), block);
    carry(all, row.data() + block, block);
    s.x.values.insert(s.x.values.end(), row.begin(), row.end());
  }
  s.x.rows = int64_t(s.blocks.size()) + kStrip;
  return s;
}

std::optional<BlockScaled> make(const QuantizerProblem &p, const Making &m, const SourceTensor &prepared) {
  QuantizeOptions o = m.options;
  const bool random = o.rounding != ElementRounding::nearest;
  if (o.hadamard && prepared.cols % kHadamardSize != 0) return std::nullopt;
  o.hadamard = false;
  constexpr size_t worth_threads = 1 << 17;
  o.threads = prepared.values.size() < worth_threads ? 1 : p.threads;
  o.isa = p.isa;
  o.layout = ScaleLayout::linear;
  Convention c{p.convention->name, "", m.rule, m.can, p.convention->evidence, ""};
  try {
    BlockScaled q;
    if (random && o.axis == Axis::col) { // the random words belong to the elements of the source
      SourceTensor back{prepared.cols, prepared.rows, std::vector<float>(prepared.values.size())};
      for (int64_t r = 0; r < back.rows; ++r)
        for (int64_t i = 0; i < back.cols; ++i)
          back.values[size_t(r * back.cols + i)] = prepared.values[size_t(i * prepared.cols + r)];
      q = quantize({back.values.data(), back.rows, back.cols}, c, o);
    } else {
      o.axis = Axis::row;
      q = quantize({prepared.values.data(), prepared.rows, prepared.cols}, c, o);
    }
    const bool again =
        m.ties != ElementTies::by_rule || m.scale_rounding || (m.scale_map != nullptr && !m.scale_map_last);
    if (again && (random || m.rule.scaling == Scaling::search)) return std::nullopt;
    if (m.scale_map != nullptr)
      for (uint8_t &s : q.scales) s = m.scale_map(format(q.scale), s);
    if (again) encode_again(q, m, prepared);
    if (m.code_map != nullptr && format(q.element).storage_bits > 8) return std::nullopt;
    if (m.code_map != nullptr)
      for (int64_t r = 0; r < q.rows; ++r)
        for (int64_t i = 0; i < q.k; ++i) put(q, r, i, m.code_map(format(q.element), q.code(r, i)));
    return q;
  } catch (const Error &) { // options that exclude each other
    return std::nullopt;
  }
}

Leftover compare_blocks(const BlockScaled &mine, const BlockSample &sample, const BlockScaled &made) {
  Leftover left;
  const auto block = [&](int64_t r, int64_t b, int64_t from_r, int64_t from_b, Leftover &l) {
    int64_t codes = 0;
    const int64_t width = std::min<int64_t>(mine.block, mine.k - b * mine.block);
    for (int64_t i = 0; i < width; ++i)
      codes += mine.code_word(r, b * mine.block + i) != made.code_word(from_r, from_b * mine.block + i);
    const bool scale = mine.scale_code(r, b) != made.scale_code(from_r, from_b);
    l.codes += codes;
    l.scales += scale;
    l.blocks += codes != 0 || scale;
    ++l.of_blocks;
  };
  if (sample.whole) {
    int64_t codes = 0, scales = 0, blocks = 0;
#pragma omp parallel for schedule(static) reduction(+ : codes, scales, blocks)
    for (int64_t r = 0; r < mine.rows; ++r) {
      Leftover l;
      for (int64_t b = 0; b < mine.blocks(); ++b) block(r, b, r, b, l);
      codes += l.codes;
      scales += l.scales;
      blocks += l.blocks;
    }
    return {codes, scales, blocks, mine.rows * mine.blocks()};
  }
  for (size_t j = 0; j < sample.blocks.size(); ++j)
    if (const auto &[r, b] = sample.blocks[j]; r >= 0) block(r, b, int64_t(j), 0, left);
  return left;
}

} // namespace nvfp4::diagnosis
