// SPDX-License-Identifier: Apache-2.0
// Checks sizes and types, unpacks and repacks, and asks the convention for its second level.
#include "nvfp4/golden/import_quantized.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/quantize/hadamard.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::golden {
namespace {

[[noreturn]] void wrong(const io::Tensor &t, const std::string &what) {
  throw Error("import: " + io::message_prefix("", t.name) + what);
}

std::string type_of(const io::Tensor &t) {
  return std::string(io::info(t.dtype).safetensors) + " " + io::shape_text(t.shape);
}

std::span<const uint8_t> byte_span(const io::Tensor &t) {
  return {reinterpret_cast<const uint8_t *>(t.data.data()), t.data.size()};
}

bool is_byte(io::DType d) { return d == io::DType::u8 || d == io::DType::i8; }

/// The rows of codes, each of q.row_bytes() bytes; sets rows, k and padded_k.
void take_codes(BlockScaled &q, const io::Tensor &t, const ImportOptions &o) {
  const bool fp4 = format(q.element).storage_bits == 4;
  const bool packed = fp4 && !o.unpacked;
  if (o.unpacked && !fp4)
    wrong(t, "codes of " + std::string(format(q.element).name) +
                 " stand one a byte anyway; leave 'unpacked' out");
  if (!is_byte(t.dtype) && (format_of(t.dtype) != q.element || (o.unpacked && t.dtype == io::DType::f4)))
    wrong(t, "codes of convention '" + q.convention + "' are " + format(q.element).name + ": expected U8" +
                 (packed ? " (two codes a byte) or F4"
                  : fp4  ? " (one code a byte)"
                         : " or that type") +
                 ", got " + type_of(t));
  if (t.shape.size() < 2)
    wrong(t,
          "expected codes of shape (rows, " + std::string(packed ? "bytes" : "k") + "), got " + type_of(t));
  check_empty(t, "");
  const int64_t width = t.dtype == io::DType::f4 ? t.shape.back() / 2 : t.shape.back(); // bytes
  if (t.dtype == io::DType::f4 && t.shape.back() % 2 != 0)
    wrong(t, "rows of F4 must have an even number of elements, got " + type_of(t));
  q.rows = width == 0 ? 0 : int64_t(t.data.size()) / width;
  const int64_t bytes = fp4 ? 1 : format(q.element).storage_bits / 8; // of a code, the low one first
  if (width % bytes != 0)
    wrong(t, "rows of " + std::string(format(q.element).name) + " have two bytes a code, got " + type_of(t));
  const int64_t held = packed ? width * 2 : width / bytes;
  q.k = o.k == 0 ? held : o.k;
  q.padded_k = (q.k + q.block - 1) / q.block * q.block;
  if (q.k < 1 || q.k > held || held > q.padded_k)
    wrong(t, "rows hold " + std::to_string(held) + " codes, which does not fit k = " + std::to_string(q.k) +
                 " in blocks of " + std::to_string(q.block));
  if (o.hadamard && q.k % kHadamardSize != 0)
    wrong(t, "a rotated tensor needs k to be a multiple of 16, got " + std::to_string(q.k));
  q.codes.assign(size_t(q.rows * q.row_bytes()), 0);
  const uint8_t *in = byte_span(t).data();
  for (int64_t r = 0; r < q.rows; ++r, in += width) {
    uint8_t *out = q.codes.data() + r * q.row_bytes();
    for (int64_t i = 0; i < width; ++i) {
      const uint8_t byte = in[i];
      if (packed) {
        out[i] = o.nibbles == NibbleOrder::low_first ? byte : uint8_t(byte << 4 | byte >> 4);
      } else if (o.unpacked) {
        if (byte > 15)
          wrong(t, "row " + std::to_string(r) + ", column " + std::to_string(i) + ": " +
                       std::to_string(byte) + " is no FP4 code; are the codes packed, two a byte?");
        out[i / 2] = uint8_t(out[i / 2] | byte << (i % 2 * 4));
      } else {
        out[i] = byte;
      }
    }
    for (int64_t i = q.k; i < q.padded_k; ++i)
      if (q.code_word(r, i) != 0)
        wrong(t, "row " + std::to_string(r) + ", column " + std::to_string(i) +
                     " lies beyond k = " + std::to_string(q.k) + " and is not 0");
  }
}

/// The words of the scales in the order given, one byte each.
std::vector<uint8_t> scale_words(const BlockScaled &q, const io::Tensor &t) {
  if (scale_bytes(q.scale) != 1 && t.dtype != io::DType::u8)
    wrong(t, "block scales of convention '" + q.convention + "' are words of " + std::to_string(scale_bytes(q.scale)) +
                 " bytes: expected them as U8, the low byte first, got " + type_of(t));
  const bool same = t.dtype == io::DType::f8_e8m0
                        ? q.scale == FormatId::ue8m0
                        : t.dtype == io::DType::f8_e4m3 && (q.scale == FormatId::ue4m3 || q.scale == FormatId::ue4m3f);
  if (is_byte(t.dtype) || same) return {byte_span(t).begin(), byte_span(t).end()};
  const std::optional<FormatId> from = format_of(t.dtype);
  if (from != FormatId::f32 && from != FormatId::bf16 && from != FormatId::f16)
    wrong(t, "block scales of convention '" + q.convention + "' are " + format(q.scale).name +
                 ": expected U8, " +
                 (q.scale == FormatId::ue8m0   ? "F8_E8M0"
                  : q.scale == FormatId::ue4m3 ? "F8_E4M3"
                                               : "I8") +
                 ", or values as F32, BF16 or F16, got " + type_of(t));
  const CodeView in{byte_span(t).data(), format(*from).storage_bits};
  std::vector<uint8_t> words(size_t(*io::element_count(t.shape)));
  for (size_t i = 0; i < words.size(); ++i) {
    const float v = value_f32(*from, in[int64_t(i)]);
    words[i] = uint8_t(encode(q.scale, v, Rounding::nearest_even, Overflow::satfinite));
    const float back = value_f32(q.scale, words[i]);
    if (back != v && !(std::isnan(back) && std::isnan(v))) {
      char text[40];
      std::snprintf(text, sizeof text, "%.9g", double(v));
      wrong(t, "value " + std::to_string(i) + ", " + text + ", is no " + format(q.scale).name +
                   " number: these are not the scales as they are stored");
    }
  }
  return words;
}

void take_scales(BlockScaled &q, const io::Tensor &t, const ImportOptions &o) {
  const int64_t cols = q.scale_cols(), tile_rows = (q.rows + q.block_rows - 1) / q.block_rows;
  std::vector<uint8_t> words = scale_words(q, t);
  const int64_t count = int64_t(words.size());
  if (q.layout == ScaleLayout::tiled_128x4) {
    if (o.padded_scales)
      throw Error("import: scales in the 128x4 layout are padded anyway; leave 'padded' out");
    if (count != scale_size_128x4(q.rows, cols))
      wrong(t, "scales of " + std::to_string(q.rows) + " rows and " + std::to_string(cols) + " blocks take " +
                   std::to_string(scale_size_128x4(q.rows, cols)) + " bytes in the 128x4 layout, got " +
                   type_of(t) + (count == q.rows * cols ? ": are they linear?" : ""));
    q.scales = std::move(words);
    return;
  }
  if (o.padded_scales) {
    const std::vector<int64_t> padded = {(q.rows + 127) / 128 * 128, (cols + 3) / 4 * 4};
    if (t.shape != padded)
      wrong(t, "expected padded scales of shape " + io::shape_text(padded) + ", got " + type_of(t));
    for (int64_t r = 0; r < q.rows; ++r) {
      const auto row = words.begin() + r * padded[1];
      q.scales.insert(q.scales.end(), row, row + cols);
    }
    return;
  }
  const bool rowwise = t.shape.size() < 2 || t.shape.back() == cols;
  if (rowwise && count == q.rows * cols) {
    q.scales = std::move(words);
  } else if (rowwise && q.block_rows > 1 && count == tile_rows * cols) {
    for (int64_t r = 0; r < q.rows; ++r)
      q.scales.insert(q.scales.end(), words.begin() + r / q.block_rows * cols,
                      words.begin() + (r / q.block_rows + 1) * cols);
  } else {
    wrong(t,
          "expected scales of shape [" + std::to_string(q.rows) + ", " + std::to_string(cols) + "]" +
              (q.block_rows > 1 ? " or [" + std::to_string(tile_rows) + ", " + std::to_string(cols) + "]"
                                : "") +
              ", one for " + std::to_string(q.block) + " codes, got " + type_of(t) +
              (count == scale_size_128x4(q.rows, cols) ? ": are they in the 128x4 layout, or padded?" : ""));
  }
}

std::vector<float> values_of(const io::Tensor &t) {
  const std::optional<FormatId> from = format_of(t.dtype);
  if (from != FormatId::f32 && from != FormatId::bf16 && from != FormatId::f16)
    wrong(t, "expected a global scale in F32, BF16 or F16, got " + type_of(t));
  const CodeView in{byte_span(t).data(), format(*from).storage_bits};
  std::vector<float> v(size_t(*io::element_count(t.shape)));
  for (size_t i = 0; i < v.size(); ++i) {
    v[i] = value_f32(*from, in[int64_t(i)]);
    if (!std::isfinite(v[i]) || v[i] < 0)
      wrong(t, "value " + std::to_string(i) + " of the global scale must be finite and not negative");
  }
  return v;
}

/// What a convention's values are computed from; its other words are not the same to the bit.
GlobalMeaning needed(const Rule &r) {
  if (r.decoding == Decoding::amax_constant || r.decoding == Decoding::amax_divide || r.per_row)
    return GlobalMeaning::amax;
  return r.decoding == Decoding::scale_encode ? GlobalMeaning::encode : GlobalMeaning::decode;
}

void take_global(BlockScaled &q, const Rule &r, const io::Tensor *t, const ImportOptions &o) {
  const std::string convention = "convention '" + q.convention + "'";
  if (!has_level(r)) {
    if (t != nullptr) wrong(*t, convention + " has no global scale; leave it out");
    return;
  }
  if (t == nullptr)
    throw Error("import: " + convention + " needs a global scale: " + std::string(to_string(needed(r))));
  std::vector<float> v = values_of(*t);
  const auto refuse = [&] {
    wrong(*t, convention + " decodes with " + std::string(to_string(needed(r))) +
                  ", which does not follow from '" + std::string(to_string(o.global_is)) +
                  "' to the last bit; give that word, or name another convention");
  };
  if (r.per_row) {
    if (o.global_is != GlobalMeaning::amax) refuse();
    if (int64_t(v.size()) != q.rows)
      wrong(*t,
            convention + " has an amax for each of " + std::to_string(q.rows) + " rows, got " + type_of(*t));
    q.row_amax = std::move(v);
    return;
  }
  if (v.size() != 1) wrong(*t, "expected one value, got " + type_of(*t));
  GlobalScale g;
  if (o.global_is == GlobalMeaning::amax) {
    g = global_from_amax(r, v[0], q.source);
  } else if (needed(r) == GlobalMeaning::amax) {
    refuse();
  } else if (o.global_is == GlobalMeaning::encode) {
    if (stores_decode(r)) refuse();
    g = global_from_word(r, v[0]);
  } else {
    if (needed(r) != GlobalMeaning::decode) refuse();
    g = {NAN, stores_decode(r) ? 1.0f : NAN,
         v[0]}; // S was not given, and nothing that decodes reads it
  }
  q.global_amax = g.amax;
  q.global_encode = g.encode;
  q.global_decode = g.decode;
}

} // namespace

