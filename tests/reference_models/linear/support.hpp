// SPDX-License-Identifier: Apache-2.0
// What the tests of linear layers share: a group of layers with random tensors, its products composed by hand
// from the emulator's public functions, and exact products in double precision.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/global_alpha.hpp"
#include "nvfp4/reference_models/linear/linear.hpp"
#include "tests/catch.hpp"

#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

namespace nvfp4::test {

using namespace nvfp4::models;
using Floats = std::vector<float>;

/// About normal, the same with every standard library.
inline Floats normal(int64_t n, double sigma, uint64_t seed) {
  std::mt19937_64 engine(seed);
  Floats x(static_cast<size_t>(n));
  for (float &v : x) {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += double(engine() >> 11) * 0x1p-53;
    v = float(sigma * sum);
  }
  return x;
}

/// A recipe whose linear layers all take one of a built-in recipe's linears.
inline Recipe uniform_recipe(const std::string &name, const std::string &linear) {
  Recipe r = load_recipe(name);
  r.rules.clear();
  r.default_linear = linear;
  return r;
}

/// A group of layers with tensors of its own.
struct Group {
  int64_t rows, in;
  std::vector<int64_t> outs;
  std::vector<std::string> roles = {}; ///< of the layers; empty: all are attn.q_proj
  Floats x, dx;
  std::vector<Floats> weights, biases, weight_grads, bias_grads, y, dy;
  std::unique_ptr<Backend<float>> backend;
  std::unique_ptr<OperandEngine> engine;
  std::unique_ptr<LinearGroup<float>> layers;

  Group(const Recipe &recipe, int64_t tokens, int64_t inputs, std::vector<int64_t> outputs, uint64_t seed = 1,
        bool bias = false, int threads = 1, std::optional<Isa> isa = {})
      : rows(tokens), in(inputs), outs(std::move(outputs)), x(normal(rows * in, 1, seed)), dx(x.size()),
        backend(make_cpu_backend(threads, isa)), engine(make_cpu_operand_engine(threads, isa)) {
    for (size_t i = 0; i < outs.size(); ++i) {
      const uint64_t s = seed * 100 + 10 * i;
      weights.push_back(normal(outs[i] * in, 0.05, s + 1));
      biases.push_back(bias ? normal(outs[i], 0.3, s + 2) : Floats{});
      weight_grads.push_back(normal(outs[i] * in, 1e-3, s + 3)); // what earlier micro-batches left
      bias_grads.push_back(Floats(size_t(outs[i]), 0.25f));
      dy.push_back(normal(rows * outs[i], 1e-3, s + 4));
      y.emplace_back(size_t(rows * outs[i]));
    }
    bind(recipe);
  }
  void bind(const Recipe &recipe) {
    std::vector<LinearWeight<float>> members;
    for (size_t i = 0; i < outs.size(); ++i)
      members.push_back({.role = roles.empty() ? "attn.q_proj" : roles[i],
                         .layer = 0,
                         .layers = 4,
                         .in = in,
                         .out = outs[i],
                         .weight = weights[i].data(),
                         .bias = biases[i].empty() ? nullptr : biases[i].data(),
                         .weight_grad = weight_grads[i].data(),
                         .bias_grad = biases[i].empty() ? nullptr : bias_grads[i].data(),
                         .id = 7 + i});
    layers = std::make_unique<LinearGroup<float>>(*backend, engine.get(), members, recipe);
  }
  void forward(const StepContext &step) {
    std::vector<float *> to;
    for (Floats &v : y) to.push_back(v.data());
    layers->forward(step, x.data(), rows, to);
  }
  void backward(const StepContext &step) {
    std::vector<const float *> from;
    for (const Floats &v : dy) from.push_back(v.data());
    layers->backward(step, x.data(), rows, from, dx.data());
  }
  [[nodiscard]] uint64_t digest() const {
    uint64_t h = 0;
    const auto add = [&h](const Floats &v) {
      for (const float f : v) h = splitmix64(h ^ bit_cast<uint32_t>(f));
    };
    add(dx);
    for (size_t i = 0; i < outs.size(); ++i)
      for (const Floats *v : {&y[i], &weight_grads[i], &bias_grads[i]}) add(*v);
    return h;
  }
};

inline Floats in_bf16(Floats x) {
  for (float &v : x) v = round_to_bf16(v);
  return x;
}

/// An operand quantized by hand: x (rows, cols) holds values of the source type.
inline BlockScaled quantize_by_hand(const OperandRecipe &recipe, const Floats &x, int64_t rows, Axis axis,
                                    RandomKey key, FormatId source = FormatId::bf16) {
  const int64_t cols = int64_t(x.size()) / rows;
  return quantize({x.data(), rows, cols}, find_convention(recipe.convention),
                  {.axis = axis,
                   .block_rows = recipe.block_rows,
                   .rounding = recipe.rounding,
                   .key = key,
                   .hadamard = recipe.hadamard,
                   .source = source});
}

inline GemmOperand pack_by_hand(const Unit &unit, Side side, const BlockScaled &q) {
  return make_operand(unit, side, RawCodes{q.rows, q.padded_k, q.codes},
                      RawScales(q.scales, ScaleLayout::linear));
}

/// BF16 words of x (rows, cols), or of its transpose.
inline GemmOperand pack_bf16_by_hand(const Unit &unit, Side side, const Floats &x, int64_t rows, Axis axis) {
  const int64_t cols = int64_t(x.size()) / rows, m = axis == Axis::row ? rows : cols,
                k = axis == Axis::row ? cols : rows;
  std::vector<uint8_t> words(size_t(2 * m * k));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < k; ++j) {
      const float v = axis == Axis::row ? x[size_t(i * cols + j)] : x[size_t(j * cols + i)];
      const uint16_t word = uint16_t(encode(FormatId::bf16, v, Rounding::nearest_even, Overflow::ieee));
      std::memcpy(words.data() + 2 * (i * k + j), &word, 2);
    }
  return make_operand(unit, side, RawCodes{m, k, words});
}

