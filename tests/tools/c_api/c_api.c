/* SPDX-License-Identifier: Apache-2.0
 * The C interface from C99: the same words as the C++ library on strided buffers and both scale layouts, and a message
 * for every wrong argument. */
#include "nvfp4/nvfp4.h"
#include "tests/tools/c_api/reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;
#define CHECK(condition)                                                                                               \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                  \
      ++failures;                                                                                                      \
    }                                                                                                                  \
  } while (0)

/* BAD_INPUT with a text that names what is wrong */
#define CHECK_REFUSED(call, part)                                                                                      \
  do {                                                                                                                 \
    nvfp4_message message;                                                                                             \
    CHECK((call) == NVFP4_BAD_INPUT);                                                                                  \
    if (strstr(message.text, part) == NULL) {                                                                          \
      fprintf(stderr, "%s:%d: '%s' does not say '%s'\n", __FILE__, __LINE__, message.text, part);                      \
      ++failures;                                                                                                      \
    }                                                                                                                  \
  } while (0)

enum { M = 19, N = 21, K = 80, STRIDE = 96 };
static const char UNIT[] = "sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16";

/* Outliers, zeros, a whole zero block, tiny values, both signs. */
static void fill(float *x, int64_t n, uint32_t seed) {
  for (int64_t i = 0; i < n; ++i) {
    seed = seed * 1664525u + 1013904223u;
    const float unit = (float)(int32_t)(seed >> 8) / 8388608.0f - 1.0f;
    x[i] = i % 37 == 0 ? 900.0f * unit : i % 11 == 0 ? 0.0f : i % 13 == 0 ? 1e-30f * unit : unit;
    if (i >= 16 && i < 32) x[i] = 0.0f;
  }
}

static float a[M * STRIDE], b[N * K], dense_a[M * K];

typedef struct quantized {
  uint8_t codes[64 * K], scales[4096];
  nvfp4_operand operand;
} quantized;

static void make(quantized *q, const float *x, int64_t rows, int64_t stride, nvfp4_scale_layout layout, int rotate) {
  nvfp4_quantizer options = nvfp4_default_quantizer("te");
  nvfp4_message message;
  options.scale_layout = layout;
  options.rotate = rotate;
  CHECK(nvfp4_quantize(&options, "f32", rows, K, x, stride, q->codes, sizeof q->codes, q->scales, sizeof q->scales, NULL,
                       &q->operand, &message) == NVFP4_OK);
  CHECK(message.text[0] == '\0');
}

