// SPDX-License-Identifier: Apache-2.0
// Softmax attention as a kernel on Hopper's tensor cores computes it, defined on the CPU to the last bit:
// operands BF16, products chains of `sm_90:wgmma.k16.f32.bf16`, everything between them single FP32
// operations. gpu/hopper/ATTENTION.md says the same in formulas. Models use it
// under a recipe's "mixers": "bf16"; otherwise their attention is FP32 throughout.
#pragma once
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/emulator/cpu/isa.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace nvfp4::models::tensorcore {

/// Query head h reads key head h / (heads / kv_heads).
struct AttentionShape {
  int64_t batch, length, heads, kv_heads, dim;
  bool causal = true;
  float scale = 0; ///< of the logits; 0 stands for dim^-1/2, rounded to FP32

  [[nodiscard]] int64_t group() const { return heads / kv_heads; }
  [[nodiscard]] int64_t q_elements() const { return batch * length * heads * dim; }
  [[nodiscard]] int64_t kv_elements() const { return batch * length * kv_heads * dim; }
  [[nodiscard]] int64_t rows() const { return batch * heads * length; }
  [[nodiscard]] float logit_scale() const;
};

/// Throws Error unless dim is 64 or 128, heads a multiple of kv_heads, sizes positive and below 2^31, scale
/// finite and not negative.
void check_shape(const char *caller, const AttentionShape &shape);

/// What forward gives. o: BF16 words (batch, length, heads, dim); o32: the same before the rounding;
/// lse2: (batch, heads, length), log2 of the sum over keys of 2^(logit * log2 e). NaN is 0x7FFF and
/// 0x7FFFFFFF.
struct AttentionOutput {
  std::vector<uint16_t> o;
  std::vector<float> o32, lse2;
};

/// FP32 words, laid out as q, k and v.
struct AttentionGradients {
  std::vector<float> q, k, v;
  std::vector<float> d; ///< (batch, heads, length): sum over dim of grad_o * o
};

/// q: BF16 words (batch, length, heads, dim); k, v: (batch, length, kv_heads, dim). Inf and NaN are allowed:
/// a row meets all keys of its blocks of 128, masked ones with weight 0. Bits do not depend on threads
/// or isa (empty: the best that the CPU has).
[[nodiscard]] AttentionOutput attention_forward(const AttentionShape &shape, std::span<const uint16_t> q,
                                                std::span<const uint16_t> k, std::span<const uint16_t> v,
                                                std::optional<Isa> isa = {});

/// o and lse2 are forward's, grad_o BF16 words like o.
[[nodiscard]] AttentionGradients attention_backward(const AttentionShape &shape, std::span<const uint16_t> q,
                                                    std::span<const uint16_t> k, std::span<const uint16_t> v,
                                                    std::span<const uint16_t> o, std::span<const float> lse2,
                                                    std::span<const uint16_t> grad_o,
                                                    std::optional<Isa> isa = {});

} // namespace nvfp4::models::tensorcore
