// SPDX-License-Identifier: Apache-2.0
// Loops without branches for the common epilogues, finish_output() one by one for the others.
#include "nvfp4/emulator/gemm/epilogue_row.hpp"

#include <cstring>

namespace nvfp4::gemm {
namespace {

/// Outputs that have alpha and beta only.
template <FormatId to, class Word>
void blend_row(const uint32_t *acc, int64_t n, const RowTerms &t, uint8_t *out) {
  for (int64_t o = 0; o < n; ++o) {
    float source = 0.0f;
    if (t.beta != 0.0f) std::memcpy(&source, t.c + 4 * o, 4);
    const Word word = Word(round_output(to, blend(t.alpha, bit_cast<float>(acc[o]), t.beta, source)));
    std::memcpy(out + o * int64_t(sizeof word), &word, sizeof word);
  }
}

void any_row(const uint32_t *acc, int64_t n, const RowTerms &t, uint8_t *out) {
  const size_t width = size_t(format(t.out).storage_bits / 8);
  for (int64_t o = 0; o < n; ++o) {
    OutputTerms one{.out = t.out, .alpha = t.alpha, .beta = t.beta};
    if (t.beta != 0.0f) std::memcpy(&one.c, t.c + 4 * o, 4);
    float factor = 1.0f;
    if (t.row_factor != nullptr || t.column_factors != nullptr) {
      factor = joint_factor(t.row_factor, t.column_factors == nullptr ? nullptr : t.column_factors + o);
      one.factor = &factor;
    }
    if (t.bias != nullptr) one.bias = t.bias + o;
    const uint64_t word = finish_output(one, FormatId::f32, acc[o]);
    std::memcpy(out + size_t(o) * width, &word, width);
  }
}

} // namespace

void epilogue_row(const uint32_t *acc, int64_t n, const RowTerms &t, uint8_t *out) {
  if (t.row_factor != nullptr || t.column_factors != nullptr || t.bias != nullptr)
    return any_row(acc, n, t, out);
  switch (t.out) {
  case FormatId::f32:
    // multiplying by 1 changes nothing, and an accumulator's NaN is already FP32's canonical one
    if (t.alpha == 1.0f && t.beta == 0.0f)
      std::memcpy(out, acc, size_t(n) * 4);
    else
      blend_row<FormatId::f32, uint32_t>(acc, n, t, out);
    return;
  case FormatId::bf16: return blend_row<FormatId::bf16, uint16_t>(acc, n, t, out);
  default: return blend_row<FormatId::f16, uint16_t>(acc, n, t, out);
  }
}

} // namespace nvfp4::gemm