static void test_quantize(void) {
  for (int tiled = 0; tiled < 2; ++tiled) {
    static quantized q;
    static uint8_t codes[sizeof q.codes], scales[sizeof q.scales];
    nvfp4_quantizer options = nvfp4_default_quantizer("te");
    int64_t code_bytes = -1, scale_bytes = -1;
    options.scale_layout = tiled ? NVFP4_SCALES_TILED_128X4 : NVFP4_SCALES_LINEAR;
    CHECK(nvfp4_quantized_size(&options, M, K, &code_bytes, &scale_bytes, NULL) == NVFP4_OK);
    CHECK(code_bytes == M * K / 2);
    CHECK(scale_bytes == (tiled ? 128 * 8 : M * K / 16));
    make(&q, a, M, STRIDE * sizeof(float), options.scale_layout, 0);
    reference_quantize(dense_a, M, K, "te", tiled, codes, scales);
    CHECK(memcmp(q.codes, codes, (size_t)code_bytes) == 0);
    CHECK(memcmp(q.scales, scales, (size_t)scale_bytes) == 0);
    CHECK(q.operand.rows == M && q.operand.k == K && strcmp(q.operand.element, "e2m1") == 0);
    CHECK(strcmp(q.operand.scale, "ue4m3") == 0 && q.operand.block == 16);

    nvfp4_operand ignored;
    CHECK_REFUSED(nvfp4_quantize(&options, "f32", M, K, a, 0, codes, code_bytes - 1, scales, scale_bytes, NULL, &ignored,
                                 &message),
                  "codes has");
    CHECK_REFUSED(nvfp4_quantize(&options, "f32", M, K, a, 0, codes, code_bytes, scales, scale_bytes - 1, NULL, &ignored,
                                 &message),
                  "scales has");
  }

  nvfp4_quantizer options = nvfp4_default_quantizer("te");
  int64_t bytes = 0;
  nvfp4_operand ignored;
  CHECK_REFUSED(nvfp4_quantized_size(&options, -1, K, &bytes, &bytes, &message), "negative");
  CHECK_REFUSED(nvfp4_quantized_size(&options, INT64_MAX, INT64_MAX, &bytes, &bytes, &message), "bytes");
  CHECK_REFUSED(nvfp4_quantize(&options, "f32", M, K, a, 3, NULL, 1 << 20, NULL, 1 << 20, NULL, &ignored, &message), "stride");
  CHECK_REFUSED(nvfp4_quantize(&options, "f32", M, K, NULL, 0, NULL, 1 << 20, NULL, 1 << 20, NULL, &ignored, &message), "x is NULL");
  CHECK_REFUSED(nvfp4_quantize(&options, "e4m3", M, K, a, 0, NULL, 1 << 20, NULL, 1 << 20, NULL, &ignored, &message), "expected f32");
  options.convention = "nvfp5";
  CHECK_REFUSED(nvfp4_quantized_size(&options, M, K, &bytes, &bytes, &message), "nvfp5");
  options.convention = NULL;
  CHECK_REFUSED(nvfp4_quantized_size(&options, M, K, &bytes, &bytes, &message), "convention");
}

static quantized qa, qb;
static uint32_t want[M * N], c_words[M * N];

static void test_gemm(void) {
  enum { D_STRIDE = N + 5 };
  static uint32_t d[M * D_STRIDE], dense[M * N];
  float c[M * N];
  fill(c, M * N, 3);
  memcpy(c_words, c, sizeof c);
  make(&qa, a, M, STRIDE * sizeof(float), NVFP4_SCALES_LINEAR, 0);
  make(&qb, b, N, 0, NVFP4_SCALES_TILED_128X4, 0);
  reference_product(UNIT, "te", dense_a, M, b, N, K, 0.75f, -1.5f, c, want);

  nvfp4_product p = nvfp4_default_product(UNIT);
  p.alpha = 0.75f;
  p.beta = -1.5f;
  p.c = c_words;
  for (int exact = 0; exact < 2; ++exact) {
    p.exact = exact;
    memset(d, 0xA5, sizeof d);
    CHECK(nvfp4_gemm(&p, &qa.operand, &qb.operand, d, D_STRIDE * 4, NULL) == NVFP4_OK);
    for (int i = 0; i < M; ++i) {
      CHECK(memcmp(d + i * D_STRIDE, want + i * N, N * 4) == 0);
      for (int j = N; j < D_STRIDE; ++j) CHECK(d[i * D_STRIDE + j] == 0xA5A5A5A5u); /* what is not ours stays */
    }
  }
  p.exact = 0;

  /* scales that come strided and in the other layout are the same operand */
  static quantized strided;
  make(&strided, a, M, STRIDE * sizeof(float), NVFP4_SCALES_LINEAR, 0);
  for (int i = M - 1; i >= 0; --i) memmove(strided.scales + i * 16, strided.scales + i * (K / 16), K / 16);
  strided.operand.scales_stride = 16;
  CHECK(nvfp4_gemm(&p, &strided.operand, &qb.operand, dense, 0, NULL) == NVFP4_OK);
  CHECK(memcmp(dense, want, sizeof want) == 0);

  static quantized rotated;
  make(&rotated, b, N, 0, NVFP4_SCALES_LINEAR, 1);
  CHECK_REFUSED(nvfp4_gemm(&p, &qa.operand, &rotated.operand, dense, 0, &message), "rotate");
  nvfp4_operand odd = qb.operand;
  odd.k = K - 16;
  CHECK_REFUSED(nvfp4_gemm(&p, &qa.operand, &odd, dense, 0, &message), "K = ");
  odd = qb.operand;
  odd.element = "e4m3";
  odd.codes_stride = 0;
  CHECK_REFUSED(nvfp4_gemm(&p, &qa.operand, &odd, dense, 0, &message), "e4m3");
  odd = qb.operand;
  odd.scale_layout = (nvfp4_scale_layout)7;
  CHECK_REFUSED(nvfp4_gemm(&p, &qa.operand, &odd, dense, 0, &message), "scale_layout");
  CHECK_REFUSED(nvfp4_gemm(&p, &qa.operand, &qb.operand, dense, 8, &message), "stride");
  CHECK_REFUSED(nvfp4_gemm(&p, &qa.operand, NULL, dense, 0, &message), "b is NULL");
  p.c = NULL;
  CHECK_REFUSED(nvfp4_gemm(&p, &qa.operand, &qb.operand, dense, 0, &message), "C");
  p = nvfp4_default_product("sm_100:nothing");
  CHECK_REFUSED(nvfp4_gemm(&p, &qa.operand, &qb.operand, dense, 0, &message), "nothing");
}

