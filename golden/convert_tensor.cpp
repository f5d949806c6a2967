// SPDX-License-Identifier: Apache-2.0
// Checks a tensor against what a conversion reads, and converts it.
#include "nvfp4/golden/convert_tensor.hpp"

#include "nvfp4/emulator/formats/code_view.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::golden {
namespace {

/// The dtype that holds codes of a format; U8 (one code a byte) for those that safetensors cannot pack.
io::DType dtype_for(FormatId id) {
  switch (id) {
  case FormatId::f16: return io::DType::f16;
  case FormatId::bf16: return io::DType::bf16;
  case FormatId::f32:
  case FormatId::tf32: return io::DType::f32;
  case FormatId::f64: return io::DType::f64;
  case FormatId::e4m3: return io::DType::f8_e4m3;
  case FormatId::e5m2: return io::DType::f8_e5m2;
  case FormatId::ue8m0: return io::DType::f8_e8m0;
  default: return io::DType::u8;
  }
}

} // namespace

ConvertedTensor convert_tensor(const Conversion &conversion, const io::Tensor &in, const std::string &source,
                               bool as_values, const std::function<void(double)> &progress) {
  const Format from = format(conversion.from), to = format(conversion.to);
  check_empty(in, source);
  const std::optional<FormatId> stored = format_of(in.dtype);
  // codes of formats without a dtype of their own stand in U8, one a byte
  const bool raw = in.dtype == io::DType::u8 && dtype_for(from.id) == io::DType::u8;
  if (!raw && stored != from.id && !(from.id == FormatId::tf32 && stored == FormatId::f32))
    throw Error(io::message_prefix(source, in.name) + std::string(conversion.name) + " reads " + from.name +
                ", got " + std::string(io::info(in.dtype).safetensors) + "; convert it to " + from.name +
                " first");
  const CodeView words{reinterpret_cast<const uint8_t *>(in.data.data()), int(io::info(in.dtype).bits)};
  const int64_t count = *io::element_count(in.shape);
  const size_t width = size_t(std::max<int>(to.storage_bits, 8)) / 8;
  io::Tensor out{in.name, dtype_for(to.id), in.shape, std::vector<std::byte>(size_t(count) * width)};
  std::vector<float> values(as_values ? size_t(count) : 0);
  ConversionCounts counts;
  for (int64_t i = 0; i < count; ++i) {
    if (progress && i % (1 << 20) == 0) progress(double(i) / double(count));
    const uint64_t code = conversion(words[i]);
    const Class x = decode(from, words[i]).cls, y = decode(to, code).cls;
    counts.nan_in += x == Class::nan;
    counts.infinity_in += x == Class::infinity;
    counts.nan_out += y == Class::nan;
    counts.infinity_out += y == Class::infinity;
    std::memcpy(out.data.data() + size_t(i) * width, &code, width);
    if (as_values) values[size_t(i)] = value_f32(to.id, code);
  }
  if (as_values) out = io::Tensor::from(in.name, in.shape, values);
  return {std::move(out), counts};
}

ConvertedTensor convert_tensor(const NumberConversion &conversion, const io::Tensor &in,
                               const std::string &source, bool as_values,
                               const std::function<void(double)> &progress) {
  check_empty(in, source);
  const std::optional<FormatId> stored = format_of(in.dtype);
  if (!stored)
    throw Error(io::message_prefix(source, in.name) + "expected floating-point numbers to round to " +
                conversion.to.name + ", got " + std::string(io::info(in.dtype).safetensors));
  const CodeView words{reinterpret_cast<const uint8_t *>(in.data.data()), int(io::info(in.dtype).bits)};
  const int64_t count = *io::element_count(in.shape);
  const size_t width = as_values ? sizeof(double) : size_t(conversion.to.bytes());
  const io::DType dtype = as_values    ? io::DType::f64
                          : width == 1 ? io::DType::u8
                          : width == 2 ? io::DType::u16
                                       : io::DType::u32;
  io::Tensor out{in.name, dtype, in.shape, std::vector<std::byte>(size_t(count) * width)};
  ConversionCounts counts;
  const bool stochastic = conversion.rounding == NumberRounding::stochastic;
  for (int64_t i = 0; i < count; ++i) {
    if (progress && i % (1 << 20) == 0) progress(double(i) / double(count));
    const double x = value(*stored, words[i]);
    const uint64_t code = encode_number(conversion.to, x, conversion.rounding, conversion.saturate,
                                        stochastic ? conversion.key.bits32(uint64_t(i)) : 0);
    const double y = decode_number(conversion.to, code);
    counts.nan_in += std::isnan(x);
    counts.infinity_in += std::isinf(x);
    counts.nan_out += std::isnan(y);
    counts.infinity_out += std::isinf(y);
    const uint64_t word = as_values ? bit_cast<uint64_t>(y) : code;
    std::memcpy(out.data.data() + size_t(i) * width, &word, width);
  }
  return {std::move(out), counts};
}

} // namespace nvfp4::golden
