// SPDX-License-Identifier: Apache-2.0
// Finds what both tensors' words are and hands them to the comparison of words.
#include "nvfp4/golden/comparison/compare_tensors.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <algorithm>

namespace nvfp4::golden {
namespace {

using diagnosis::Comparison;
using Progress = std::function<void(double)>;

/// The part of a work's progress that lies between two fractions of it; nothing of nothing.
Progress between(const Progress &progress, double from, double to) {
  if (!progress) return {};
  return [&progress, from, to](double f) { progress(from + (to - from) * f); };
}

std::span<const uint8_t> bytes(const io::Tensor &t) {
  return {reinterpret_cast<const uint8_t *>(t.data.data()), t.data.size()};
}

int64_t columns(const std::vector<int64_t> &shape) { return shape.empty() ? 1 : shape.back(); }

/// Words without arithmetic: which differ, and for integers by how much. `value` gives a word's number.
template <class Word, class Value>
Comparison compare_words(std::span<const uint8_t> got, std::span<const uint8_t> want, int64_t cols,
                         const Progress &progress, Value value) {
  Comparison s;
  s.total = int64_t(got.size() / sizeof(Word));
  std::vector<bool> cols_hit(static_cast<size_t>(cols));
  int64_t last_row = -1;
  for (int64_t i = 0; i < s.total; ++i) {
    if (progress && i % (1 << 20) == 0) progress(double(i) / double(s.total));
    Word p, q;
    std::memcpy(&p, got.data() + size_t(i) * sizeof p, sizeof p);
    std::memcpy(&q, want.data() + size_t(i) * sizeof q, sizeof q);
    if (p == q) continue;
    if (s.differing++ == 0) {
      s.first = i;
      s.first_got = uint64_t(p);
      s.first_want = uint64_t(q);
    }
    cols_hit[size_t(i % cols)] = true;
    if (i / cols != last_row) ++s.rows_hit;
    last_row = i / cols;
    const auto x = value(p), y = value(q);
    const uint64_t apart = x > y ? uint64_t(x) - uint64_t(y) : uint64_t(y) - uint64_t(x);
    if (s.max_ulp_at < 0 || apart > s.max_ulp) {
      s.max_ulp = apart;
      s.max_ulp_at = i;
    }
  }
  s.cols_hit = std::count(cols_hit.begin(), cols_hit.end(), true);
  if (progress) progress(1);
  return s;
}

template <class Integer>
void compare_integers(PartComparison &part, const io::Tensor &a, const io::Tensor &b,
                      const Progress &progress) {
  part.words =
      compare_words<Integer>(bytes(a), bytes(b), columns(a.shape), progress, [](Integer v) { return v; });
  part.words.first_got &= ~uint64_t{0} >> (64 - 8 * sizeof(Integer));
  part.words.first_want &= ~uint64_t{0} >> (64 - 8 * sizeof(Integer));
  part.first_a = double(Integer(part.words.first_got));
  part.first_b = double(Integer(part.words.first_want));
}

void compare_format(PartComparison &part, FormatId id, std::span<const uint8_t> a, std::span<const uint8_t> b,
                    const Progress &progress) {
  const int64_t cols = columns(part.a_shape), total = *io::element_count(part.a_shape);
  part.words = diagnosis::compare(id, cols == 0 ? 0 : total / cols, cols, a, b, progress);
  part.first_a = value(id, part.words.first_got);
  part.first_b = value(id, part.words.first_want);
}

/// Words whose distances mean nothing: `width` bytes each, packed ones byte by byte.
void compare_bits(PartComparison &part, const io::Tensor &a, const io::Tensor &b, const Progress &progress) {
  part.measured = false;
  const size_t bits = io::info(a.dtype).bits;
  if (bits == 64)
    part.words =
        compare_words<uint64_t>(bytes(a), bytes(b), columns(a.shape), progress, [](uint64_t) { return 0; });
  else
    part.words = compare_words<uint8_t>(
        bytes(a), bytes(b), bits == 8 ? columns(a.shape) : std::max<int64_t>(1, int64_t(a.data.size())),
        progress, [](uint8_t) { return 0; });
}

/// Number i of a tensor; every NaN becomes the canonical one.
double number(const io::Tensor &t, int64_t i) {
  if (const std::optional<FormatId> id = format_of(t.dtype)) {
    const CodeView words{bytes(t).data(), format(*id).storage_bits};
    return value(*id, words[i]);
  }
  const CodeView words{bytes(t).data(), int(io::info(t.dtype).bits)};
  switch (t.dtype) {
  case io::DType::i8: return double(int8_t(words[i]));
  case io::DType::i16: return double(int16_t(words[i]));
  case io::DType::i32: return double(int32_t(words[i]));
  case io::DType::i64: return double(int64_t(words[i]));
  default: return double(words[i]);
  }
}

bool has_numbers(io::DType d) {
  return format_of(d).has_value() || (d >= io::DType::u8 && d <= io::DType::i64) || d == io::DType::boolean;
}

void compare_values(PartComparison &part, const io::Tensor &a, const io::Tensor &b,
                    const Progress &progress) {
  const auto count = size_t(*io::element_count(a.shape));
  std::vector<double> x(count), y(count);
  for (size_t i = 0; i < count; ++i) {
    if (progress && i % (1 << 18) == 0) progress(0.5 * double(i) / double(count));
    x[i] = number(a, int64_t(i));
    y[i] = number(b, int64_t(i));
  }
  const auto words = [](const std::vector<double> &v) {
    return std::span(reinterpret_cast<const uint8_t *>(v.data()), v.size() * sizeof(double));
  };
  part.by_value = true;
  compare_format(part, FormatId::f64, words(x), words(y), between(progress, 0.5, 1));
}

/// A part of a quantized tensor: codes of one format, unpacked where they are packed with an odd width.
PartComparison compare_codes(const char *name, FormatId id, const std::vector<int64_t> &shape,
                             std::span<const uint8_t> a, std::span<const uint8_t> b,
                             const Progress &progress) {
  PartComparison part{name, format(id).name, format(id).name, shape, shape};
  compare_format(part, id, a, b, progress);
  return part;
}

PartComparison unlike(const char *name, std::string why) {
  PartComparison part{name, "", "", {}, {}};
  part.unlike = std::move(why);
  return part;
}

std::vector<uint8_t> linear_scales(const BlockScaled &q) {
  return q.layout == ScaleLayout::linear ? q.scales : untile_scales(q.scales, q.rows, q.scale_cols());
}

} // namespace

std::vector<int64_t> PartComparison::index(int64_t at) const {
  std::vector<int64_t> place(a_shape.size());
  for (size_t axis = place.size(); axis-- > 0; at /= a_shape[axis]) place[axis] = at % a_shape[axis];
  return place;
}

PartComparison compare_tensors(const io::Tensor &a, const io::Tensor &b, const Progress &progress) {
  a.check();
  b.check();
  PartComparison part{a.name, std::string(io::info(a.dtype).safetensors),
                      std::string(io::info(b.dtype).safetensors), a.shape, b.shape};
  if (a.shape != b.shape) {
    part.unlike = "shape " + io::shape_text(a.shape) + " against " + io::shape_text(b.shape);
    return part;
  }
  if (a.dtype != b.dtype) {
    if (has_numbers(a.dtype) && has_numbers(b.dtype))
      compare_values(part, a, b, progress);
    else
      part.unlike = "type " + part.a_type + " against " + part.b_type;
    return part;
  }
  if (const std::optional<FormatId> id = format_of(a.dtype)) {
    compare_format(part, *id, bytes(a), bytes(b), progress);
    return part;
  }
  switch (a.dtype) {
  case io::DType::boolean:
  case io::DType::u8: compare_integers<uint8_t>(part, a, b, progress); break;
  case io::DType::i8: compare_integers<int8_t>(part, a, b, progress); break;
  case io::DType::u16: compare_integers<uint16_t>(part, a, b, progress); break;
  case io::DType::i16: compare_integers<int16_t>(part, a, b, progress); break;
  case io::DType::u32: compare_integers<uint32_t>(part, a, b, progress); break;
  case io::DType::i32: compare_integers<int32_t>(part, a, b, progress); break;
  case io::DType::u64: compare_integers<uint64_t>(part, a, b, progress); break;
  case io::DType::i64: compare_integers<int64_t>(part, a, b, progress); break;
  default: compare_bits(part, a, b, progress);
  }
  return part;
}

std::vector<PartComparison> compare_quantized(const BlockScaled &a, const BlockScaled &b,
                                              const Progress &progress) {
  std::vector<PartComparison> parts;
  const auto values_of = [&](const BlockScaled &q, double from) { // checks the sizes as well
    DequantizeOptions options;
    options.progress = between(progress, from, from + 0.2);
    return dequantize(q, options);
  };
  const std::vector<float> x = values_of(a, 0), y = values_of(b, 0.2);
  const bool alike = a.element == b.element && a.rows == b.rows && a.padded_k == b.padded_k;
  if (alike)
    parts.push_back(compare_codes("codes", a.element, {a.rows, a.padded_k}, a.codes, b.codes,
                                  between(progress, 0.4, 0.7)));
  else
    parts.push_back(unlike("codes", std::string(format(a.element).name) + " " +
                                        io::shape_text(std::vector{a.rows, a.padded_k}) + " against " +
                                        format(b.element).name + " " +
                                        io::shape_text(std::vector{b.rows, b.padded_k})));
  if (alike && a.scale == b.scale && a.block == b.block)
    parts.push_back(
        compare_codes("block_scales", a.scale, {a.rows, a.blocks()}, linear_scales(a), linear_scales(b), {}));
  else
    parts.push_back(unlike("block_scales", std::string(format(a.scale).name) + " per " +
                                               std::to_string(a.block) + " against " + format(b.scale).name +
                                               " per " + std::to_string(b.block)));
  const auto floats = [&](const char *name, std::vector<int64_t> shape_a, const auto &va,
                          std::vector<int64_t> shape_b, const auto &vb, const Progress &told = {}) {
    parts.push_back(compare_tensors(io::Tensor::from(name, std::move(shape_a), va),
                                    io::Tensor::from(name, std::move(shape_b), vb), told));
  };
  const auto one = [&](const char *name, float va, float vb) {
    floats(name, {1}, std::vector{va}, {1}, std::vector{vb});
  };
  one("global_amax", a.global_amax, b.global_amax);
  one("global_encode_scale", a.global_encode, b.global_encode);
  one("global_decode_scale", a.global_decode, b.global_decode);
  if (!a.row_amax.empty() || !b.row_amax.empty())
    floats("row_amax", {int64_t(a.row_amax.size())}, a.row_amax, {int64_t(b.row_amax.size())}, b.row_amax);
  const auto shape = [](const BlockScaled &q) {
    return q.axis == Axis::row ? std::vector{q.rows, q.k} : std::vector{q.k, q.rows};
  };
  floats("values", shape(a), x, shape(b), y, between(progress, 0.7, 1));
  return parts;
}

} // namespace nvfp4::golden
