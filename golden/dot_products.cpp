// SPDX-License-Identifier: Apache-2.0
// Checks the tensors of independent dot products and computes them.
#include "nvfp4/golden/dot_products.hpp"

#include "nvfp4/emulator/gemm/gemm_oracle.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <algorithm>

namespace nvfp4::golden {
namespace {

const char *word_dtype(int bits) {
  return bits <= 8 ? "U8" : bits == 16 ? "U16" : bits == 32 ? "U32" : "U64";
}

/// The float dtype of a format, where files have one; raw words are unsigned integers otherwise.
std::string_view float_dtype(FormatId id) {
  switch (id) {
  case FormatId::f16: return "F16";
  case FormatId::bf16: return "BF16";
  case FormatId::f32:
  case FormatId::tf32: return "F32";
  case FormatId::f64: return "F64";
  case FormatId::e4m3:
  case FormatId::ue4m3: return "F8_E4M3";
  case FormatId::e5m2: return "F8_E5M2";
  case FormatId::ue8m0: return "F8_E8M0";
  default: return "";
  }
}

/// A tensor of raw words of a format; checks dtype and rank.
const io::Tensor &words(const io::TensorFile &f, const char *name, FormatId id, size_t rank) {
  const io::Tensor &t = f.at(name);
  const int bits = format(id).storage_bits;
  const std::string_view dtype = io::info(t.dtype).safetensors;
  if (dtype != word_dtype(bits) && dtype != float_dtype(id))
    throw Error(io::message_prefix(f.source, name) + "expected raw words of " + word_dtype(bits) + ", got " +
                std::string(io::info(t.dtype).safetensors));
  if (t.shape.size() != rank)
    throw Error(io::message_prefix(f.source, name) + "expected rank " + std::to_string(rank) +
                ", got shape " + io::shape_text(t.shape));
  return t;
}

void expect_shape(const io::TensorFile &f, const io::Tensor &t, const std::vector<int64_t> &shape) {
  if (t.shape != shape)
    throw Error(io::message_prefix(f.source, t.name) + "expected shape " + io::shape_text(shape) + ", got " +
                io::shape_text(t.shape));
}

const uint8_t *bytes(const io::Tensor &t) { return reinterpret_cast<const uint8_t *>(t.data.data()); }

} // namespace

DotProducts dot_products(const Unit &unit, const io::TensorFile &in, Accumulation accumulation, bool exact,
                         const std::function<void(double)> &progress) {
  const UnitRule &rule = unit.rule;
  const int bits_a = format(rule.a).storage_bits, bits_b = format(rule.b).storage_bits;
  const int bits_c = format(rule.acc).storage_bits;

  for (const io::Tensor &t : in.tensors)
    if (t.name != "a" && t.name != "b" && t.name != "c" && t.name != "scale_a" && t.name != "scale_b")
      throw Error(io::message_prefix(in.source, t.name) +
                  "unknown tensor; mma reads a, b, c, scale_a and scale_b");
  const io::Tensor &a = words(in, "a", rule.a, 2), &b = words(in, "b", rule.b, 2);
  check_empty(a, in.source);
  const int64_t n = a.shape[0], k = a.shape[1] * (bits_a == 4 ? 2 : 1);
  if (k == 0 || k % rule.k != 0)
    throw Error(io::message_prefix(in.source, "a") + "K = " + std::to_string(k) +
                " is not a positive multiple of the unit's K = " + std::to_string(rule.k));
  expect_shape(in, b, {n, bits_b == 4 ? k / 2 : k});
  const io::Tensor *scale_a = nullptr, *scale_b = nullptr;
  if (rule.scale_block != 0) {
    scale_a = &words(in, "scale_a", rule.scale, 2);
    scale_b = &words(in, "scale_b", rule.scale, 2);
    expect_shape(in, *scale_a, {n, k / rule.scale_block});
    expect_shape(in, *scale_b, {n, k / rule.scale_block});
  } else if (in.find("scale_a") != nullptr || in.find("scale_b") != nullptr) {
    throw Error(io::message_prefix(in.source, "scale_a") + "unit " + unit.name() + " takes no scales");
  }
  std::vector<uint8_t> zero(size_t(n * bits_c / 8), 0);
  const uint8_t *c = zero.data();
  if (in.find("c") != nullptr) {
    const io::Tensor &t = words(in, "c", rule.acc, 1);
    expect_shape(in, t, {n});
    c = bytes(t);
  }

  std::vector<uint8_t> d(size_t(n * bits_c / 8));
  const int64_t scales = rule.scale_row(k);
  constexpr int64_t chunk = 1 << 14;
  for (int64_t first = 0; first < n; first += chunk) {
    const int64_t last = std::min(n, first + chunk);
#pragma omp parallel for schedule(dynamic, 64)
    for (int64_t i = first; i < last; ++i) {
      const DotOperands op{{bytes(a) + i * k * bits_a / 8, bits_a},
                           {bytes(b) + i * k * bits_b / 8, bits_b},
                           scale_a == nullptr ? nullptr : bytes(*scale_a) + i * scales,
                           scale_b == nullptr ? nullptr : bytes(*scale_b) + i * scales};
      const uint64_t start = CodeView{c, bits_c}[i];
      const uint64_t word =
          exact ? oracle_dot(rule, op, k, accumulation, start) : dot(rule, op, k, start, accumulation);
      std::memcpy(d.data() + i * bits_c / 8, &word, size_t(bits_c / 8));
    }
    if (progress) progress(double(last) / double(n));
  }

  DotProducts products{n, k, {}};
  io::TensorFile &out = products.file;
  const io::DType dtype = bits_c == 16 ? io::DType::u16 : bits_c == 32 ? io::DType::u32 : io::DType::u64;
  io::Tensor result{"d", dtype, {n}, std::vector<std::byte>(d.size())};
  std::memcpy(result.data.data(), d.data(), d.size());
  out.tensors.push_back(std::move(result));
  out.metadata = {{"unit", unit.name()}, {"evidence", std::string(to_string(unit.evidence))}};
  if (rule.family == Family::gst_fdpa) out.metadata["accumulation"] = std::string(to_string(accumulation));
  if (exact) out.metadata["computed_by"] = "multiprecision oracle";
  return products;
}

} // namespace nvfp4::golden
