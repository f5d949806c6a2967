// SPDX-License-Identifier: Apache-2.0
// Writes and checks the files of block-scaled tensors.
#include "nvfp4/golden/quantized_file.hpp"

#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"

#include <algorithm>
#include <charconv>

namespace nvfp4::golden {
namespace {

constexpr const char *kFormat = "nvfp4-block-scaled-1";

const std::string &meta(const io::TensorFile &f, const char *key) {
  const auto it = f.metadata.find(key);
  if (it == f.metadata.end()) throw Error(f.source + ": metadata has no '" + key + "'; was it written by nvfp4 quantize?");
  return it->second;
}

int64_t meta_number(const io::TensorFile &f, const char *key, int64_t low, int64_t high) {
  const std::string &text = meta(f, key);
  int64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size() || v < low || v > high)
    throw Error(f.source + ": metadata '" + key + "' = '" + text.substr(0, 40) + "' is not a number from " +
                std::to_string(low) + " to " + std::to_string(high));
  return v;
}

template <NamedEnum E> E meta_choice(const io::TensorFile &f, const char *key) {
  const std::string &text = meta(f, key);
  if (const std::optional<E> e = find_enum<E>(text)) return *e;
  throw Error(f.source + ": metadata '" + key + "' = '" + text.substr(0, 40) + "' is not " + name_list<E>());
}

bool meta_flag(const io::TensorFile &f, const char *key) {
  const std::string &text = meta(f, key);
  if (text != "true" && text != "false")
    throw Error(f.source + ": metadata '" + key + "' = '" + text.substr(0, 40) + "' is not true or false");
  return text == "true";
}

FormatId meta_format(const io::TensorFile &f, const char *key) {
  const auto id = find_format(meta(f, key));
  if (!id) throw Error(f.source + ": metadata '" + key + "' = '" + meta(f, key).substr(0, 40) + "' is no format");
  return *id;
}

std::vector<uint8_t> bytes_of(const io::TensorFile &f, const char *name, const std::vector<int64_t> &shape) {
  const io::Tensor &t = f.at(name);
  if (t.dtype != io::DType::u8 || t.shape != shape)
    throw Error(io::message_prefix(f.source, name) + "expected U8 " + io::shape_text(shape) + ", got " +
                std::string(io::info(t.dtype).safetensors) + " " + io::shape_text(t.shape));
  const std::span<const uint8_t> bytes = f.elements<uint8_t>(name);
  return {bytes.begin(), bytes.end()};
}

float scalar(const io::TensorFile &f, const char *name) {
  const std::span<const float> v = f.elements<float>(name);
  if (v.size() != 1) throw Error(io::message_prefix(f.source, name) + "expected one F32 value");
  return v[0];
}

io::Tensor scalar_tensor(const char *name, float value) {
  return io::Tensor::from(name, {1}, std::vector<float>{value});
}

} // namespace

std::vector<int64_t> scale_shape(const BlockScaled &q) {
  if (q.layout == ScaleLayout::linear) return {q.rows, q.scale_cols()};
  return {(q.rows + 127) / 128 * 128, (q.scale_cols() + 3) / 4 * 4};
}

io::TensorFile to_file(const BlockScaled &q) {
  io::TensorFile f;
  f.tensors.push_back(io::Tensor::from("codes", {q.rows, q.row_bytes()}, q.codes));
  f.tensors.push_back(io::Tensor::from("block_scales", scale_shape(q), q.scales));
  f.tensors.push_back(scalar_tensor("global_amax", q.global_amax));
  f.tensors.push_back(scalar_tensor("global_encode_scale", q.global_encode));
  f.tensors.push_back(scalar_tensor("global_decode_scale", q.global_decode));
  if (!q.row_amax.empty()) f.tensors.push_back(io::Tensor::from("row_amax", {q.rows}, q.row_amax));
  f.metadata = {{"format", kFormat},
                {"convention", q.convention},
                {"element", format(q.element).name},
                {"scale", format(q.scale).name},
                {"block", std::to_string(q.block)},
                {"block_rows", std::to_string(q.block_rows)},
                {"rows", std::to_string(q.rows)},
                {"k", std::to_string(q.k)},
                {"axis", std::string(to_string(q.axis))},
                {"source_dtype", format(q.source).name},
                {"scale_layout", std::string(to_string(q.layout))},
                {"hadamard", q.hadamard ? "true" : "false"},
                {"sign_mask", std::to_string(q.sign_mask)}};
  return f;
}

bool is_block_scaled(const io::TensorFile &file) {
  const auto it = file.metadata.find("format");
  return it != file.metadata.end() && it->second == kFormat;
}

