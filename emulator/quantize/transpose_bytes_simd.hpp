// SPDX-License-Identifier: Apache-2.0
// A 16 x 16 tile of bytes transposed with 128-bit instructions. Included by the files of one instruction set
// each; private to each of them. Internal.
#pragma once
#include <cstdint>
#include <immintrin.h>

namespace nvfp4::quant {
namespace {

/// Four rounds of interleaving row i with row i + 8: each moves one bit of the row number into the column
/// number.
inline void transpose_bytes16(const uint8_t *x, int64_t stride, uint8_t *transposed, int64_t to_stride) {
  __m128i a[16], b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x + i * stride));
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
      b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
    }
    for (int i = 0; i < 16; ++i) a[i] = b[i];
  }
  for (int i = 0; i < 16; ++i)
    _mm_storeu_si128(reinterpret_cast<__m128i *>(transposed + i * to_stride), a[i]);
}

} // namespace
} // namespace nvfp4::quant
