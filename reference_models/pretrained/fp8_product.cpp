// SPDX-License-Identifier: Apache-2.0
// The rows, and both ways in which scales meet accumulators.
#include "nvfp4/reference_models/pretrained/fp8_product.hpp"

#include "nvfp4/emulator/formats/bf16.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace nvfp4::models::pretrained {
namespace {

constexpr float kLargest = 448.0f;
constexpr std::string_view kVllm = "vllm-project/vllm csrc/quantization/fp8/common.cu";

constexpr std::array kFp8Inputs{
    Fp8Inputs{.name = "fp8-static", .scope = InputScope::stored, .by_reciprocal = true, .source = kVllm},
    Fp8Inputs{.name = "fp8-tensor", .scope = InputScope::tensor, .by_reciprocal = true, .source = kVllm},
    Fp8Inputs{.name = "fp8-token",
              .scope = InputScope::token,
              .least_scale = 1.0f / (kLargest * 512.0f),
              .source = kVllm},
    Fp8Inputs{.name = "fp8-group128",
              .scope = InputScope::group,
              .group = 128,
              .least_amax = 1e-10f,
              .source = "deepseek-ai/DeepSeek-V3 inference/kernel.py act_quant, with vLLM's least amax"},
};

uint8_t code_of(float x) {
  return uint8_t(encode(FormatId::e4m3, x, Rounding::nearest_even, Overflow::satfinite));
}

/// Columns [first, first + count) of codes (rows, k).
GemmOperand columns(Side side, std::span<const uint8_t> codes, int64_t rows, int64_t k, int64_t first,
                    int64_t count) {
  std::vector<uint8_t> part;
  if (count != k) {
    part.resize(size_t(rows * count));
    for (int64_t r = 0; r < rows; ++r)
      std::copy_n(codes.data() + r * k + first, count, part.data() + r * count);
    codes = part;
  }
  return make_operand(find_unit(Fp8Product::kUnit), side, RawCodes{rows, count, codes});
}

} // namespace

std::span<const Fp8Inputs> fp8_inputs() { return kFp8Inputs; }

const Fp8Inputs *find_fp8_inputs(std::string_view name) {
  const auto at =
      std::find_if(kFp8Inputs.begin(), kFp8Inputs.end(), [&](const Fp8Inputs &r) { return r.name == name; });
  return at == kFp8Inputs.end() ? nullptr : &*at;
}

std::string fp8_inputs_names() {
  std::string names;
  for (const Fp8Inputs &r : kFp8Inputs) names.append(names.empty() ? "" : ", ").append(r.name);
  return names;
}

Fp8Quantized quantize_fp8(const Fp8Inputs &how, std::span<const float> x, int64_t rows, int64_t k,
                          float word) {
  const int64_t width = how.scope == InputScope::group ? how.group : k;
  Fp8Quantized q;
  q.groups = (k + width - 1) / width;
  q.codes.resize(x.size());
  q.scales.resize(size_t(rows * q.groups), word);
  const auto scale_of = [&](std::span<const float> part) {
    float amax = how.least_amax;
    for (const float v : part) amax = std::fmax(amax, std::fabs(v));
    return std::max(amax / kLargest, how.least_scale);
  };
  if (how.scope == InputScope::tensor) std::fill(q.scales.begin(), q.scales.end(), scale_of(x));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g < q.groups; ++g) {
      const int64_t first = r * k + g * width, n = std::min(width, k - g * width);
      const auto part = x.subspan(size_t(first), size_t(n));
      float &s = q.scales[size_t(r * q.groups + g)];
      if (how.scope == InputScope::token || how.scope == InputScope::group) s = scale_of(part);
      const float reciprocal = 1.0f / s;
      for (int64_t i = 0; i < n; ++i) {
        const float v = part[size_t(i)];
        q.codes[size_t(first + i)] = s == 0 ? 0 : code_of(how.by_reciprocal ? v * reciprocal : v / s);
      }
    }
  return q;
}