/* Dense BF16 words against dot products of the same unit, from accumulators that are given. */
static void test_dense_and_mma(void) {
  static const char unit[] = "sm_90:wgmma.k16.f32.bf16";
  static uint16_t x[M * K], y[N * K];
  static uint32_t d[M * N], start[M * N];
  for (int i = 0; i < M * K; ++i) {
    uint32_t word;
    memcpy(&word, &dense_a[i], 4);
    x[i] = (uint16_t)(word >> 16);
  }
  for (int i = 0; i < N * K; ++i) {
    uint32_t word;
    memcpy(&word, &b[i], 4);
    y[i] = (uint16_t)(word >> 16);
  }
  x[5] = 0x7F80; /* Inf */
  y[7] = 0xFFC1; /* NaN */
  memcpy(start, c_words, sizeof start);
  nvfp4_operand left = nvfp4_default_operand(), right = nvfp4_default_operand();
  left.rows = M;
  right.rows = N;
  left.k = right.k = K;
  left.element = right.element = "bf16";
  left.codes = x;
  right.codes = y;
  nvfp4_product p = nvfp4_default_product(unit);
  p.start = start;
  CHECK(nvfp4_gemm(&p, &left, &right, d, 0, NULL) == NVFP4_OK);
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) {
      uint32_t word = 0;
      CHECK(nvfp4_mma(unit, NULL, 1, K, x + i * K, y + j * K, NULL, NULL, start + i * N + j, &word, NULL) == NVFP4_OK);
      CHECK(word == d[i * N + j]);
    }
  uint32_t word;
  CHECK_REFUSED(nvfp4_mma(unit, NULL, 1, K - 1, x, y, NULL, NULL, NULL, &word, &message), "multiple");
  CHECK_REFUSED(nvfp4_mma(unit, NULL, 1, K, x, NULL, NULL, NULL, NULL, &word, &message), "b is NULL");
  CHECK_REFUSED(nvfp4_mma(unit, NULL, 1, K, x, y, qa.scales, NULL, NULL, &word, &message), "no scales");
  CHECK_REFUSED(nvfp4_mma(UNIT, NULL, 1, 64, x, y, NULL, NULL, NULL, &word, &message), "scale_a is NULL");
  CHECK_REFUSED(nvfp4_mma(UNIT, "best", 1, 64, x, y, qa.scales, qb.scales, NULL, &word, &message), "best");
}

