// SPDX-License-Identifier: Apache-2.0
// Makes and reads operands of products; see product_operands.hpp.
#include "nvfp4/golden/product_operands.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/golden/io/file.hpp"

#include <cmath>
#include <cstring>

namespace nvfp4::golden {
namespace {

uint8_t scale_code(FormatId id, double x) {
  return uint8_t(encode(id, float(x), id == FormatId::ue8m0 ? Rounding::upward : Rounding::nearest_even));
}

/// Of block b of a row of `blocks`.
uint8_t block_scale_of(const UnitRule &rule, Fp4Kind kind, int64_t b, int64_t blocks, Random &random) {
  const bool e8 = rule.scale == FormatId::ue8m0;
  switch (kind) {
  case Fp4Kind::quantized:
  case Fp4Kind::sparse:
    return scale_code(rule.scale, std::exp2(e8 ? random.below(3) - 1 : random.normal() * 0.4 + 5));
  case Fp4Kind::lognormal1: return scale_code(rule.scale, std::exp(double(random.normal())));
  case Fp4Kind::lognormal3: return scale_code(rule.scale, std::exp(3.0 * double(random.normal())));
  case Fp4Kind::outliers:
    return scale_code(rule.scale, random.below(40) == 0   ? 448.0
                                  : random.below(40) == 0 ? 0.0
                                                          : 1.0 + 0.5 * random.below(3));
  case Fp4Kind::tokens: {
    const int64_t per_step = 64 / rule.scale_block, t = b / per_step;
    const bool first = b % per_step == 0, late = b >= blocks - blocks / 4;
    const double above = first && late && t % 2 == 0 ? 448.0 : first && t % 5 == 2 ? 4.0 : 0x1p-6;
    return scale_code(rule.scale, above);
  }
  case Fp4Kind::spread:
    return scale_code(rule.scale, std::exp2(random.below(9) - 4) * (e8 ? 1.0 : 1.0 + 0.125 * random.below(8)));
  case Fp4Kind::raw:
  case Fp4Kind::nan_scales: break;
  }
  if (e8) return uint8_t(random.below(8) == 0 ? random.below(255) : 127 + random.below(31) - 15);
  const uint8_t any = uint8_t(random());
  return (any & 0x7F) == 0x7F ? uint8_t(any - 1) : any;
}

} // namespace

HostOperand fp4_operand(const UnitRule &rule, Fp4Kind kind, int64_t rows, int64_t k, uint64_t seed) {
  HostOperand h{FormatId::e2m1, rows, k, std::vector<uint8_t>(size_t(rows * k / 2)), {}};
  const int64_t blocks = k / rule.scale_block;
  h.scales.resize(size_t(rows * blocks));
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    Random random{seed * 0x2545F4914F6CDD1D + uint64_t(r)};
    const bool nan_row = kind == Fp4Kind::nan_scales && random.below(5) == 0,
               zero_row = kind == Fp4Kind::sparse && random.below(7) == 0;
    for (int64_t b = 0; b < blocks; ++b) {
      h.scales[size_t(r * blocks + b)] = block_scale_of(rule, kind, b, blocks, random);
      const bool zero_block = kind == Fp4Kind::sparse && random.below(3) == 0;
      for (int64_t i = 0; i < rule.scale_block; i += 2) {
        uint8_t byte = uint8_t(random());
        if (kind != Fp4Kind::raw && kind != Fp4Kind::nan_scales)
          byte = uint8_t(encode(FormatId::e2m1, 2.2f * random.normal()) |
                         encode(FormatId::e2m1, 2.2f * random.normal()) << 4);
        if (kind == Fp4Kind::sparse && random.below(3) != 0) byte &= 0x88; // zeros keep a sign
        if (zero_row || zero_block) byte = 0;
        h.codes[size_t((r * k + b * rule.scale_block + i) / 2)] = byte;
      }
    }
    if (nan_row && blocks > 0)
      h.scales[size_t(r * blocks + random.below(int(blocks)))] = rule.scale == FormatId::ue8m0 ? 0xFF : 0x7F;
  }
  return h;
}

