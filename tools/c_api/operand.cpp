// SPDX-License-Identifier: Apache-2.0
// From the caller's buffers to operands. Only pointers, strides and names are checked here; what fits a unit
// or another operand is the library's to say.
#include "tools/c_api/guard.hpp"
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/emulator/quantize/hadamard.hpp"
#include "nvfp4/emulator/names.hpp"

#include <array>

namespace nvfp4::c_api {

FormatId format_named(const char *name, const char *what) {
  const std::optional<FormatId> id = find_format(given_text(name, what));
  if (!id) throw Error(std::string(what) + ": there is no format '" + name + "'; see nvfp4.h for the names");
  return *id;
}

const char *name_of(FormatId id) {
  static constexpr auto rows = [] {
    std::array<Format, kFormatCount> all{};
    for (int i = 0; i < kFormatCount; ++i) all[size_t(i)] = format(FormatId(i));
    return all;
  }();
  return rows[size_t(id)].name;
}

int64_t row_bytes(int64_t rows, int64_t count, int bits, const char *name) {
  if (rows < 0 || count < 0)
    throw Error(std::string(name) + " is [" + std::to_string(rows) + ", " + std::to_string(count) +
                "]; expected no negative size");
  int64_t bytes = 0, all = 0;
  if (__builtin_mul_overflow(count, int64_t(bits), &bytes) ||
      __builtin_add_overflow(bytes, int64_t{7}, &bytes) || __builtin_mul_overflow(bytes / 8, rows, &all))
    throw Error(std::string(name) + " is [" + std::to_string(rows) + ", " + std::to_string(count) +
                "]: more bytes than 64 bits count");
  return bytes / 8;
}

namespace {

int64_t checked_stride(const void *data, int64_t rows, int64_t bytes, int64_t stride, const char *name) {
  if (stride == 0) stride = bytes;
  if (stride < bytes)
    throw Error(std::string(name) + ": the stride of " + std::to_string(stride) +
                " bytes is less than a row of " + std::to_string(bytes));
  if (rows > 0 && bytes > 0) given(static_cast<const uint8_t *>(data), name);
  return stride;
}

} // namespace

std::vector<uint8_t> gather(const void *data, int64_t rows, int64_t bytes, int64_t stride, const char *name) {
  stride = checked_stride(data, rows, bytes, stride, name);
  std::vector<uint8_t> out(size_t(rows * bytes));
  if (out.empty()) return out;
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(out.data() + r * bytes, static_cast<const uint8_t *>(data) + r * stride, size_t(bytes));
  return out;
}

void scatter(std::span<const uint8_t> words, void *data, int64_t rows, int64_t bytes, int64_t stride,
             const char *name) {
  stride = checked_stride(data, rows, bytes, stride, name);
  if (words.empty()) return;
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(static_cast<uint8_t *>(data) + r * stride, words.data() + r * bytes, size_t(bytes));
}

BlockScaled block_scaled(const nvfp4_operand &o, const char *name) {
  const std::string where(name);
  BlockScaled q;
  q.element = format_named(o.element, (where + ".element").c_str());
  q.scale = format_named(o.scale, (where + ".scale").c_str());
  if (o.block <= 0)
    throw Error(where + ".block is " + std::to_string(o.block) + "; expected elements per scale");
  q.block = o.block;
  q.rows = o.rows;
  q.k = o.k;
  const int bits = format(q.element).storage_bits;
  const int64_t bytes = row_bytes(o.rows, o.k, bits, name), blocks = o.k / o.block + (o.k % o.block != 0);
  if ((o.block * bits) % 8 != 0)
    throw Error(where + ".block is " + std::to_string(o.block) + "; expected whole bytes of codes per scale");
  q.padded_k = blocks * o.block;
  const int64_t scales = blocks * scale_bytes(q.scale);
  const std::vector<uint8_t> codes =
      gather(o.codes, o.rows, bytes, o.codes_stride, (where + ".codes").c_str());
  q.codes.resize(size_t(q.rows * q.row_bytes()));
  for (int64_t r = 0; r < q.rows && bytes > 0; ++r) {
    uint8_t *const row = q.codes.data() + r * q.row_bytes();
    std::memcpy(row, codes.data() + r * bytes, size_t(bytes));
    if (bits == 4 && o.k % 2 != 0) row[bytes - 1] &= 0x0F;
  }
  switch (o.scale_layout) {
  case NVFP4_SCALES_LINEAR:
    q.scales = gather(o.scales, o.rows, scales, o.scales_stride, (where + ".scales").c_str());
    break;
  case NVFP4_SCALES_TILED_128X4:
    if (o.scales_stride != 0)
      throw Error(where + ".scales_stride: scales in 128x4 tiles have no stride; set it to 0");
    q.layout = ScaleLayout::tiled_128x4;
    q.scales = gather(o.scales, 1, scale_size_128x4(o.rows, scales), 0, (where + ".scales").c_str());
    break;
  default:
    throw Error(where + ".scale_layout is " + std::to_string(int(o.scale_layout)) +
                "; expected one of nvfp4_scale_layout");
  }
  q.hadamard = o.rotated != 0;
  q.sign_mask = o.sign_mask;
  q.convention = o.convention == nullptr ? "" : o.convention;
  q.global_amax = o.global_amax;
  q.global_decode = o.global_decode;
  if (o.row_amax != nullptr) q.row_amax.assign(o.row_amax, o.row_amax + o.rows);
  return q;
}

GemmOperand operand(const nvfp4_operand &o, const Unit &unit, Side side) {
  const std::string name = side == Side::a ? "a" : "b";
  if (scaled(o)) return make_operand(unit, side, block_scaled(o, name.c_str()));
  if (o.scales != nullptr)
    throw Error(name + ".scales are given, but " + name + ".scale does not say of which format");
  const FormatId id = format_named(o.element, (name + ".element").c_str());
  const int64_t bytes = row_bytes(o.rows, o.k, format(id).storage_bits, name.c_str());
  const std::vector<uint8_t> words =
      gather(o.codes, o.rows, bytes, o.codes_stride, (name + ".codes").c_str());
  GemmOperand dense = make_operand(unit, side, DenseView{id, o.rows, o.k, words});
  if (o.rotated != 0) {
    dense.hadamard = kHadamardSize;
    dense.sign_mask = o.sign_mask;
  }
  return dense;
}

const Unit &unit_of(const nvfp4_product &p) { return find_unit(given_text(p.unit, "product.unit")); }

GemmOptions options_of(const nvfp4_product &p, const Unit &unit) {
  GemmOptions o;
  o.alpha = p.alpha;
  o.beta = p.beta;
  o.out = p.out != nullptr                 ? format_named(p.out, "product.out")
          : unit.rule.acc == FormatId::f64 ? FormatId::f64
                                           : FormatId::f32;
  if (p.accumulation != nullptr) o.accumulation = parse_enum<Accumulation>(p.accumulation);
  o.threads = p.threads;
  o.oracle = p.exact != 0;
  switch (p.alpha_rule) {
  case NVFP4_ALPHA_BY_CONVENTION: o.alpha_rule = AlphaRule::by_convention; break;
  case NVFP4_ALPHA_MUL_CONST: o.alpha_rule = AlphaRule::mul_const; break;
  case NVFP4_ALPHA_DIV: o.alpha_rule = AlphaRule::div; break;
  case NVFP4_ALPHA_SDEC_PRODUCT: o.alpha_rule = AlphaRule::sdec_product; break;
  default:
    throw Error("product.alpha_rule is " + std::to_string(int(p.alpha_rule)) +
                "; expected one of nvfp4_alpha_rule");
  }
  return o;
}

} // namespace nvfp4::c_api

extern "C" nvfp4_operand nvfp4_default_operand(void) {
  nvfp4_operand o = {};
  o.global_decode = 1.0f;
  return o;
}

extern "C" nvfp4_product nvfp4_default_product(const char *unit) {
  nvfp4_product p = {};
  p.unit = unit;
  p.alpha = 1.0f;
  return p;
}
