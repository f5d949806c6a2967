// SPDX-License-Identifier: Apache-2.0
// The whole table, and the mistakes that read an operand's codes the wrong way.
#include "nvfp4/golden/diagnosis/hypothesis.hpp"

#include "nvfp4/emulator/formats/codec.hpp"

#include <algorithm>

namespace nvfp4::diagnosis {
namespace {

bool swap_nibbles(RawOperand &o) {
  if (o.bits() != 4) return false;
  for (uint8_t &b : o.codes) b = uint8_t(b << 4 | b >> 4);
  return true;
}

bool transpose_codes(RawOperand &o) {
  if (o.bits() == 4 && o.k % 2 != 0) return false;
  const RawOperand from = o;
  const CodeView flat{from.codes.data(), from.bits()};
#pragma omp parallel for schedule(static) if (o.rows * o.k > (int64_t{1} << 20))
  for (int64_t r = 0; r < o.rows; ++r)
    for (int64_t i = 0; i < o.k; ++i) o.set(r, i, flat[i * o.rows + r]);
  return true;
}

/// Packed with rows 2r and 2r + 1 in a byte, read as elements 2i and 2i + 1.
bool read_packed_along_m(RawOperand &o) {
  if (o.bits() != 4 || o.rows % 2 != 0 || o.k % 2 != 0) return false;
  const RawOperand from = o;
#pragma omp parallel for schedule(static) if (o.rows * o.k > (int64_t{1} << 20))
  for (int64_t r = 0; r < o.rows; ++r)
    for (int64_t i = 0; i < o.k; ++i) {
      const int64_t byte = (r * o.k + i) / 2;
      o.set(r, i, from.code(byte / o.k * 2 + i % 2, byte % o.k));
    }
  return true;
}

/// Groups of `size` hold element j in the low and j + size / 2 in the high half of byte j, as GGUF packs;
/// read in order, or the reverse.
template <int size, bool packed> bool gguf_order(RawOperand &o) {
  if (o.bits() != 4 || o.k % size != 0) return false;
  const RawOperand from = o;
#pragma omp parallel for schedule(static) if (o.rows * o.k > (int64_t{1} << 20))
  for (int64_t r = 0; r < o.rows; ++r)
    for (int64_t i = 0; i < o.k; ++i) {
      const int64_t first = i / size * size, x = i % size;
      o.set(
          r, i,
          from.code(r, first + (packed ? x / 2 + x % 2 * (size / 2) : x % (size / 2) * 2 + x / (size / 2))));
    }
  return true;
}

/// The bytes of each word of `size` in reverse, as on a machine of the other endianness.
template <int size> bool reverse_bytes(RawOperand &o) {
  if (o.bits() > 4 * size || o.row_bytes() % size != 0) return false;
  for (size_t at = 0; at < o.codes.size(); at += size)
    std::reverse(o.codes.begin() + long(at), o.codes.begin() + long(at) + size);
  return true;
}

/// The two halves of K in each other's place.
template <bool codes, bool scales> bool exchange_halves(RawOperand &o) {
  const int64_t codes_row = o.row_bytes(), scales_row = o.scale_cols();
  const bool halves = o.k * o.bits() % 16 == 0 && (o.block == 0 ? !scales : o.k % (2 * o.block) == 0);
  if (!halves) return false;
  const auto rotate = [&](std::vector<uint8_t> &v, int64_t row) {
    for (int64_t r = 0; r < o.rows; ++r)
      std::rotate(v.begin() + r * row, v.begin() + r * row + row / 2, v.begin() + (r + 1) * row);
  };
  if (codes) rotate(o.codes, codes_row);
  if (scales) rotate(o.scales, scales_row);
  return true;
}

template <class Edit> bool edit_codes(RawOperand &o, Edit edit) {
#pragma omp parallel for schedule(static) if (o.rows * o.k > (int64_t{1} << 20))
  for (int64_t r = 0; r < o.rows; ++r)
    for (int64_t i = 0; i < o.k; ++i) {
      const uint64_t code = o.code(r, i), other = edit(nvfp4::format(o.format), code);
      if (other != code) o.set(r, i, other);
    }
  return true;
}

bool flush_subnormals(RawOperand &o) {
  return edit_codes(o, [](const Format &f, uint64_t code) {
    const uint64_t exponent = (code & f.magnitude_mask()) >> f.mantissa_bits;
    return exponent == 0 ? code & ~f.magnitude_mask() : code;
  });
}

bool drop_signs(RawOperand &o) {
  return edit_codes(o, [](const Format &f, uint64_t code) { return code & f.magnitude_mask(); });
}

struct Row {
  const char *name;
  const char *title; ///< % stands for "A", "B" or "A and B"
  const char *advice;
  bool (*edit)(RawOperand &);
};

constexpr Row kRows[] = {
    {"nibbles-swapped", "the nibbles in the bytes of % are swapped",
     "Put the element of even k into the low four bits.", swap_nibbles},
    {"operand-transposed", "the codes of % are read column by column",
     "Exchange the strides, or transpose the operand: both operands are K-major.", transpose_codes},
    {"packed-along-m", "% is packed two rows to a byte and read as two elements of K to a byte",
     "Pack neighbours along K into a byte.", read_packed_along_m},
    {"gguf-order", "% is read as if bytes held elements j and j + 8 of 16, as GGUF packs NVFP4",
     "Bytes of this tensor hold elements 2j and 2j + 1.", gguf_order<16, false>},
    {"gguf-packed",
     "% is packed with elements j and j + 8 of 16 in a byte, as GGUF packs NVFP4, and read in order",
     "Put elements 2j and 2j + 1 into a byte.", gguf_order<16, true>},
    {"gguf-order-32", "% is read as if bytes held elements j and j + 16 of 32, as GGUF packs MXFP4",
     "Bytes of this tensor hold elements 2j and 2j + 1.", gguf_order<32, false>},
    {"gguf-packed-32",
     "% is packed with elements j and j + 16 of 32 in a byte, as GGUF packs MXFP4, and read in order",
     "Put elements 2j and 2j + 1 into a byte.", gguf_order<32, true>},
    {"codes-subnormal-flushed", "subnormal elements of % (0.5 in E2M1) are taken as 0",
     "Keep subnormal codes: the hardware does.", flush_subnormals},
    {"signs-dropped", "the signs of % are dropped", "Keep the top bit of each code.", drop_signs},
    {"bytes-reversed-16", "the two bytes of each 16-bit word of the codes of % are exchanged",
     "The smallest k is in the low byte.", reverse_bytes<2>},
    {"bytes-reversed-32", "the four bytes of each 32-bit word of the codes of % are in reverse",
     "The smallest k is in the low byte.", reverse_bytes<4>},
    {"bytes-reversed-64", "the eight bytes of each 64-bit word of the codes of % are in reverse",
     "The smallest k is in the low byte.", reverse_bytes<8>},
    {"k-halves-exchanged", "the two halves of K of % are exchanged", "Check the order of tiles along K.",
     exchange_halves<true, true>},
    {"k-halves-exchanged-codes", "the two halves of K of the codes of % are exchanged, not those of scales",
     "Advance codes and scales together.", exchange_halves<true, false>},
    {"k-halves-exchanged-scales", "the two halves of K of the scales of % are exchanged, not those of codes",
     "Advance codes and scales together.", exchange_halves<false, true>},
};

/// Elements and scales behind K, up to the end of an instruction, are those that follow in memory.
bool read_padding(Computation &c) {
  const int64_t step = c.reduction.unit.rule.k, k = c.a->k, padded = (k + step - 1) / step * step;
  if (padded == k) return false;
  for (auto *side : {&c.a, &c.b}) {
    const RawOperand &from = **side;
    RawOperand o = from;
    o.k = padded;
    o.codes.assign(size_t(o.rows * o.row_bytes()), 0);
    o.scales.assign(size_t(o.rows * o.scale_cols()), 0);
    const auto rest = [](const std::vector<uint8_t> &v, int64_t at, int64_t n) {
      return std::clamp<int64_t>(int64_t(v.size()) - at, 0, n);
    };
    for (int64_t r = 0; r < o.rows; ++r) {
      const int64_t codes = r * from.row_bytes(), scales = r * from.scale_cols();
      std::copy_n(from.codes.begin() + codes, rest(from.codes, codes, o.row_bytes()),
                  o.codes.begin() + r * o.row_bytes());
      std::copy_n(from.scales.begin() + scales, rest(from.scales, scales, o.scale_cols()),
                  o.scales.begin() + r * o.scale_cols());
    }
    *side = std::make_shared<const RawOperand>(std::move(o));
  }
  return true;
}

} // namespace

const char *side_name(int sides) { return std::array{"", "A", "B", "A and B"}[size_t(sides)]; }
const char *side_key(int sides) { return std::array{"", ":a", ":b", ":ab"}[size_t(sides)]; }

std::string fill_in(const char *pattern, std::string_view what) {
  std::string text = pattern;
  return text.replace(text.find('%'), 1, what);
}

std::string_view to_string(Topic topic) {
  switch (topic) {
  case Topic::operand: return "operand";
  case Topic::quantizer: return "quantizer";
  case Topic::chain: return "accumulation";
  case Topic::epilogue: break;
  }
  return "epilogue";
}

void add_operand_hypotheses(const Problem &, std::vector<Hypothesis> &out) {
  for (const Row &row : kRows)
    for (int sides = 1; sides <= 3; ++sides)
      out.push_back({std::string(row.name) + side_key(sides), fill_in(row.title, side_name(sides)),
                     row.advice, Topic::operand,
                     [edit = row.edit, sides](const Problem &, int variant, Computation &c) {
                       return variant == 0 && edit_operands(c, sides, edit);
                     }});
  out.push_back(
      {"padding-read", "elements behind K are read: those that follow in memory, up to a whole instruction",
       "Mask, or fill with zeros, what lies behind K.", Topic::operand,
       [](const Problem &, int variant, Computation &c) { return variant == 0 && read_padding(c); }});
}

std::vector<Hypothesis> hypotheses(const Problem &p) {
  std::vector<Hypothesis> all;
  add_operand_hypotheses(p, all);
  add_scale_hypotheses(p, all);
  add_quantizer_hypotheses(p, all);
  add_part_hypotheses(p, all);
  add_chain_hypotheses(p, all);
  add_epilogue_hypotheses(p, all);
  return all;
}

} // namespace nvfp4::diagnosis
