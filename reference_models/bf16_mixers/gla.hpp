// SPDX-License-Identifier: Apache-2.0
// Chunkwise gated linear attention (Yang et al. 2023, arXiv 2312.06635) on tensor cores with BF16 operands:
// the definition, word for word, of what gpu/hopper/gla.hpp computes. Models use it under a
// recipe's "mixers": "bf16", otherwise the FP32 text (kernels/gla.hpp); GLA.md beside the kernels says where
// the two round differently.
//
// Chunks of 64 tokens, sub-chunks of 16. Decays are products of exp(g), each factor at most 1 for g <= 0:
// there is no difference of sums, so that neither a gate of -Inf nor a mild gate after it loses anything.
// Products across sub-chunks, with the states and with v are chains of the unit from +0; inside a sub-chunk
// every pair of tokens has its own decay in FP32.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace nvfp4::models::bf16_gla {

inline constexpr int64_t kChunk = 64, kSub = 16, kSubs = kChunk / kSub;
inline constexpr int64_t kPart = 32; ///< key channels of one partial sum inside a sub-chunk

/// q, k, g: (batch, length, heads, key); v, o: (batch, length, heads, value).
struct Shape {
  int64_t batch = 0, length = 0, heads = 0, key = 0, value = 0;
  float scale = 1.0f; ///< of o; key^-1/2 as a rule

  [[nodiscard]] NVFP4_HD constexpr int64_t teams() const { return batch * heads; }
  [[nodiscard]] NVFP4_HD constexpr int64_t chunks() const { return (length + kChunk - 1) / kChunk; }
  [[nodiscard]] NVFP4_HD constexpr int64_t keys() const { return batch * length * heads * key; }
  [[nodiscard]] NVFP4_HD constexpr int64_t values() const { return batch * length * heads * value; }
  /// Chunks of all teams; chunk c of team t is t * chunks() + c in everything that is kept.
  [[nodiscard]] NVFP4_HD constexpr int64_t all_chunks() const { return teams() * chunks(); }
};

/// Throws Error unless key and value are multiples of 16 from 16 to 256, every size is at least 1, and rows
/// (batch x length), teams (batch x heads) and chunks of all teams are fewer than 2^31.
void check(const Shape &shape);

struct Inputs {
  std::span<const uint16_t> q, k, v; ///< BF16
  std::span<const float> g;          ///< log gates, at most 0
};

/// o_t = scale q_t S_t with S_t = diag(exp g_t) S_{t-1} + k_t^T v_t, and what backward needs. Rows beyond the
/// length count as q = k = v = g = 0.
struct Forward {
  std::vector<float> o;            // as v
  std::vector<uint16_t> q_decayed; // (all_chunks, 64, key): q with the decay since the chunk's start
  std::vector<uint16_t> k_decayed; // (all_chunks, 64, key): k with the decay to the chunk's end
  std::vector<float> decay;        // (all_chunks, key): of a whole chunk
  std::vector<uint16_t> scores;    // (all_chunks, 64, 64): zeros above the diagonal
  std::vector<uint16_t> states;    // (all_chunks, key, value): the state before the chunk, rounded
};

struct Backward {
  std::vector<float> dq, dk, dg; // as q
  std::vector<float> dv;         // as v
  std::vector<uint16_t>
      state_grads;                // (all_chunks, key, value): of the state after the chunk / scale, rounded
  std::vector<float> score_grads; // (all_chunks, 64, 64): do v^T, zeros above the diagonal
};

/// Throws Error unless the shape is one, the inputs fit it and the unit has BF16 operands and FP32
/// accumulators: called by forward and backward.
void check(const Shape &shape, const Inputs &in, const Unit &unit);

/// Throws Error for a shape or arrays that do not fit. The unit has BF16 operands and FP32 accumulators.
/// Uses all OpenMP threads over teams; the bits do not depend on their number, nor on isa (empty: the best
/// that the CPU has).
[[nodiscard]] Forward forward(const Shape &shape, const Inputs &in, const Unit &unit,
                              std::optional<Isa> isa = {});

/// grad_o: BF16, as v. dg_t is the sum over i >= t of q_i dq_i - k_i dk_i, carried from chunk to chunk as the
/// product of the state after the chunk with its gradient (as in flash-linear-attention).
[[nodiscard]] Backward backward(const Shape &shape, const Inputs &in, std::span<const uint16_t> grad_o,
                                const Forward &saved, const Unit &unit, std::optional<Isa> isa = {});

} // namespace nvfp4::models::bf16_gla
