/* SPDX-License-Identifier: Apache-2.0
 * The same work by the C++ library. */
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void reference_quantize(const float *x, int64_t rows, int64_t cols, const char *convention, int tiled, void *codes,
                        uint8_t *scales);
/* Of two quantized matrices (m, k) and (n, k); d: (m, n) FP32 words. */
void reference_product(const char *unit, const char *convention, const float *a, int64_t m, const float *b, int64_t n,
                       int64_t k, float alpha, float beta, const float *c, uint32_t *d);

#ifdef __cplusplus
}
#endif