void Fp8Product::check(const checkpoint::Weight &w, const Fp8Inputs &how) {
  const std::string start = "weight " + w.name + " is " + w.kind();
  if (!w.container || w.container->element != FormatId::e4m3 ||
      w.container->scale_shape != checkpoint::ScaleShape::dense)
    throw Error(start + "; inputs " + std::string(how.name) + " go with E4M3 weights of dense scales");
  const bool tiled = w.tile_cols < w.k, grouped = how.scope == InputScope::group;
  const bool fits = !grouped ? !tiled : tiled ? w.tile_cols == how.group : w.k <= how.group;
  if (!fits)
    throw Error(start + " with one scale for " + std::to_string(std::min(w.tile_rows, w.rows)) + " x " +
                std::to_string(std::min(w.tile_cols, w.k)) + " elements; inputs " + std::string(how.name) +
                " make no product with it: give --activations " + (tiled ? "fp8-group128" : "fp8-token") +
                " or none");
  if (how.scope == InputScope::stored) {
    const std::optional<float> word = checkpoint::input_word(w, 0);
    if (!word)
      throw Error(start + " and has no input scale, which " + std::string(how.name) +
                  " needs: give --activations fp8-tensor, fp8-token or none");
    if (!(std::isfinite(*word) && *word > 0))
      throw Error(start + ": its input scale is " + std::to_string(*word) + "; expected a number above 0");
  }
}

Fp8Product::Fp8Product(const checkpoint::Weight &w, const Fp8Inputs &how, int64_t first, int64_t count)
    : how_(&how), out_(count), k_(w.k), group_(how.scope == InputScope::group ? how.group : w.k) {
  check(w, how);
  word_ = checkpoint::input_word(w, 0).value_or(1.0f);
  const std::span codes(reinterpret_cast<const uint8_t *>(w.codes->bytes.data()) + first * k_,
                        size_t(count * k_));
  for (int64_t k = 0; k < k_; k += group_)
    parts_.push_back(columns(Side::b, codes, count, k_, k, std::min(group_, k_ - k)));
  for (int64_t r = 0; r < count; ++r)
    for (int64_t k = 0; k < k_; k += group_) scales_.push_back(checkpoint::dense_scale(w, 0, first + r, k));
}

void Fp8Product::run(std::span<const float> x, int64_t rows, std::span<const float> bias, FormatId output,
                     int threads, float *y) const {
  const Fp8Quantized q = quantize_fp8(*how_, x, rows, k_, word_);
  const Unit &unit = find_unit(kUnit);
  GemmOptions options;
  options.threads = threads;
  const auto parts = int64_t(parts_.size());
  const bool tiled = how_->scope == InputScope::group;
  std::vector<float> sums(size_t(rows * out_));
  for (int64_t p = 0; p < parts; ++p) {
    const int64_t first = p * group_;
    const GemmResult acc =
        multiply(unit, columns(Side::a, q.codes, rows, k_, first, std::min(group_, k_ - first)),
                 parts_[size_t(p)], options);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < out_; ++j) {
        const float s_x = q.scales[size_t(r * q.groups + (tiled ? p : 0))],
                    s_w = scales_[size_t(j * parts + p)], a = acc.f32(r, j);
        float &sum = sums[size_t(r * out_ + j)];
        if (tiled)
          sum = std::fma(s_x * s_w, a, sum);
        else
          sum = bias.empty() ? s_x * (s_w * a) : std::fma(s_x, s_w * a, bias[size_t(j)]);
      }
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < out_; ++j) {
      float v = sums[size_t(r * out_ + j)];
      if (tiled && !bias.empty()) v += bias[size_t(j)];
      y[r * out_ + j] = output == FormatId::bf16 ? round_to_bf16(v) : v;
    }
}

} // namespace nvfp4::models::pretrained