static void test_check(void) {
  static quantized tiled;
  static uint32_t d[M * N];
  nvfp4_difference difference;
  char text[4096];
  nvfp4_product p = nvfp4_default_product(UNIT);
  make(&tiled, b, N, 0, NVFP4_SCALES_LINEAR, 0);
  CHECK(nvfp4_gemm(&p, &qa.operand, &qb.operand, d, 0, NULL) == NVFP4_OK);
  CHECK(nvfp4_check(&p, &qa.operand, &qb.operand, d, 0, &difference, text, sizeof text, NULL) == NVFP4_OK);
  CHECK(difference.outputs == M * N && difference.mismatches == 0 && difference.row == -1 && difference.column == -1);
  CHECK(strstr(text, "equal") != NULL);

  d[3 * N + 4] ^= 1u;
  CHECK(nvfp4_check(&p, &qa.operand, &qb.operand, d, 0, &difference, text, sizeof text, NULL) == NVFP4_MISMATCH);
  CHECK(difference.mismatches == 1 && difference.row == 3 && difference.column == 4);
  CHECK(difference.got == d[3 * N + 4] && difference.want == (d[3 * N + 4] ^ 1u));

  /* a kernel that swaps the nibbles of A */
  static quantized swapped;
  make(&swapped, a, M, STRIDE * sizeof(float), NVFP4_SCALES_LINEAR, 0);
  for (int i = 0; i < M * K / 2; ++i) swapped.codes[i] = (uint8_t)(swapped.codes[i] << 4 | swapped.codes[i] >> 4);
  CHECK(nvfp4_gemm(&p, &swapped.operand, &qb.operand, d, 0, NULL) == NVFP4_OK);
  CHECK(nvfp4_check(&p, &qa.operand, &qb.operand, d, 0, &difference, text, sizeof text, NULL) == NVFP4_MISMATCH);
  CHECK(strstr(text, "explains all: ") != NULL && strstr(text, "nibble") != NULL);
  char narrow[8];
  CHECK(nvfp4_check(&p, &qa.operand, &qb.operand, d, 0, NULL, narrow, sizeof narrow, NULL) == NVFP4_MISMATCH);
  CHECK(strlen(narrow) == 7);
  p.bias = a;
  CHECK_REFUSED(nvfp4_check(&p, &qa.operand, &qb.operand, d, 0, NULL, NULL, 0, &message), "bias");

  const uint16_t got[6] = {1, 2, 3, 4, 5, 6}, other[6] = {1, 2, 9, 4, 5, 9};
  CHECK(nvfp4_compare("bf16", 2, 2, got, 6, other, 6, &difference, NULL, 0, NULL) == NVFP4_OK);
  CHECK(nvfp4_compare("bf16", 2, 3, got, 0, other, 0, &difference, text, sizeof text, NULL) == NVFP4_MISMATCH);
  CHECK(difference.mismatches == 2 && difference.row == 0 && difference.column == 2 && difference.got == 3 && difference.want == 9);
  CHECK_REFUSED(nvfp4_compare("e2m1", 2, 3, got, 0, other, 0, NULL, NULL, 0, &message), "e2m1");
}

int main(void) {
  fill(a, M * STRIDE, 1);
  fill(b, N * K, 2);
  for (int i = 0; i < M; ++i) memcpy(dense_a + i * K, a + i * STRIDE, K * sizeof(float));

  CHECK(strcmp(nvfp4_version(), NVFP4_VERSION_STRING) == 0);
  nvfp4_unit unit;
  CHECK(nvfp4_find_unit(UNIT, &unit, NULL) == NVFP4_OK);
  CHECK(strcmp(unit.a, "e2m1") == 0 && strcmp(unit.b, "e2m1") == 0 && strcmp(unit.accumulator, "f32") == 0);
  CHECK(strcmp(unit.scale, "ue4m3") == 0 && unit.scale_block == 16 && unit.k == 64 && strcmp(unit.evidence, "published") == 0);
  CHECK_REFUSED(nvfp4_find_unit("sm_90:mma.m16n8k16.f32.fp16", &unit, &message), "did you mean 'sm_90:mma.m16n8k16.f32.f16'");
  CHECK_REFUSED(nvfp4_find_unit(NULL, &unit, &message), "name is NULL");

  test_quantize();
  test_gemm();
  test_dense_and_mma();
  test_check();
  if (failures == 0) printf("the C interface gives the library's words\n");
  return failures == 0 ? 0 : 1;
}