BlockScaled import_quantized(const io::Tensor &codes, const io::Tensor &scales, const io::Tensor *global,
                             const ImportOptions &o) {
  const Convention &convention = find_convention(o.convention);
  for (const io::Tensor *t : {&codes, &scales, global})
    if (t != nullptr) t->check();
  BlockScaled q;
  q.convention = convention.name;
  q.element = convention.rule.element;
  q.scale = convention.rule.scale;
  q.block = convention.rule.block;
  q.block_rows = o.block_rows;
  if (q.block_rows != 1 && q.block_rows != q.block)
    throw Error("import: block rows must be 1 or " + std::to_string(q.block) + ", got " +
                std::to_string(q.block_rows));
  q.axis = o.axis;
  q.layout = o.layout;
  q.source = o.source;
  if (q.source != FormatId::f32 && q.source != FormatId::bf16 && q.source != FormatId::f16)
    throw Error("import: the source must be f32, bf16 or f16, got " + std::string(format(q.source).name));
  q.hadamard = o.hadamard;
  q.sign_mask = o.hadamard ? kHadamardSigns : uint16_t{0};
  if (format(q.element).storage_bits != 4 && o.nibbles == NibbleOrder::high_first)
    throw Error("import: codes of " + std::string(format(q.element).name) +
                " have no nibble order; leave it out");
  take_codes(q, codes, o);
  take_scales(q, scales, o);
  take_global(q, convention.rule, global, o);
  return q;
}

} // namespace nvfp4::golden
