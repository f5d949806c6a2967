// SPDX-License-Identifier: Apache-2.0
// The whole table, and the mistakes that read an operand's buffers the wrong way.
#include "nvfp4/golden/diagnosis/hypothesis.hpp"

#include "nvfp4/emulator/formats/codec.hpp"

#include <algorithm>

namespace nvfp4::diagnosis {
namespace {

/// The byte at `at` of a scale buffer; past its end, where a kernel would read foreign memory, 0.
uint8_t byte_at(const std::vector<uint8_t> &buffer, int64_t at) {
  return at < int64_t(buffer.size()) ? buffer[size_t(at)] : uint8_t{0};
}

/// New scales: the byte at(r, s, cols) of `buffer`.
template <class At> bool rescale(RawOperand &o, const std::vector<uint8_t> &buffer, At at) {
  if (o.block == 0) return false;
  const int64_t cols = o.blocks();
  std::vector<uint8_t> scales(o.scales.size());
  for (int64_t r = 0; r < o.rows; ++r)
    for (int64_t s = 0; s < cols; ++s) scales[size_t(r * cols + s)] = byte_at(buffer, at(r, s, cols));
  o.scales = std::move(scales);
  return true;
}

bool swap_nibbles(RawOperand &o, int variant) {
  if (variant != 0 || o.bits() != 4) return false;
  for (uint8_t &b : o.codes) b = uint8_t(b << 4 | b >> 4);
  return true;
}

bool read_linear_as_tiled(RawOperand &o, int variant) {
  if (variant != 0) return false;
  const std::vector<uint8_t> buffer = o.scales;
  return rescale(o, buffer, scale_offset_128x4);
}

bool read_tiled_as_linear(RawOperand &o, int variant) {
  if (variant != 0 || o.block == 0) return false;
  const std::vector<uint8_t> buffer = tile_scales(o.scales, o.rows, o.blocks());
  return rescale(o, buffer, [](int64_t r, int64_t s, int64_t cols) { return r * cols + s; });
}

bool transpose_codes(RawOperand &o, int variant) {
  if (variant != 0 || (o.bits() == 4 && o.k % 2 != 0)) return false;
  const RawOperand from = o;
  const CodeView flat{from.codes.data(), from.bits()};
  for (int64_t r = 0; r < o.rows; ++r)
    for (int64_t i = 0; i < o.k; ++i) o.set(r, i, flat[i * o.rows + r]);
  return true;
}

bool transpose_scales(RawOperand &o, int variant) {
  if (variant != 0) return false;
  const std::vector<uint8_t> buffer = o.scales;
  const int64_t rows = o.rows;
  return rescale(o, buffer, [rows](int64_t r, int64_t s, int64_t) { return s * rows + r; });
}

/// One scale is used for `factor` blocks: with the right row stride (variant 0), or with that of the larger
/// block.
template <int factor> bool larger_block(RawOperand &o, int variant) {
  if (variant > 1 || o.blocks() < factor) return false;
  const std::vector<uint8_t> buffer = o.scales;
  return rescale(o, buffer, [variant](int64_t r, int64_t s, int64_t cols) {
    return r * (variant == 0 ? cols : (cols + factor - 1) / factor) + s / factor;
  });
}

/// FP4 with a scale per 32 read as one per 16: the operands of `sides` take scale k / 16 of their row
/// (variant 1: of rows twice as long), the other keeps its own.
bool halve_blocks(int sides, int variant, Computation &c) {
  if (variant > 1 || c.a->block != 32 || c.chain.unit.rule.family != Family::gst_fdpa) return false;
  c.chain.unit.rule.scale_block = 16;
  for (const int side : {1, 2}) {
    auto &operand = side == 1 ? c.a : c.b;
    const int64_t stride = operand->blocks() * ((sides & side) != 0 && variant == 1 ? 2 : 1),
                  per = (sides & side) != 0 ? 1 : 2;
    RawOperand o = *operand;
    o.block = 16;
    o.scales.assign(size_t(o.rows * o.blocks()), 0);
    rescale(o, operand->scales, [&](int64_t r, int64_t s, int64_t) { return r * stride + s / per; });
    operand = std::make_shared<const RawOperand>(std::move(o));
  }
  return true;
}

bool invert_scales(RawOperand &o, int variant) {
  if (variant != 0 || o.block == 0) return false;
  for (uint8_t &s : o.scales)
    s = o.scale == FormatId::ue8m0 ? uint8_t(s >= 254 ? s : 254 - s)
                                   : uint8_t(encode(o.scale, 1.0f / value_f32(o.scale, s)));
  return true;
}

bool drop_scales(RawOperand &o, int variant) {
  if (variant != 0 || o.block == 0) return false;
  std::fill(o.scales.begin(), o.scales.end(), uint8_t(format(o.scale).one()));
  return true;
}

struct Row {
  const char *name;
  const char *title; ///< % stands for "A", "B" or "A and B"
  const char *advice;
  bool (*edit)(RawOperand &, int variant);
};

constexpr Row kRows[] = {
    {"nibbles-swapped", "the nibbles in the bytes of % are swapped",
     "Put the element of even k into the low four bits.", swap_nibbles},
    {"scales-linear-as-128x4", "the scales of % lie row by row, the kernel reads 128x4 tiles",
     "Write them in the 128x4 layout (nvfp4 quantize --scale-layout 128x4).", read_linear_as_tiled},
    {"scales-128x4-as-linear", "the scales of % lie in 128x4 tiles, the kernel reads them row by row",
     "Hand over linear scales, or read by the 128x4 offset.", read_tiled_as_linear},
    {"operand-transposed", "the codes of % are read column by column",
     "Exchange the strides, or transpose the operand: both operands are K-major.", transpose_codes},
    {"scales-transposed", "the scales of % are read column by column",
     "Index scales as row * (K / block) + k / block.", transpose_scales},
    {"block-size-doubled", "each scale of % is used for twice as many elements as it belongs to",
     "Use the block size of the tensor: 16 for NVFP4, 32 for MX.", larger_block<2>},
    {"block-size-quadrupled", "each scale of % is used for four times as many elements as it belongs to",
     "Use the block size of the tensor: 16 for NVFP4, 32 for MX.", larger_block<4>},
    {"block-scale-reciprocal", "the block scales of % are the reciprocals",
     "Store and multiply with the decode scale, amax / 6, not its reciprocal.", invert_scales},
    {"block-scale-missing", "the block scales of % are taken as 1",
     "Pass the scale factors to the instruction.", drop_scales},
};

std::string fill_in(const char *pattern, const char *what) {
  std::string text = pattern;
  return text.replace(text.find('%'), 1, what);
}

} // namespace

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
  const char *names[] = {"", "A", "B", "A and B"}, *keys[] = {"", ":a", ":b", ":ab"};
  for (const Row &row : kRows)
    for (int sides = 1; sides <= 3; ++sides) {
      out.push_back({std::string(row.name) + keys[sides], fill_in(row.title, names[sides]), row.advice,
                     Topic::operand, [edit = row.edit, sides](const Problem &, int variant, Computation &c) {
                       for (const int side : {1, 2}) {
                         if ((sides & side) == 0) continue;
                         auto &operand = side == 1 ? c.a : c.b;
                         RawOperand changed = *operand;
                         if (!edit(changed, variant)) return false;
                         operand = std::make_shared<const RawOperand>(std::move(changed));
                       }
                       return true;
                     }});
    }
  for (int sides = 1; sides <= 3; ++sides)
    out.push_back(
        {std::string("block-size-halved") + keys[sides],
         std::string("the scales of ") + names[sides] + " are taken as one per 16 elements, not 32",
         "Use the block size of the tensor: 16 for NVFP4, 32 for MX.", Topic::operand,
         [sides](const Problem &, int variant, Computation &c) { return halve_blocks(sides, variant, c); }});
  out.push_back({"scales-exchanged", "the scales of A are used for B and those of B for A",
                 "Exchange the two scale pointers.", Topic::operand,
                 [](const Problem &, int variant, Computation &c) {
                   if (variant != 0 || c.a->block == 0) return false;
                   RawOperand a = *c.a, b = *c.b;
                   const auto same = [](int64_t r, int64_t s, int64_t cols) { return r * cols + s; };
                   rescale(a, c.b->scales, same);
                   rescale(b, c.a->scales, same);
                   c.a = std::make_shared<const RawOperand>(std::move(a));
                   c.b = std::make_shared<const RawOperand>(std::move(b));
                   return true;
                 }});
}

std::vector<Hypothesis> hypotheses(const Problem &p) {
  std::vector<Hypothesis> all;
  add_operand_hypotheses(p, all);
  add_quantizer_hypotheses(p, all);
  add_chain_hypotheses(p, all);
  add_epilogue_hypotheses(p, all);
  return all;
}

} // namespace nvfp4::diagnosis
