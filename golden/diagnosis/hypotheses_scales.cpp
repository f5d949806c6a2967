// SPDX-License-Identifier: Apache-2.0
// Mistakes with block scales: layouts (every pair of a list), offsets, block sizes, values and formats.
#include "nvfp4/golden/diagnosis/hypothesis.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/quantize/scale_layout.hpp"

#include <algorithm>

namespace nvfp4::diagnosis {
namespace {

/// The byte at `at` of a scale buffer; outside it, where a kernel would read foreign memory, 0.
uint8_t byte_at(const std::vector<uint8_t> &buffer, int64_t at) {
  return at >= 0 && at < int64_t(buffer.size()) ? buffer[size_t(at)] : uint8_t{0};
}

/// New scales: the byte at(r, s, cols) of `buffer`.
template <class At> bool rescale(RawOperand &o, const std::vector<uint8_t> &buffer, At at) {
  if (o.block == 0 || scale_bytes(o.scale) != 1) return false;
  const int64_t cols = o.blocks();
  std::vector<uint8_t> scales(o.scales.size());
#pragma omp parallel for schedule(static) if (o.rows * o.k > (int64_t{1} << 20))
  for (int64_t r = 0; r < o.rows; ++r)
    for (int64_t s = 0; s < cols; ++s) scales[size_t(r * cols + s)] = byte_at(buffer, at(r, s, cols));
  o.scales = std::move(scales);
  return true;
}

/// Where scale (row, col) of (rows, cols) lies.
struct Layout {
  const char *name, *text;
  int64_t (*at)(int64_t row, int64_t col, int64_t rows, int64_t cols);
  int64_t (*size)(int64_t rows, int64_t cols);
};

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

constexpr Layout kLayouts[] = {
    {"linear", "row by row (K-major)",
     [](int64_t r, int64_t s, int64_t, int64_t cols) { return r * cols + s; },
     [](int64_t rows, int64_t cols) { return rows * cols; }},
    {"128x4", "in 128x4 tiles",
     [](int64_t r, int64_t s, int64_t, int64_t cols) { return scale_offset_128x4(r, s, cols); },
     scale_size_128x4},
    {"mn-major", "column by column (MN-major)",
     [](int64_t r, int64_t s, int64_t rows, int64_t) { return s * rows + r; },
     [](int64_t rows, int64_t cols) { return rows * cols; }},
    // TensorRT-LLM and FlashInfer, layout 8x4 for small M
    {"8x4", "in 8x4 tiles",
     [](int64_t r, int64_t s, int64_t, int64_t cols) {
       return (r / 8 * (up(cols, 4) / 4) + s / 4) * 32 + r % 8 * 4 + s % 4;
     },
     [](int64_t rows, int64_t cols) { return up(rows, 8) * up(cols, 4); }},
    {"padded", "in rows padded to four",
     [](int64_t r, int64_t s, int64_t, int64_t cols) { return r * up(cols, 4) + s; },
     [](int64_t rows, int64_t cols) { return rows * up(cols, 4); }},
};

std::vector<uint8_t> written(const RawOperand &o, const Layout &layout) {
  const int64_t cols = o.blocks();
  std::vector<uint8_t> buffer(size_t(layout.size(o.rows, cols)));
  for (int64_t r = 0; r < o.rows; ++r)
    for (int64_t s = 0; s < cols; ++s)
      buffer[size_t(layout.at(r, s, o.rows, cols))] = o.scales[size_t(r * cols + s)];
  return buffer;
}

/// Rows of a multiple of four scales are padded by nothing: there `padded` is `linear` by another name.
bool read_otherwise(RawOperand &o, const Layout &lie, const Layout &read) {
  const bool padding = o.blocks() % 4 != 0;
  const auto is_padded = [](const Layout &l) { return std::string_view(l.name) == "padded"; };
  if (o.block == 0 || (!padding && (is_padded(lie) || is_padded(read)))) return false;
  return rescale(o, written(o, lie), [&, rows = o.rows](int64_t r, int64_t s, int64_t cols) {
    return read.at(r, s, rows, cols);
  });
}

/// Tiles made of a buffer that was tiled already, read once.
bool tiled_twice(RawOperand &o) {
  if (o.block == 0 || o.blocks() % 4 == 0) return false; // without padding: as tiles read row by row
  return rescale(o, written(o, kLayouts[1]),
                 [](int64_t r, int64_t s, int64_t cols) { return r * up(cols, 4) + s; });
}

template <int blocks, int rows> bool shifted(RawOperand &o) {
  const std::vector<uint8_t> buffer = o.scales;
  return rescale(o, buffer,
                 [](int64_t r, int64_t s, int64_t cols) { return (r + rows) * cols + s + blocks; });
}

/// The order of bytes within words of `size`.
template <int size> bool reversed_words(RawOperand &o) {
  if (o.block == 0 || o.blocks() % size != 0) return false;
  const std::vector<uint8_t> buffer = o.scales;
  return rescale(o, buffer, [](int64_t r, int64_t s, int64_t cols) {
    return r * cols + s / size * size + size - 1 - s % size;
  });
}

/// Row 0's scales for every row, or each row's first for all of its blocks.
template <bool row, bool block> bool first_alone(RawOperand &o) {
  const std::vector<uint8_t> buffer = o.scales;
  return rescale(o, buffer,
                 [](int64_t r, int64_t s, int64_t cols) { return (row ? 0 : r * cols) + (block ? 0 : s); });
}

template <class Edit> bool edit_scales(RawOperand &o, Edit edit) {
  if (o.block == 0 || scale_bytes(o.scale) != 1) return false;
  for (uint8_t &s : o.scales) s = uint8_t(edit(o.scale, s));
  return true;
}

bool flush_subnormal_scales(RawOperand &o) {
  return nvfp4::format(o.scale).mantissa_bits != 0 && edit_scales(o, [](FormatId id, uint8_t s) {
           return s >> nvfp4::format(id).mantissa_bits == 0 ? uint8_t{0} : s;
         });
}

bool invert_scales(RawOperand &o) {
  return edit_scales(o, [](FormatId id, uint8_t s) -> uint64_t {
    if (id == FormatId::ue8m0) return s >= 254 ? s : uint64_t(254 - s);
    return encode(id, 1.0f / value_f32(id, s));
  });
}

bool drop_scales(RawOperand &o) {
  return edit_scales(o, [](FormatId id, uint8_t) { return format(id).one(); });
}

struct Row {
  const char *name;
  const char *title; ///< % stands for "A", "B" or "A and B"
  const char *advice;
  bool (*edit)(RawOperand &);
};

constexpr Row kRows[] = {
    {"scales-tiled-twice", "the scales of % were brought into 128x4 tiles twice", "Tile them once.",
     tiled_twice},
    {"scales-shifted-block-next", "each block of % takes the scale of the next one",
     "Check the offset of the scale pointer.", shifted<1, 0>},
    {"scales-shifted-block-before", "each block of % takes the scale of the one before",
     "Check the offset of the scale pointer.", shifted<-1, 0>},
    {"scales-shifted-row-next", "each row of % takes the scales of the next one",
     "Check the offset of the scale pointer.", shifted<0, 1>},
    {"scales-shifted-row-before", "each row of % takes the scales of the one before",
     "Check the offset of the scale pointer.", shifted<0, -1>},
    {"scales-words-reversed", "the four scales in each word of % are read in reverse",
     "The scale of the smallest k is the low byte of a word.", reversed_words<4>},
    {"scales-pairs-reversed", "the two scales in each 16-bit word of % are exchanged",
     "The scale of the smallest k is the low byte of a word.", reversed_words<2>},
    {"scales-of-row-0", "the scales of row 0 of % are used for all its rows",
     "Advance the scale pointer from row to row.", first_alone<true, false>},
    {"scales-of-block-0", "the first scale of each row of % is used for all of the row",
     "Advance the scale pointer along K.", first_alone<false, true>},
    {"scales-first-alone", "the first scale of % is used for all of it",
     "An instruction that takes a scale per block needs all of them.", first_alone<true, true>},
    {"scales-subnormal-flushed", "subnormal block scales of % are taken as 0",
     "Keep subnormal scales: the hardware does.", flush_subnormal_scales},
    {"block-scale-reciprocal", "the block scales of % are the reciprocals",
     "Store and multiply with the decode scale, amax / 6, not its reciprocal.", invert_scales},
    {"block-scale-missing", "the block scales of % are taken as 1",
     "Pass the scale factors to the instruction.", drop_scales},
};

/// One scale is used for `factor` blocks: with the right row stride (variant 0), or with that of the larger
/// block.
bool larger_block(RawOperand &o, int factor, int variant) {
  if (variant > 1 || o.blocks() < factor) return false;
  const std::vector<uint8_t> buffer = o.scales;
  return rescale(o, buffer, [=](int64_t r, int64_t s, int64_t cols) {
    return r * (variant == 0 ? cols : (cols + factor - 1) / factor) + s / factor;
  });
}

/// The scales of the first 1, 2, 4, ... instructions of K are used for all that follow.
bool first_scales_again(RawOperand &o, int64_t step, int variant) {
  if (o.block == 0 || variant > 20) return false;
  const int64_t period = (step << variant) / o.block;
  if (period == 0 || period >= o.blocks()) return false;
  const std::vector<uint8_t> buffer = o.scales;
  return rescale(o, buffer, [=](int64_t r, int64_t s, int64_t cols) { return r * cols + s % period; });
}

/// FP4 with a scale per 32 read as one per 16: the operands of `sides` take scale k / 16 of their row
/// (variant 1: of rows twice as long), the other keeps its own.
bool halve_blocks(int sides, int variant, Computation &c) {
  if (variant > 1 || c.a->block != 32 || c.reduction.unit.rule.family != Family::gst_fdpa) return false;
  c.reduction.unit.rule.scale_block = 16;
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

/// The same bytes as another format of scale.
bool other_format(FormatId id, int variant, Computation &c) {
  if (variant != 0 || c.a->block == 0 || c.a->scale == id || scale_bytes(c.a->scale) != 1 || scale_bytes(id) != 1)
    return false;
  c.reduction.unit.rule.scale = id;
  return edit_operands(c, 3, [id](RawOperand &o) {
    o.scale = id;
    return true;
  });
}

void exchange(Computation &c) {
  RawOperand a = *c.a, b = *c.b;
  const auto same = [](int64_t r, int64_t s, int64_t cols) { return r * cols + s; };
  rescale(a, c.b->scales, same);
  rescale(b, c.a->scales, same);
  c.a = std::make_shared<const RawOperand>(std::move(a));
  c.b = std::make_shared<const RawOperand>(std::move(b));
}

} // namespace

void add_scale_hypotheses(const Problem &p, std::vector<Hypothesis> &out) {
  if (p.a.raw.block == 0) return;
  const auto add = [&](const std::string &name, const char *title, const char *advice, auto edit) {
    for (int sides = 1; sides <= 3; ++sides)
      out.push_back({name + side_key(sides), fill_in(title, side_name(sides)), advice, Topic::operand,
                     [=](const Problem &, int variant, Computation &c) {
                       return edit_operands(c, sides, [&](RawOperand &o) { return edit(o, variant, c); });
                     }});
  };
  for (const Layout &lie : kLayouts)
    for (const Layout &read : kLayouts) {
      if (&lie == &read) continue;
      const std::string title =
          std::string("the scales of % lie ") + lie.text + ", the kernel reads them " + read.text;
      add(std::string("scales-") + lie.name + "-as-" + read.name, title.c_str(),
          "Write them in the layout that the kernel reads (nvfp4 quantize --scale-layout), or read them by "
          "their own.",
          [&lie, &read](RawOperand &o, int variant, const Computation &) {
            return variant == 0 && read_otherwise(o, lie, read);
          });
    }
  for (const Row &row : kRows)
    add(row.name, row.title, row.advice, [edit = row.edit](RawOperand &o, int variant, const Computation &) {
      return variant == 0 && edit(o);
    });
  const char *size = "Use the block size of the tensor: 16 for NVFP4, 32 for MX.";
  add("block-size-doubled", "each scale of % is used for twice as many elements as it belongs to", size,
      [](RawOperand &o, int variant, const Computation &) { return larger_block(o, 2, variant); });
  add("block-size-quadrupled", "each scale of % is used for four times as many elements as it belongs to",
      size, [](RawOperand &o, int variant, const Computation &) { return larger_block(o, 4, variant); });
  add("scales-first-slice", "the scales of the first part of K are used for all parts of %",
      "Advance the scale pointer with the operand's.", [](RawOperand &o, int variant, const Computation &c) {
        return first_scales_again(o, c.reduction.unit.rule.k, variant);
      });
  for (int sides = 1; sides <= 3; ++sides)
    out.push_back({std::string("block-size-halved") + side_key(sides),
                   fill_in("the scales of % are taken as one per 16 elements, not 32", side_name(sides)),
                   size, Topic::operand, [sides](const Problem &, int variant, Computation &c) {
                     return halve_blocks(sides, variant, c);
                   }});
  out.push_back({"scales-exchanged", "the scales of A are used for B and those of B for A",
                 "Exchange the two scale pointers.", Topic::operand,
                 [](const Problem &, int variant, Computation &c) {
                   if (variant != 0 || c.a->block == 0) return false;
                   exchange(c);
                   return true;
                 }});
  for (const FormatId id : formats_where(&Format::of_scales)) {
    if (scale_bytes(id) != 1) continue;
    out.push_back(
        {std::string("scales-as-") + format(id).name,
         fill_in("the bytes of the block scales are read as %", format(id).name),
         "Name the scale format of the tensor in the instruction.", Topic::operand,
         [id](const Problem &, int variant, Computation &c) { return other_format(id, variant, c); }});
  }
  out.push_back({"block-scales-folded",
                 "the product of A's and B's block scale is rounded to the scale's format",
                 "Apply both scales exactly, as the instruction does.", Topic::chain,
                 [](const Problem &, int variant, Computation &c) {
                   if (c.a->block != 0 && format(c.a->scale).extra != ScaleExtra::none) return false;
                   c.reduction.fold_scales = true;
                   return variant == 0 && c.reduction.arithmetic == Arithmetic::unit;
                 }});
}

} // namespace nvfp4::diagnosis
