// SPDX-License-Identifier: Apache-2.0
// Scans rows for the range of their exponents.
#include "nvfp4/emulator/gemm/row_range.hpp"

#include "nvfp4/emulator/gemm/operand.hpp"
#include "nvfp4/emulator/cpu/multiversion.hpp"
#include "nvfp4/emulator/tensorcore/gst_fdpa.hpp"

#include <array>
#include <vector>

namespace nvfp4 {
namespace {

/// Decoded class and exponent of every code of an 8-bit format.
struct CodeTable {
  std::array<int16_t, 256> exponent{};
  std::array<uint8_t, 256> cls{};

  CodeTable() = default;
  explicit CodeTable(FormatId id) {
    for (int c = 0; c < 256; ++c) {
      const Decoded d = decode(format(id), uint64_t(c));
      exponent[size_t(c)] = int16_t(d.exponent);
      cls[size_t(c)] = uint8_t(d.cls);
    }
  }
};

/// The table of a format of at most 8 bits.
const CodeTable &table(FormatId id) {
  static const std::array<CodeTable, kFormatCount> tables = [] {
    std::array<CodeTable, kFormatCount> all;
    for (int i = 0; i < kFormatCount; ++i)
      if (format(FormatId(i)).storage_bits <= 8) all[size_t(i)] = CodeTable(FormatId(i));
    return all;
  }();
  return tables[size_t(id)];
}

void widen(RowRange &r, int e) {
  r.min = int16_t(e < r.min ? e : r.min);
  r.max = int16_t(e > r.max ? e : r.max);
}

/// What a scale code contributes to the range of a row.
struct ScaleEntry {
  int16_t low = 0x3FFF, high = -0x3FFF; ///< the exponent; nothing for zero and NaN
  bool nan = false;
};

const std::array<ScaleEntry, 256> &scale_entries(FormatId id) {
  static const std::vector<std::array<ScaleEntry, 256>> entries = [] {
    std::vector<std::array<ScaleEntry, 256>> all(kFormatCount);
    for (int i = 0; i < kFormatCount; ++i) {
      if (format(FormatId(i)).storage_bits != 8) continue;
      for (size_t c = 0; c < 256; ++c) {
        const Class cls = Class(table(FormatId(i)).cls[c]);
        ScaleEntry &e = all[size_t(i)][c];
        if (cls == Class::finite) e.low = e.high = table(FormatId(i)).exponent[c];
        e.nan = cls == Class::nan;
      }
    }
    return all;
  }();
  return entries[size_t(id)];
}

RowRange fp4_range(const UnitRule &rule, const GemmOperand &p, int64_t row) {
  const ScaleEntry *const entries = scale_entries(rule.scale).data();
  const uint8_t *codes = p.row(row).data, *scale = p.row_scales(row);
  const int per_scale = rule.scale_block / kGroup;
  RowRange r;
  int16_t idle = -0x3FFF; // largest exponent over groups of zeros
  for (int64_t s = 0; s < p.padded_k / rule.scale_block; ++s) {
    const ScaleEntry e = entries[scale[s]];
    r.scale_nan = r.scale_nan || e.nan;
    for (int g = 0; g < per_scale; ++g, codes += 8) {
      uint64_t group;
      memcpy(&group, codes, 8);
      const bool some = (group & 0x7777777777777777) != 0;
      r.min = some && e.low < r.min ? e.low : r.min;
      r.max = some && e.high > r.max ? e.high : r.max;
      idle = !some && e.high > idle ? e.high : idle;
    }
  }
  r.idle_scales = idle > r.max;
  return r;
}

/// Elements of at most 8 bits, a block with its scale at a time: first which codes occur, then what they are.
RowRange narrow_range(const UnitRule &rule, const GemmOperand &p, int64_t row) {
  const CodeTable &t = table(p.format);
  const CodeView codes = p.row(row);
  const uint8_t *scale = p.row_scales(row);
  const int64_t block = scale == nullptr ? p.padded_k : rule.scale_block;
  RowRange r;
  for (int64_t k = 0; k < p.padded_k; k += block) {
    int low = 0x3FFF, high = -0x3FFF;
    for (int64_t i = k; i < k + block; ++i) {
      const size_t word = size_t(codes[i]);
      const Class cls = Class(t.cls[word]);
      r.special = r.special || cls == Class::nan || cls == Class::infinity;
      low = cls == Class::finite && t.exponent[word] < low ? t.exponent[word] : low;
      high = cls == Class::finite && t.exponent[word] > high ? t.exponent[word] : high;
    }
    int shift = 0;
    if (scale != nullptr) {
      const uint8_t s = scale[k / block];
      r.scale_nan = r.scale_nan || Class(table(rule.scale).cls[s]) == Class::nan;
      shift = table(rule.scale).exponent[s];
    }
    if (low > high) continue;
    widen(r, low + shift);
    widen(r, high + shift);
  }
  return r;
}

/// The largest magnitude, and the smallest of magnitude - 1, where zero wraps to the largest.
template <class Word>
[[gnu::always_inline]] inline void extremes(const uint8_t *codes, int64_t n, Word mask, Word &low,
                                            Word &high) {
  for (int64_t k = 0; k < n; ++k) {
    Word word;
    memcpy(&word, codes + k * int64_t(sizeof word), sizeof word);
    word = Word(word & mask);
    high = word > high ? word : high;
    const Word less = Word(word - 1);
    low = less < low ? less : low;
  }
}
NVFP4_MULTIVERSION void find_extremes(const uint8_t *codes, int64_t n, uint16_t mask, uint16_t *found) {
  uint16_t low = mask, high = 0;
  extremes(codes, n, mask, low, high);
  found[0] = low;
  found[1] = high;
}
NVFP4_MULTIVERSION void find_extremes(const uint8_t *codes, int64_t n, uint32_t mask, uint32_t *found) {
  uint32_t low = mask, high = 0;
  extremes(codes, n, mask, low, high);
  found[0] = low;
  found[1] = high;
}

/// Elements of 16 bits or TF32: the largest and smallest non-zero magnitudes have the largest and smallest
/// exponents.
template <class Word> RowRange wide_range(const GemmOperand &p, int64_t row) {
  const Format f = format(p.format);
  const uint8_t *codes = p.row(row).data;
  const Word mask = Word(f.magnitude_mask() << f.padding_bits);
  Word found[2];
  find_extremes(codes, p.padded_k, mask, found);
  const Word low = found[0], high = found[1];
  RowRange r;
  if (high == 0) return r;
  for (const Word word : {Word(low + 1), high}) {
    const Decoded d = decode(f, word);
    if (d.cls == Class::finite)
      widen(r, d.exponent);
    else
      r.special = true; // the row goes to the definition, whatever its other elements are
  }
  return r;
}

RowRange element_range(const UnitRule &rule, const GemmOperand &p, int64_t row) {
  switch (format(p.format).storage_bits) {
  case 16: return wide_range<uint16_t>(p, row);
  case 32: return wide_range<uint32_t>(p, row);
  case 64: return {}; // no engine takes FP64
  default: return narrow_range(rule, p, row);
  }
}

} // namespace

RowRange row_range(const UnitRule &rule, const GemmOperand &operand, int64_t row) {
  if (rule.family == Family::exact_sum) return {}; // no engine
  return rule.family == Family::gst_fdpa ? fp4_range(rule, operand, row) : element_range(rule, operand, row);
}

} // namespace nvfp4