/// The mean of each column: 32 partial sums, then a butterfly, as reference_models/README.md says of bias gradients.
inline Floats means_by_hand(const Floats &x, int64_t rows) {
  const auto cols = int64_t(x.size()) / rows;
  Floats means;
  for (int64_t c = 0; c < cols; ++c) {
    std::array<float, 32> part{};
    for (int64_t r = 0; r < rows; ++r) part[size_t(r % 32)] += x[size_t(r * cols + c)];
    for (size_t half = 16; half > 0; half /= 2)
      for (size_t i = 0; i < half; ++i) part[i] += part[i + half];
    means.push_back(part[0] / float(rows));
  }
  return means;
}

/// D as FP32 values.
inline Floats values_of(const GemmResult &d) {
  Floats out;
  for (int64_t i = 0; i < d.m; ++i)
    for (int64_t j = 0; j < d.n; ++j) out.push_back(d.f32(i, j));
  return out;
}

/// One product by hand. a and b are in the source type; `c`: added to with beta = 1 and FP32 output.
inline Floats product_by_hand(const GemmRecipe &g, const Floats &a, int64_t a_rows, Axis a_axis,
                              RandomKey a_key, const Floats &b, int64_t b_rows, Axis b_axis, RandomKey b_key,
                              const Floats &c = {}) {
  const Unit &unit = find_unit(g.unit);
  GemmOptions options{.beta = c.empty() ? 0.0f : 1.0f, .out = c.empty() ? g.output : FormatId::f32};
  const std::span<const uint8_t> c_words{reinterpret_cast<const uint8_t *>(c.data()), 4 * c.size()};
  if (g.a.format == OperandFormat::bf16)
    return values_of(GemmPlan(unit, options)
                         .run(pack_bf16_by_hand(unit, Side::a, a, a_rows, a_axis),
                              pack_bf16_by_hand(unit, Side::b, b, b_rows, b_axis), {.c = c_words}));
  const BlockScaled qa = quantize_by_hand(g.a, a, a_rows, a_axis, a_key);
  const BlockScaled qb = quantize_by_hand(g.b, b, b_rows, b_axis, b_key);
  options.alpha = global_alpha(qa, qb, 1.0f, AlphaRule::by_convention);
  return values_of(
      GemmPlan(unit, options)
          .run(pack_by_hand(unit, Side::a, qa), pack_by_hand(unit, Side::b, qb), {.c = c_words}));
}

inline bool same_bits(const Floats &a, const Floats &b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

/// a (m, k) times b (n, k) transposed, in double.
template <class A, class B> std::vector<double> exact_product(const A &a, const B &b, int64_t k) {
  const int64_t m = int64_t(a.size()) / k, n = int64_t(b.size()) / k;
  std::vector<double> d(size_t(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t q = 0; q < k; ++q)
        d[size_t(i * n + j)] += double(a[size_t(i * k + q)]) * double(b[size_t(j * k + q)]);
  return d;
}

template <class A, class B> double mean_square_error(const A &a, const B &b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
  return sum / double(a.size());
}

} // namespace nvfp4::test