std::vector<RecordedProduct> read_products(const std::string &path) {
  const io::TensorFile file = io::read_tensors(path);
  const auto side = [&](const std::string &name) {
    const std::span<const uint8_t> codes = file.elements<uint8_t>(name + ".codes"),
                                   scales = file.elements<uint8_t>(name + ".scales");
    const std::vector<int64_t> shape = file.at(name + ".codes").shape;
    if (shape.size() != 2 || shape[1] % 32 != 0 || int64_t(scales.size()) != shape[0] * shape[1] / 8)
      throw Error(path + ": expected '" + name +
                  ".codes' of whole steps, 32 bytes each, and a scale for each 8 of its bytes, got " +
                  io::shape_text(shape) + " and " + std::to_string(scales.size()) + " scales");
    return HostOperand{
        FormatId::e2m1, shape[0], shape[1] * 2, {codes.begin(), codes.end()}, {scales.begin(), scales.end()}};
  };
  std::vector<RecordedProduct> products;
  for (const char *name : {"fprop", "dgrad", "wgrad"})
    products.push_back({name, side(std::string(name) + ".a"), side(std::string(name) + ".b")});
  return products;
}

HostOperand repeated(const HostOperand &operand, int64_t rows, int64_t k) {
  const int64_t scales = int64_t(operand.scales.size()) / operand.rows, block = operand.k / scales;
  HostOperand h{operand.format, rows, k, std::vector<uint8_t>(size_t(rows * k / 2)),
                std::vector<uint8_t>(size_t(rows * (k / block)))};
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t from = r % operand.rows;
    for (int64_t i = 0; i < k / 2; ++i)
      h.codes[size_t(r * k / 2 + i)] = operand.codes[size_t((from * operand.k + i * 2 % operand.k) / 2)];
    for (int64_t i = 0; i < k / block; ++i)
      h.scales[size_t(r * (k / block) + i)] = operand.scales[size_t(from * scales + i % scales)];
  }
  return h;
}

HostOperand dense_operand(const UnitRule &rule, bool second, int kind, int64_t rows, int64_t k,
                          uint64_t seed) {
  const FormatId id = second ? rule.b : rule.a;
  const Format f = format(id);
  HostOperand h{id, rows, k, std::vector<uint8_t>(size_t(rows * k * f.storage_bits / 8)), {}};
  Random random{seed};
  // of formats with FP32's range, numbers whose products stay within it
  const double full = f.exponent_bits >= 8 ? 1e6 : value(id, f.max_finite_magnitude()) / 4.5;
  for (int64_t i = 0; i < rows * k; ++i) {
    double x = double(random.normal());
    if (kind == 3) x *= full;
    if (kind == 1) x = std::ldexp(x, random.below(24) - 12);
    uint64_t word =
        convert(f, format(FormatId::f64), bit_cast<uint64_t>(x), Rounding::nearest_even, Overflow::satfinite);
    if (kind == 2 && random.below(3) == 0) word = with_sign(f, random.below(2) != 0, 0);
    if (kind == 2 && random.below(2000) == 0)
      word = with_sign(f, random.below(2) != 0, f.top_magnitude() - uint64_t(random.below(2)));
    if (f.storage_bits == 4)
      h.codes[size_t(i / 2)] = uint8_t(h.codes[size_t(i / 2)] | word << (i % 2 * 4));
    else
      std::memcpy(h.codes.data() + i * f.storage_bits / 8, &word, size_t(f.storage_bits / 8));
  }
  if (rule.scale_block != 0)
    for (int64_t i = 0; i < rows * (k / rule.scale_block); ++i)
      h.scales.push_back(uint8_t(127 + random.below(kind == 1 ? 21 : 5) - (kind == 1 ? 10 : 2)));
  return h;
}

} // namespace nvfp4::golden
