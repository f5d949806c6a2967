// SPDX-License-Identifier: Apache-2.0
// The order in which cuBLASLt accumulates on Hopper, as a model on the CPU's exact units: what
// nvfp4-gpu probe cublaslt-order compares with the library. Found by experiment on an H200; see
// golden/evidence/h200-cublaslt-order.txt.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/emulator/gemm/epilogue.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nvfp4::probe {

/// Operands of rows of k codes, BF16 or E4M3.
struct Codes {
  FormatId format;
  int64_t rows, k;
  std::vector<uint8_t> bytes;
  [[nodiscard]] int64_t width() const { return format == FormatId::bf16 ? 2 : 1; }
};

/// How values are made. `staggered`: the magnitude changes at random every 32 elements of K, so that FP32
/// sums of parts are inexact.
enum class Values : uint8_t { normal, staggered };

inline uint32_t random_word(uint64_t seed, uint64_t i) {
  uint64_t x = (i + 1) * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return uint32_t(x >> 32);
}

/// Sum of four uniforms, scaled to unit variance.
inline float bell(uint64_t seed, uint64_t i) {
  float sum = 0;
  for (uint64_t j = 0; j < 4; ++j) sum += float(random_word(seed, 4 * i + j) >> 8) * 0x1p-24f - 0.5f;
  return sum * 1.7320508f;
}

[[nodiscard]] inline Codes make(FormatId f, int64_t rows, int64_t k, Values values, uint64_t seed) {
  Codes x{f, rows, k, {}};
  x.bytes.resize(size_t(rows * k * x.width()));
#pragma omp parallel for
  for (int64_t i = 0; i < rows * k; ++i) {
    const int shift =
        values == Values::normal ? 0 : 4 - int(random_word(seed + 10, uint64_t(i % k / 32)) % 9);
    const uint64_t code = encode(f, std::ldexp(bell(seed, uint64_t(i)), shift));
    std::memcpy(x.bytes.data() + i * x.width(), &code, size_t(x.width()));
  }
  return x;
}

struct Model {
  const Unit *unit;   ///< the instruction that is chained
  int64_t part;       ///< elements of a part of K; the last may be shorter
  int64_t chain;      ///< elements of a chain within a part
  int64_t first_tile; ///< 0, or the K of a tile: what is left over of a part comes first, padded to a tile
  bool reversed;      ///< add parts, and chains within a part, in decreasing K
  auto operator<=>(const Model &) const = default;
};

/// What the kernels of an algorithm do. `algorithm`: cuBLASLt's id. Id 66 are the nvjet kernels: wgmma, K cut
/// into steps of 64 (BF16) or 128 (FP8) elements; without fast accumulation FP8 chains end every 128
/// elements. Id 24 are CUTLASS's kernels for rows that are not 16-byte aligned: mma.m16n8k8, K cut into steps
/// of 8, tiles of 32 with the odd one first.
[[nodiscard]] inline Model model_of(int algorithm, FormatId format, bool fast_accumulation, int64_t k,
                                    int split) {
  const bool bf16 = format == FormatId::bf16, mma = algorithm == 24;
  const Unit &unit = find_unit(mma    ? "sm_90:mma.m16n8k8.f32.bf16"
                               : bf16 ? "sm_90:wgmma.k16.f32.bf16"
                                      : "sm_90:wgmma.k32.f32.e4m3");
  const int64_t step = mma ? 8 : bf16 ? 64 : 128, steps = (k + step - 1) / step, parts = std::max(split, 1);
  const int64_t part = std::min(k, (steps + parts - 1) / parts * step);
  return {&unit, part, bf16 || fast_accumulation ? part : std::min<int64_t>(part, 128), mma ? 32 : 0, false};
}

/// One chain over elements [from, to) of K: the accumulators of every output.
[[nodiscard]] inline std::vector<float> chain(const Model &model, const Codes &a, const Codes &b,
                                              int64_t from, int64_t to) {
  const int64_t left = model.first_tile == 0 ? 0 : (to - from) % model.first_tile;
  const int64_t gap = left == 0 ? 0 : model.first_tile - left, length = to - from + gap;
  const auto pack = [&](const Codes &x, Side side) {
    const int64_t width = x.width();
    std::vector<uint8_t> part(size_t(x.rows * length * width));
#pragma omp parallel for
    for (int64_t r = 0; r < x.rows; ++r) {
      const uint8_t *row = x.bytes.data() + (r * x.k + from) * width;
      uint8_t *out = part.data() + r * length * width;
      std::memcpy(out, row, size_t(left * width));
      std::memcpy(out + (left + gap) * width, row + left * width, size_t((to - from - left) * width));
    }
    return make_operand(*model.unit, side, RawCodes{x.rows, length, part});
  };
  std::vector<uint64_t> words(size_t(a.rows * b.rows));
  GemmPlan(*model.unit, {}).accumulate(pack(a, Side::a), pack(b, Side::b), words);
  std::vector<float> out(words.size());
#pragma omp parallel for
  for (size_t i = 0; i < out.size(); ++i) out[i] = bit_cast<float>(uint32_t(words[i]));
  return out;
}

/// [from, to) cut into pieces of `length`, each computed by `piece`, and their sum in increasing or
/// decreasing order.
template <class Piece>
std::vector<float> add_pieces(int64_t from, int64_t to, int64_t length, bool reversed, const Piece &piece) {
  const int64_t pieces = (to - from + length - 1) / length;
  std::vector<float> sum;
  for (int64_t i = 0; i < pieces; ++i) {
    const int64_t start = from + (reversed ? pieces - 1 - i : i) * length;
    std::vector<float> next = piece(start, std::min(to, start + length));
    if (i == 0) {
      sum = std::move(next);
      continue;
    }
#pragma omp parallel for
    for (size_t j = 0; j < sum.size(); ++j) sum[j] += next[j];
  }
  return sum;
}

/// D of the model, alpha = 1 and no C.
[[nodiscard]] inline std::vector<float> predict(const Model &model, const Codes &a, const Codes &b,
                                                bool bf16_out) {
  std::vector<float> sum = add_pieces(0, a.k, model.part, model.reversed, [&](int64_t from, int64_t to) {
    return add_pieces(from, to, model.chain, model.reversed,
                      [&](int64_t start, int64_t end) { return chain(model, a, b, start, end); });
  });
  if (bf16_out)
    for (float &x : sum) x = round_to_bf16(x);
  return sum;
}

/// Outputs whose words differ.
[[nodiscard]] inline int64_t different(const std::vector<float> &x, const std::vector<float> &y) {
  int64_t n = 0;
#pragma omp parallel for reduction(+ : n)
  for (size_t i = 0; i < x.size(); ++i) n += bit_cast<uint32_t>(x[i]) != bit_cast<uint32_t>(y[i]);
  return n;
}

} // namespace nvfp4::probe