BlockScaled from_file(const io::TensorFile &f) {
  if (!is_block_scaled(f))
    throw Error(f.source + ": not a quantized tensor (metadata format is not '" + kFormat + "')");
  constexpr int64_t most = int64_t{1} << 40, most_empty = int64_t{1} << 20;
  BlockScaled q;
  q.convention = meta(f, "convention");
  const Rule &rule = find_convention(q.convention).rule;
  q.element = meta_format(f, "element");
  q.scale = meta_format(f, "scale");
  q.block = int(meta_number(f, "block", 1, 1024));
  if (q.element != rule.element || q.scale != rule.scale || q.block != rule.block)
    throw Error(f.source + ": element, scale or block does not fit convention '" + q.convention + "'");
  q.block_rows = int(meta_number(f, "block_rows", 1, 1024));
  if (q.block_rows != 1 && q.block_rows != q.block)
    throw Error(f.source + ": metadata 'block_rows' must be 1 or " + std::to_string(q.block));
  q.rows = meta_number(f, "rows", 0, most);
  q.k = meta_number(f, "k", 0, most);
  if ((q.rows == 0 || q.k == 0) && std::max(q.rows, q.k) > most_empty)
    throw Error(f.source + ": has no elements, yet rows = " + std::to_string(q.rows) + ", k = " + std::to_string(q.k));
  q.padded_k = (q.k + q.block - 1) / q.block * q.block;
  q.axis = meta_choice<Axis>(f, "axis");
  q.source = meta_format(f, "source_dtype");
  if (q.source != FormatId::f32 && q.source != FormatId::bf16 && q.source != FormatId::f16)
    throw Error(f.source + ": metadata 'source_dtype' must be f32, bf16 or f16");
  q.layout = meta_choice<ScaleLayout>(f, "scale_layout");
  q.hadamard = meta_flag(f, "hadamard");
  q.sign_mask = uint16_t(meta_number(f, "sign_mask", 0, 65535));
  if (q.hadamard && q.k % 16 != 0) throw Error(f.source + ": a Hadamard-rotated tensor needs k a multiple of 16");
  q.codes = bytes_of(f, "codes", {q.rows, q.row_bytes()});
  q.scales = bytes_of(f, "block_scales", scale_shape(q));
  q.global_amax = scalar(f, "global_amax");
  q.global_encode = scalar(f, "global_encode_scale");
  q.global_decode = scalar(f, "global_decode_scale");
  // an empty tensor has no rows to scale; where the scales hold those of rows, their amax may be unknown
  if (rule.per_row && q.rows > 0 && (has_row_factors(rule) || f.find("row_amax") != nullptr)) {
    const std::span<const float> amax = f.elements<float>("row_amax");
    if (int64_t(amax.size()) != q.rows)
      throw Error(io::message_prefix(f.source, "row_amax") + "expected shape " + io::shape_text(std::vector<int64_t>{q.rows}));
    q.row_amax.assign(amax.begin(), amax.end());
  }
  return q;
}

std::optional<FormatId> format_of(io::DType dtype) {
  switch (dtype) {
  case io::DType::f16: return FormatId::f16;
  case io::DType::bf16: return FormatId::bf16;
  case io::DType::f32: return FormatId::f32;
  case io::DType::f64: return FormatId::f64;
  case io::DType::f8_e4m3: return FormatId::e4m3;
  case io::DType::f8_e5m2: return FormatId::e5m2;
  case io::DType::f8_e8m0: return FormatId::ue8m0;
  case io::DType::f4: return FormatId::e2m1;
  default: return std::nullopt;
  }
}

void check_empty(const io::Tensor &t, const std::string &file) {
  constexpr int64_t most = int64_t{1} << 20;
  if (!t.data.empty()) return;
  for (const int64_t length : t.shape)
    if (length > most)
      throw Error(io::message_prefix(file, t.name) + "has no elements, yet shape " + io::shape_text(t.shape));
}

DenseMatrix to_matrix(const io::Tensor &t, const std::string &file) {
  DenseMatrix m;
  check_empty(t, file);
  if (t.shape.empty()) throw Error(io::message_prefix(file, t.name) + "expected a matrix, got a scalar");
  m.cols = t.shape.back();
  m.rows = m.cols == 0 ? 0 : int64_t(*io::element_count(t.shape)) / m.cols;
  const std::optional<FormatId> known = format_of(t.dtype);
  if (!known)
    throw Error(io::message_prefix(file, t.name) + "expected F32, F16, BF16, F64, F8 or F4 values, got " +
                std::string(io::info(t.dtype).safetensors));
  const FormatId id = *known;
  m.source = id == FormatId::f16 || id == FormatId::bf16 ? id : FormatId::f32;
  m.values.resize(size_t(m.rows * m.cols));
  const int bits = format(id).storage_bits;
  const CodeView words{reinterpret_cast<const uint8_t *>(t.data.data()), bits};
  if (id == FormatId::f32) {
    std::memcpy(m.values.data(), t.data.data(), t.data.size());
    return m;
  }
  const auto count = int64_t(m.values.size());
  float *const values = m.values.data();
  if (id == FormatId::bf16) { // what most people hold
    const float nan = value_f32(id, canonical_nan(format(id)));
    const auto *const word = reinterpret_cast<const uint16_t *>(t.data.data());
    for (int64_t i = 0; i < count; ++i) {
      const float v = bf16_value(word[i]);
      values[i] = v == v ? v : nan;
    }
  } else if (bits <= 16 && count >= int64_t{4} << bits) { // each code once
    std::vector<float> of_code(size_t{1} << bits);
    for (size_t code = 0; code < of_code.size(); ++code) of_code[code] = value_f32(id, code);
    for (int64_t i = 0; i < count; ++i) values[i] = of_code[words[i]];
  } else {
    for (int64_t i = 0; i < count; ++i) values[i] = value_f32(id, words[i]);
  }
  return m;
}

const io::Tensor &choose_tensor(const io::TensorFile &file, std::string_view name) {
  if (!name.empty()) return file.at(name);
  if (file.tensors.size() == 1 && file.unknown.empty()) return file.tensors.front();
  std::string names;
  for (const io::Tensor &t : file.tensors) {
    if (names.size() > 200) {
      names += ", ...";
      break;
    }
    names += (names.empty() ? "" : ", ") + t.name;
  }
  throw Error(file.source + ": holds " + std::to_string(file.tensors.size() + file.unknown.size()) + " tensors; name one of " + names);
}

} // namespace nvfp4::golden
