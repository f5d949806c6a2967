// SPDX-License-Identifier: Apache-2.0
// Scans rows for the range of their exponents.
#include "emulator/gemm/row_range.hpp"

#include "emulator/gemm/gemm.hpp"
#include "emulator/tensorcore/gst_fdpa.hpp"

#include <array>

namespace nvfp4 {
namespace {

/// Decoded class and exponent of every code of an 8-bit format.
struct CodeTable {
  std::array<int16_t, 256> exponent{};
  std::array<uint8_t, 256> cls{};

  explicit CodeTable(FormatId id) {
    for (int c = 0; c < 256; ++c) {
      const Decoded d = decode(format(id), uint64_t(c));
      exponent[size_t(c)] = int16_t(d.exponent);
      cls[size_t(c)] = uint8_t(d.cls);
    }
  }
};

const CodeTable &table(FormatId id) {
  static const std::array<CodeTable, 8> tables = {
      CodeTable(FormatId::e2m1), CodeTable(FormatId::e3m2), CodeTable(FormatId::e2m3), CodeTable(FormatId::e4m3),
      CodeTable(FormatId::e5m2), CodeTable(FormatId::ue4m3), CodeTable(FormatId::ue8m0), CodeTable(FormatId::e2m1)};
  return tables[size_t(id)];
}

void widen(RowRange &r, int e) {
  r.min = int16_t(e < r.min ? e : r.min);
  r.max = int16_t(e > r.max ? e : r.max);
}

RowRange fp4_range(const UnitRule &rule, const PackedOperand &p, int64_t row) {
  const CodeTable &scales = table(rule.scale);
  const uint8_t *codes = p.row(row).data, *scale = p.row_scales(row);
  RowRange r;
  for (int64_t g = 0; g < p.padded_k / kGroup; ++g) {
    const uint8_t s = scale[g * kGroup / rule.scale_block];
    uint64_t group;
    memcpy(&group, codes + g * 8, 8);
    const Class cls = Class(scales.cls[s]);
    if (cls == Class::nan) r.scale_nan = true;
    else if (cls == Class::finite && (group & 0x7777777777777777) != 0) widen(r, scales.exponent[s]);
  }
  return r;
}

RowRange element_range(const UnitRule &rule, const PackedOperand &p, int64_t row) {
  const Format f = format(p.format);
  const CodeView codes = p.row(row);
  const bool small = f.storage_bits <= 8;
  const uint8_t *scale = p.row_scales(row);
  RowRange r;
  for (int64_t k = 0; k < p.padded_k; ++k) {
    const uint64_t word = codes[k];
    Class cls;
    int e;
    if (small) {
      cls = Class(table(p.format).cls[word]);
      e = table(p.format).exponent[word];
    } else {
      const Decoded d = decode(f, word);
      cls = d.cls;
      e = d.exponent;
    }
    if (scale != nullptr) {
      const uint8_t s = scale[k / rule.scale_block];
      if (Class(table(rule.scale).cls[s]) == Class::nan) r.scale_nan = true;
      e += table(rule.scale).exponent[s];
    }
    if (cls == Class::nan || cls == Class::infinity) r.special = true;
    else if (cls == Class::finite) widen(r, e);
  }
  return r;
}

} // namespace

RowRange row_range(const UnitRule &rule, const PackedOperand &operand, int64_t row) {
  return rule.family == Family::gst_fdpa ? fp4_range(rule, operand, row) : element_range(rule, operand, row);
}

} // namespace nvfp4
