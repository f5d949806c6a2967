// SPDX-License-Identifier: Apache-2.0
// Operands for comparing attention kernels with their definition, made from a seed alone, and a digest of
// what came out: a machine without the GPU can repeat a case that a GPU computed. Internal.
#pragma once
#include "nvfp4/reference_models/kernels/digest.hpp"
#include "nvfp4/reference_models/bf16_mixers/attention.hpp"
#include "nvfp4/reference_models/bf16_mixers/attention_math.hpp"

namespace nvfp4::models::tensorcore {

/// How operands are distributed. `normal`: variance 1. `peaked`: queries 16 times as large, so that few keys
/// share a row's weight and running maxima move by large steps. `special`: normal with a few Inf and NaN.
enum class Values : uint8_t { normal, peaked, special };
inline constexpr const char *kValueNames[] = {"normal", "peaked", "special"};

struct AttentionCase {
  AttentionShape shape;
  Values values = Values::normal;
};

struct AttentionOperands {
  std::vector<uint16_t> q, k, v, grad_o;
};

/// Sums of four uniforms with unit variance, times `factor`, as BF16. One in `one_in` is Inf or NaN, 0: none.
inline std::vector<uint16_t> case_values(uint64_t seed, int64_t count, float factor, uint64_t one_in = 0) {
  std::vector<uint16_t> words(static_cast<size_t>(count));
#pragma omp parallel for
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t random = mix64(uint64_t(i + 1) * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u);
    float sum = -262140.0f;
    for (int part = 0; part < 4; ++part) sum += float(2 * (random >> 16 * part & 0xFFFF));
    uint16_t word = bf16_word(sum * (1.7320508f / 131072.0f) * factor);
    if (one_in != 0 && mix64(random) % one_in == 0) {
      const uint16_t kinds[] = {0x7F80, 0xFF80, 0x7FC0};
      word = kinds[random % 3];
    }
    words[size_t(i)] = word;
  }
  return words;
}

inline AttentionOperands make_operands(const AttentionCase &x) {
  const int64_t q = x.shape.q_elements(), kv = x.shape.kv_elements();
  const bool special = x.values == Values::special; // a special key spoils all rows behind it: fewer of them
  return {case_values(1, q, x.values == Values::peaked ? 16.0f : 1.0f, special ? 20011 : 0),
          case_values(2, kv, 1.0f, special ? 200003 : 0), case_values(3, kv, 1.0f, special ? 20011 : 0),
          case_values(4, q, 1.0f)};
}

/// The sum modulo 2^64 of a mix of every word with its index, as kernels/digest.hpp has it.
template <class T> uint64_t digest_of(const std::vector<T> &x) {
  uint64_t sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    uint64_t word = 0;
    if constexpr (sizeof(T) == 4)
      word = __builtin_bit_cast(uint32_t, x[i]);
    else
      word = x[i];
    sum += mix64(word + uint64_t(i + 1) * 0x9E3779B97F4A7C15u);
  }
  return sum;
}

} // namespace nvfp4::models::tensorcore
