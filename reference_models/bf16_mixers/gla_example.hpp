// SPDX-License-Identifier: Apache-2.0
// Inputs for GLA on tensor cores that are the same everywhere: made from integers, so that a test on a CPU
// and a program on a GPU can compare digests. Internal.
#pragma once
#include "nvfp4/reference_models/bf16_mixers/chain.hpp"
#include "nvfp4/reference_models/bf16_mixers/gla.hpp"

namespace nvfp4::models::bf16_gla {

/// How log gates are drawn: `mild`, from [-1/8, 0]; `strong`, from [-8, 0]; `resets`, mild but for one token
/// in eight, which has -30 to -100 in three channels of four and -Inf in the fourth; `none`, 0.
enum class Gates : uint8_t { mild, strong, resets, none };

struct Example {
  Shape shape;
  std::vector<uint16_t> q, k, v, grad_o;
  std::vector<float> g;

  [[nodiscard]] Inputs inputs() const { return {q, k, v, g}; }
};

/// Element i of stream `stream`: 32 bits.
[[nodiscard]] inline uint32_t example_word(uint64_t seed, uint64_t stream, uint64_t i) {
  uint64_t x = (i + 1) * 0x9E3779B97F4A7C15u + (seed * 8 + stream) * 0xD1B54A32D192ED03u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return uint32_t(x >> 32);
}

/// Values about 1 in size: sums of two uniforms, rounded to BF16. scale is 1 / 2^ceil(log2(key) / 2).
[[nodiscard]] inline Example make_example(Shape shape, Gates gates, uint64_t seed) {
  shape.scale = 1.0f;
  while (shape.scale * shape.scale * float(shape.key) > 1.0f) shape.scale *= 0.5f;
  Example x{shape, {}, {}, {}, {}, {}};
  const auto fill = [&](std::vector<uint16_t> &to, int64_t count, uint64_t stream) {
    to.resize(size_t(count));
    for (size_t i = 0; i < to.size(); ++i) {
      const uint32_t w = example_word(seed, stream, i);
      to[i] = bf16_word(float(int32_t(w & 0xFFFF) + int32_t(w >> 16) - 0x10000) * 0x1p-15f);
    }
  };
  fill(x.q, shape.keys(), 0), fill(x.k, shape.keys(), 1);
  fill(x.v, shape.values(), 2), fill(x.grad_o, shape.values(), 3);
  x.g.resize(size_t(shape.keys()));
  const auto width = uint64_t(shape.heads * shape.key);
  for (size_t i = 0; i < x.g.size(); ++i) {
    const float unit = float(example_word(seed, 4, i) >> 8) * 0x1p-24f;
    const bool reset = gates == Gates::resets && example_word(seed, 5, i / width) % 8 == 0;
    x.g[i] = gates == Gates::none ? 0.0f : gates == Gates::strong ? -8.0f * unit : -0.125f * unit;
    if (reset) x.g[i] = i % 4 == 3 ? bit_cast<float>(0xFF800000u) : -30.0f - 70.0f * unit;
  }
  return x;
}

} // namespace nvfp4::models::bf16_gla
