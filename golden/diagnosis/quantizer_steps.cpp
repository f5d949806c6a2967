// SPDX-License-Identifier: Apache-2.0
// The rows: other orders of codes and scales in memory, other sources, other roundings, every field of the
// rule.
#include "nvfp4/golden/diagnosis/quantizer_steps.hpp"

#include "nvfp4/emulator/quantize/rule_fields.hpp"

namespace nvfp4::diagnosis {
namespace {

struct ReadingRow {
  const char *name, *title;
  Reading read;
};

/// out(r, i) = mine(r, at(i)) within each block.
template <class At> bool reorder(const BlockScaled &mine, BlockScaled &out, At at) {
  if (format(mine.element).storage_bits > 8) return false;
  out = mine;
  const bool nibbles = format(mine.element).storage_bits == 4;
  for (int64_t r = 0; r < mine.rows; ++r)
    for (int64_t b = 0; b < mine.blocks(); ++b)
      for (int i = 0; i < mine.block; ++i) {
        const int64_t to = b * mine.block + i;
        const uint8_t code = mine.code(r, b * mine.block + at(i, mine.block));
        uint8_t &byte = out.codes[size_t(r * mine.row_bytes() + (nibbles ? to / 2 : to))];
        byte = !nibbles      ? code
               : to % 2 == 0 ? uint8_t((byte & 0xF0) | code)
                             : uint8_t((byte & 0x0F) | code << 4);
      }
  return true;
}

/// out's scale (r, b) is the byte of MINE that at(r, b) names.
template <class At> bool reorder_scales(const BlockScaled &mine, BlockScaled &out, At at) {
  if (scale_bytes(mine.scale) != 1) return false;
  out = mine;
  out.layout = ScaleLayout::linear;
  out.scales.assign(size_t(mine.rows * mine.scale_cols()), 0);
  for (int64_t r = 0; r < mine.rows; ++r)
    for (int64_t b = 0; b < mine.scale_cols(); ++b) {
      const int64_t from = at(r, b);
      if (from < 0 || from >= int64_t(mine.scales.size())) return false;
      out.scales[size_t(r * mine.scale_cols() + b)] = mine.scales[size_t(from)];
    }
  return true;
}
bool reads_linear(const BlockScaled &q) { return q.layout == ScaleLayout::linear; }

constexpr ReadingRow kReadings[] = {
    {"nibbles-swapped", "the odd element of a pair lies in the low nibble",
     [](const BlockScaled &m, BlockScaled &o) {
       return format(m.element).storage_bits == 4 && reorder(m, o, [](int i, int) { return i ^ 1; });
     }},
    {"block-halves-interleaved", "elements j and j + half a block share a byte, as in GGUF",
     [](const BlockScaled &m, BlockScaled &o) {
       return reorder(m, o, [](int i, int n) { return i < n / 2 ? 2 * i : 2 * (i - n / 2) + 1; });
     }},
    {"block-deinterleaved", "the even elements of a block come first, then the odd ones",
     [](const BlockScaled &m, BlockScaled &o) {
       return reorder(m, o, [](int i, int n) { return i % 2 == 0 ? i / 2 : n / 2 + i / 2; });
     }},
    {"block-reversed", "the elements of a block lie in reverse",
     [](const BlockScaled &m, BlockScaled &o) {
       return reorder(m, o, [](int i, int n) { return n - 1 - i; });
     }},
    {"words-reversed", "the bytes of 32-bit words lie in reverse (big endian)",
     [](const BlockScaled &m, BlockScaled &o) {
       const bool nibbles = format(m.element).storage_bits == 4;
       return nibbles ? reorder(m, o, [](int i, int) { return i ^ 6; })
                      : reorder(m, o, [](int i, int) { return i ^ 3; });
     }},
    {"eight-nibbles-reversed", "the eight codes of a 32-bit word lie in reverse",
     [](const BlockScaled &m, BlockScaled &o) {
       return format(m.element).storage_bits == 4 && reorder(m, o, [](int i, int) { return i ^ 7; });
     }},
    {"scales-tiled", "the scales lie in 128x4 tiles where the file says linear",
     [](const BlockScaled &m, BlockScaled &o) {
       return reads_linear(m) && reorder_scales(m, o, [&](int64_t r, int64_t b) {
                return scale_offset_128x4(r, b, m.scale_cols());
              });
     }},
    {"scales-linear", "the scales lie row by row where the file says 128x4 tiles",
     [](const BlockScaled &m, BlockScaled &o) {
       return !reads_linear(m) &&
              reorder_scales(m, o, [&](int64_t r, int64_t b) { return r * m.scale_cols() + b; });
     }},
    {"scales-linear-padded", "the scales lie row by row, padded to four, where the file says 128x4 tiles",
     [](const BlockScaled &m, BlockScaled &o) {
       return !reads_linear(m) && m.scale_cols() % 4 != 0 && reorder_scales(m, o, [&](int64_t r, int64_t b) {
         return r * ((m.scale_cols() + 3) / 4 * 4) + b;
       });
     }},
    {"scales-transposed", "the scales lie column by column (MN-major)",
     [](const BlockScaled &m, BlockScaled &o) {
       return m.rows > 1 && m.scale_cols() > 1 &&
              reorder_scales(m, o, [&](int64_t r, int64_t b) { return b * m.rows + r; });
     }},
    {"scales-words-reversed", "the four scales of each 32-bit word lie in reverse",
     [](const BlockScaled &m, BlockScaled &o) {
       return reads_linear(m) && m.scale_cols() % 4 == 0 &&
              reorder_scales(m, o, [&](int64_t r, int64_t b) { return r * m.scale_cols() + (b ^ 3); });
     }},
    {"scales-pairs-exchanged", "the two scales of each 16-bit word are exchanged",
     [](const BlockScaled &m, BlockScaled &o) {
       return reads_linear(m) && m.scale_cols() % 2 == 0 &&
              reorder_scales(m, o, [&](int64_t r, int64_t b) { return r * m.scale_cols() + (b ^ 1); });
     }},
    {"scales-late", "the scales stand one block late, the first one missing",
     [](const BlockScaled &m, BlockScaled &o) {
       return reads_linear(m) && m.scale_cols() > 1 && reorder_scales(m, o, [&](int64_t r, int64_t b) {
                return r * m.scale_cols() + (b + 1) % m.scale_cols();
              });
     }},
    {"scales-early", "the scales stand one block early",
     [](const BlockScaled &m, BlockScaled &o) {
       return reads_linear(m) && m.scale_cols() > 2 && reorder_scales(m, o, [&](int64_t r, int64_t b) {
                return r * m.scale_cols() + (b + m.scale_cols() - 1) % m.scale_cols();
              });
     }},
    {"codes-transposed", "the codes are those of the transposed tensor",
     [](const BlockScaled &m, BlockScaled &o) {
       if (m.rows != m.padded_k || m.rows == 1 || format(m.element).storage_bits > 8) return false;
       o = m;
       const bool nibbles = format(m.element).storage_bits == 4;
       std::fill(o.codes.begin(), o.codes.end(), uint8_t{0});
       for (int64_t r = 0; r < m.rows; ++r)
         for (int64_t i = 0; i < m.padded_k; ++i) {
           uint8_t &byte = o.codes[size_t(r * m.row_bytes() + (nibbles ? i / 2 : i))];
           byte = uint8_t(byte | m.code(i, r) << (nibbles && i % 2 != 0 ? 4 : 0));
         }
       return true;
     }},
};

struct MapRow {
  const char *name, *title;
  CodeMap map;
};

bool zero_code(const Format &f, uint8_t c) { return decode(f, c).cls == Class::zero; }
uint8_t sign_bit(const Format &f) { return uint8_t(with_sign(f, true, 0)); }

constexpr MapRow kCodeMaps[] = {
    {"zeros-unsigned", "every zero is +0, also what rounds to it",
     [](const Format &f, uint8_t c) { return zero_code(f, c) ? uint8_t(0) : c; }},
    {"elements-flushed", "subnormal elements become zero",
     [](const Format &f, uint8_t c) {
       const uint8_t sign = uint8_t(c & sign_bit(f));
       return (c ^ sign) < (1u << f.mantissa_bits) ? sign : c;
     }},
    {"elements-flushed-unsigned", "subnormal elements become +0, as does -0",
     [](const Format &f, uint8_t c) { return (c & ~sign_bit(f)) < (1 << f.mantissa_bits) ? uint8_t(0) : c; }},
    {"signs-dropped", "the elements have lost their signs",
     [](const Format &f, uint8_t c) { return uint8_t(c & ~sign_bit(f)); }},
    {"signs-inverted", "the elements have the opposite sign",
     [](const Format &f, uint8_t c) { return uint8_t(c ^ sign_bit(f)); }},
};
constexpr MapRow kScaleMaps[] = {
    {"scales-flushed", "subnormal scales become zero",
     [](const Format &f, uint8_t c) {
       return f.mantissa_bits > 0 && c < (1u << f.mantissa_bits) ? uint8_t(0) : c;
     }},
    {"scales-cut", "scales one step below what they should be",
     [](const Format &, uint8_t c) { return c == 0 ? c : uint8_t(c - 1); }},
    {"scales-raised", "scales one step above what they should be",
     [](const Format &f, uint8_t c) { return c >= f.max_finite_magnitude() ? c : uint8_t(c + 1); }},
    {"scales-one", "every scale is 1", [](const Format &f, uint8_t) { return uint8_t(encode(f.id, 1.0f)); }},
};

struct TiesRow {
  const char *name, *title;
  ElementTies ties;
};
constexpr TiesRow kTies[] = {
    {"ties-away", "elements between two codes go away from zero", ElementTies::away},
    {"ties-down", "elements between two codes go toward zero", ElementTies::down},
    {"elements-cut", "elements are rounded toward zero", ElementTies::toward_zero},
    {"elements-upward", "elements are rounded toward +Inf", ElementTies::upward},
    {"elements-downward", "elements are rounded toward -Inf", ElementTies::downward},
    {"elements-through-bf16", "scaled elements are rounded to BF16 before they become codes",
     ElementTies::through_bf16},
    {"elements-through-f16", "scaled elements are rounded to FP16 before they become codes",
     ElementTies::through_f16},
};

struct ScaleRoundingRow {
  const char *name, *title;
  Rounding rounding;
};
constexpr ScaleRoundingRow kScaleRoundings[] = {
    {"scales-toward-zero", "block scales are rounded toward zero", Rounding::toward_zero},
    {"scales-upward", "block scales are rounded up", Rounding::upward},
    {"scales-away", "block scales between two codes go up", Rounding::nearest_away},
    {"scales-nearest", "block scales are rounded to nearest", Rounding::nearest_even},
};

void add_rule_steps(const Making &base, std::vector<QuantizerStep> &out) {
  for_each_rule_field([&]<class T>(const char *field, T Rule::*member, const std::vector<T> &values) {
    for (const T value : values) {
      Rule other = base.rule;
      other.*member = value;
      if (quantizing_part(other) == quantizing_part(base.rule)) continue;
      if (other.block != base.rule.block ||
          format(other.element).storage_bits != format(base.rule.element).storage_bits ||
          scale_bytes(other.scale) != scale_bytes(base.rule.scale))
        continue; // another shape
      out.push_back({"rule:" + std::string(field) + ":" + field_text(value),
                     "step '" + std::string(field) + "' of the rule is \"" + field_text(value) +
                         "\" instead of \"" + field_text(base.rule.*member) + "\"",
                     StepPart::rule, [member, value](Making &m) { m.rule.*member = value; }, field});
    }
  });
}

void add_source_steps(const QuantizerProblem &p, const Making &base, std::vector<QuantizerStep> &out) {
  const QuantizeOptions &o = base.options;
  const auto add = [&](const char *name, const std::string &title, std::function<void(Making &)> apply) {
    out.push_back({name, title, StepPart::source, std::move(apply)});
  };
  if (o.source == FormatId::f32)
    add("source-bf16", "the source is rounded to BF16 first", [](Making &m) { m.bf16_first = true; });
  if (p.source.rows == p.source.cols)
    add("other-axis", "the blocks lie along the other axis of the source",
        [](Making &m) { m.options.axis = m.options.axis == Axis::row ? Axis::col : Axis::row; });
  if (p.mine.k % 16 == 0 && base.can.hadamard && p.mine.k > 0) {
    if (o.hadamard) {
      add("rotation-missing", "the Hadamard rotation is missing",
          [](Making &m) { m.options.hadamard = false; });
      if (o.sign_mask != 0)
        add("rotation-unsigned", "the rotation has no random signs",
            [](Making &m) { m.options.sign_mask = 0; });
    } else {
      add("rotation-added", "the source is rotated (16-point Hadamard, the fixed signs)",
          [](Making &m) { m.options.hadamard = true; });
      add("rotation-added-unsigned", "the source is rotated (16-point Hadamard, no signs)", [](Making &m) {
        m.options.hadamard = true;
        m.options.sign_mask = 0;
      });
    }
  }
  if (base.can.tiles && base.rule.block == 16) {
    const int other = o.block_rows == 1 ? 16 : 1;
    add("block-rows",
        other == 16 ? "16 rows share a scale (16x16 tiles)" : "each row has its own scales (1x16)",
        [other](Making &m) { m.options.block_rows = other; });
  }
  if (o.rounding != ElementRounding::nearest)
    add("rounding-nearest", "the elements are rounded to nearest, not stochastically",
        [](Making &m) { m.options.rounding = ElementRounding::nearest; });
  const float amax = p.mine.global_amax;
  if (!o.global_scale && has_tensor_level(base.rule) && amax == amax)
    add("amax-as-stored", "the global scale is that of the stored amax, not of the one that it should be",
        [amax](Making &m) { m.options.global_amax = amax; });
}

} // namespace

std::vector<QuantizerStep> quantizer_steps(const QuantizerProblem &p, const Making &base) {
  std::vector<QuantizerStep> out;
  for (const Convention &c : conventions()) {
    const bool fits = c.rule.block == p.mine.block &&
                      format(c.rule.element).storage_bits == format(p.mine.element).storage_bits &&
                      scale_bytes(c.rule.scale) == scale_bytes(p.mine.scale);
    if (!fits || &c == p.convention) continue;
    out.push_back({"preset:" + std::string(c.name), "it is convention '" + std::string(c.name) + "'",
                   StepPart::preset, [&c](Making &m) {
                     m.rule = c.rule;
                     m.can = c.can;
                     m.options.global_scale.reset(); // the word belongs to the other convention
                   }});
  }
  add_rule_steps(base, out);
  add_source_steps(p, base, out);
  for (const TiesRow &row : kTies)
    out.push_back({row.name, row.title, StepPart::elements, [&row](Making &m) { m.ties = row.ties; }});
  for (const ScaleRoundingRow &row : kScaleRoundings)
    out.push_back(
        {row.name, row.title, StepPart::scales, [&row](Making &m) { m.scale_rounding = row.rounding; }});
  for (const MapRow &row : kCodeMaps)
    out.push_back({row.name, row.title, StepPart::elements, [&row](Making &m) { m.code_map = row.map; }});
  for (const MapRow &row : kScaleMaps)
    for (const bool last : scale_bytes(p.mine.scale) != 1 ? std::vector<bool>{} : std::vector<bool>{false, true})
      out.push_back({std::string(row.name) + (last ? "-when-stored" : ""),
                     std::string(row.title) + (last ? ", but the elements are scaled without that" : ""),
                     StepPart::scales, [&row, last](Making &m) {
                       m.scale_map = row.map;
                       m.scale_map_last = last;
                     }});
  for (const ReadingRow &row : kReadings) {
    BlockScaled fits;
    if (row.read(p.mine, fits))
      out.push_back({row.name, row.title, StepPart::reading, [&row](Making &m) { m.reading = row.read; }});
  }
  return out;
}

} // namespace nvfp4::diagnosis
