/* SPDX-License-Identifier: Apache-2.0
 * The emulator from C99: quantize, dot products of one tensor-core unit, matrix products, and the check of a kernel's
 * output, on the caller's buffers by pointer and stride.
 *
 * Every function returns a status and, unless `message` is NULL, leaves one line there that says what was expected, what
 * came and what to do. Nothing is kept between calls, so all functions may be called from any thread at any time. No C++
 * exception leaves them. Buffers belong to the caller and must not overlap those that are written.
 *
 * Sizes are in elements and strides in bytes; a stride of 0 means that rows follow each other without a gap. Words wider
 * than a byte are little endian. Formats are named "e2m1", "e3m2", "e2m3", "e4m3", "e5m2", "bf16", "f16", "tf32", "f32",
 * "f64", scales "ue4m3", "ue8m0"; elements of 4 bits lie two to a byte, the even one in the low nibble, those of 6 bits one
 * to a byte. */
#ifndef NVFP4_H
#define NVFP4_H

#include "nvfp4/version.hpp"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum nvfp4_status {
  NVFP4_OK = 0,        /* done; of a comparison: equal */
  NVFP4_MISMATCH = 1,  /* compared, and some words differ */
  NVFP4_BAD_INPUT = 2, /* an argument is wrong or does not fit the others */
  NVFP4_FAILED = 4     /* out of memory, or a fault of this library */
} nvfp4_status;

typedef struct nvfp4_message {
  char text[1024]; /* empty after NVFP4_OK */
} nvfp4_message;

/* "0.1.0": of the library; NVFP4_VERSION_STRING is that of this header. */
const char *nvfp4_version(void);

/* What a tensor-core unit takes and gives. Names are ARCH:INSTRUCTION, as `nvfp4 info --units` lists them. */
typedef struct nvfp4_unit {
  const char *a, *b;       /* element formats of A and B */
  const char *accumulator; /* format of C and D: "f32", "f16" or "f64" */
  const char *scale;       /* format of block scales, NULL without */
  int scale_block;         /* elements per scale, 0 without */
  int k;                   /* K of one instruction */
  const char *evidence;    /* "hardware", "published" or "inferred" */
} nvfp4_unit;
nvfp4_status nvfp4_find_unit(const char *name, nvfp4_unit *unit, nvfp4_message *message);

/* Where block scales lie. */
typedef enum nvfp4_scale_layout {
  NVFP4_SCALES_LINEAR = 0,   /* (rows, ceil(k / block)) */
  NVFP4_SCALES_TILED_128X4 = 1 /* in 128x4 tiles: ceil(rows / 128) * ceil(ceil(k / block) / 4) * 512 bytes, no stride */
} nvfp4_scale_layout;

/* An operand of a product: A is (M, K), B is (N, K), D = A B^T. Start from nvfp4_default_operand(). */
typedef struct nvfp4_operand {
  int64_t rows, k;
  const char *element; /* format of the codes */
  const void *codes;   /* (rows, k); rows start at whole bytes */
  int64_t codes_stride;
  const char *scale; /* format of the scales; NULL: a dense operand, and the rest stays as it is */
  int block;         /* elements along k that share a scale */
  const uint8_t *scales;
  int64_t scales_stride; /* of linear scales */
  nvfp4_scale_layout scale_layout;
  int rotated;        /* not 0: rotated along k by the 16-point Hadamard transform with these signs */
  uint16_t sign_mask;
  /* The second level. By the name of a quantization convention and its amax, products undo it as that implementation
   * does; without a name (NULL), global_decode multiplies the result. */
  const char *convention;
  float global_amax;
  float global_decode;
  const float *row_amax; /* (rows), of conventions with a global scale per row; else NULL */
} nvfp4_operand;
nvfp4_operand nvfp4_default_operand(void); /* all zero, global_decode 1 */

typedef enum nvfp4_rounding {
  NVFP4_NEAREST_EVEN = 0,
  NVFP4_STOCHASTIC_CARRY8 = 1, /* the four models of stochastic rounding: emulator/formats/stochastic.hpp */
  NVFP4_STOCHASTIC_TE = 2,
  NVFP4_STOCHASTIC_EXACT = 3,
  NVFP4_STOCHASTIC_MID8 = 4
} nvfp4_rounding;

/* Start from nvfp4_default_quantizer(). */
typedef struct nvfp4_quantizer {
  const char *convention; /* "te", "torchao", "mxfp8-e4m3", ...: `nvfp4 info --conventions` */
  int columnwise;         /* not 0: blocks along columns; the result is transposed, (cols, rows) */
  int block_rows;         /* 1, or 16 for 16x16 blocks */
  nvfp4_rounding rounding;
  uint64_t seed, offset;      /* random bits of element (r, c) are those of index r * cols + c under this Philox key */
  int rotate;                 /* not 0: Hadamard transform along k before quantizing */
  uint16_t sign_mask;         /* of it */
  nvfp4_scale_layout scale_layout;
  const float *global_amax;   /* instead of the tensor's own; or NULL */
  int threads;                /* 0: all; the bits do not depend on it */
} nvfp4_quantizer;
nvfp4_quantizer nvfp4_default_quantizer(const char *convention); /* 1x16 or as the convention has it, nearest even */

/* Bytes of codes and scales that nvfp4_quantize() writes for a matrix (rows, cols). */
nvfp4_status nvfp4_quantized_size(const nvfp4_quantizer *quantizer, int64_t rows, int64_t cols, int64_t *codes_bytes,
                                  int64_t *scales_bytes, nvfp4_message *message);
/* Quantizes x, (rows, cols) of `type` "f32", "bf16" or "f16". Writes codes, scales and, for conventions with a global scale
 * per row, row_amax (as many as the result has rows; else it may be NULL), and describes them in `result`, which points
 * to them and can be multiplied as it is. Buffers smaller than nvfp4_quantized_size() are refused. */
nvfp4_status nvfp4_quantize(const nvfp4_quantizer *quantizer, const char *type, int64_t rows, int64_t cols, const void *x,
                            int64_t stride, void *codes, int64_t codes_bytes, uint8_t *scales, int64_t scales_bytes,
                            float *row_amax, nvfp4_operand *result, nvfp4_message *message);

/* n dot products of K elements on one unit, raw bits in and out: d[i] continues its chain of instructions from c[i].
 * a, b: (n, k) codes of the unit's formats, k a multiple of the unit's K; scale_a, scale_b: (n, k / scale_block), NULL for
 * units without; c: (n) accumulator words, NULL: +0; d: (n) accumulator words. accumulation: model of the FP4 step, NULL for
 * the default. */
nvfp4_status nvfp4_mma(const char *unit, const char *accumulation, int64_t n, int64_t k, const void *a, const void *b,
                       const uint8_t *scale_a, const uint8_t *scale_b, const void *c, void *d, nvfp4_message *message);

/* How the global scales of two operands meet; the forms differ in the last bit. */
typedef enum nvfp4_alpha_rule {
  NVFP4_ALPHA_BY_CONVENTION = 0, /* MUL_CONST for two operands of TransformerEngine, else SDEC_PRODUCT */
  NVFP4_ALPHA_MUL_CONST = 1,     /* ((alpha * amax_a) * amax_b) * f32(1 / f) */
  NVFP4_ALPHA_DIV = 2,           /* ((alpha * amax_a) * amax_b) / f */
  NVFP4_ALPHA_SDEC_PRODUCT = 3   /* alpha * (decode_a * decode_b) */
} nvfp4_alpha_rule;

/* What is computed around A B^T. Start from nvfp4_default_product(). */
typedef struct nvfp4_product {
  const char *unit;         /* ARCH:INSTRUCTION */
  const char *accumulation; /* model of the FP4 step; NULL: the default */
  nvfp4_alpha_rule alpha_rule;
  float alpha, beta;
  const void *c; /* (M, N) f32, or f64 for units that accumulate in FP64; needed with beta, NULL without */
  int64_t c_stride;
  const void *start; /* (M, N) accumulator words where the chains start; NULL: +0 */
  int64_t start_stride;
  const float *bias;           /* (N) or NULL */
  const float *row_factors;    /* (M) or NULL */
  const float *column_factors; /* (N) or NULL */
  const char *out;             /* "f32", "bf16", "f16", or "f64" for FP64 units; NULL: the accumulator's */
  int threads;                 /* 0: all; the bits do not depend on it */
  int exact;                   /* not 0: by the multiprecision oracle: slow, the same bits */
} nvfp4_product;
nvfp4_product nvfp4_default_product(const char *unit); /* alpha 1, beta 0 */

/* D (M, N) of the product's output format: every output one chain of the unit's instructions in increasing K, then
 * fma(alpha, acc, beta * C) or alpha * acc, factors, bias, one rounding (nvfp4/emulator/gemm/gemm.hpp says it exactly).
 * Dense operands go to units without scales; they are rounded to the unit's element format (nearest even, FP8 and
 * narrower saturate) unless they have it already. */
nvfp4_status nvfp4_gemm(const nvfp4_product *product, const nvfp4_operand *a, const nvfp4_operand *b, void *d,
                        int64_t d_stride, nvfp4_message *message);

/* How two matrices differ. */
typedef struct nvfp4_difference {
  int64_t outputs, mismatches;
  int64_t row, column; /* of the first mismatch in row-major order; -1 when equal */
  uint64_t got, want;  /* words there */
} nvfp4_difference;

/* Compares two matrices (rows, cols) of words of `type` "f32", "bf16", "f16" or "f64". NVFP4_OK when every word is equal,
 * NVFP4_MISMATCH otherwise; `difference` may be NULL, and `text` (of text_bytes, may be NULL) receives some lines for a
 * human reader. */
nvfp4_status nvfp4_compare(const char *type, int64_t rows, int64_t cols, const void *got, int64_t got_stride,
                           const void *want, int64_t want_stride, nvfp4_difference *difference, char *text,
                           int64_t text_bytes, nvfp4_message *message);
/* Is d, (M, N) of the product's output format, what the unit gives, and if not, which mistake explains it? Tries several
 * dozen: swapped nibbles, scale layouts, global scales, split K, rounding, epilogue. The product must be without
 * start, bias and factors. */
nvfp4_status nvfp4_check(const nvfp4_product *product, const nvfp4_operand *a, const nvfp4_operand *b, const void *d,
                         int64_t d_stride, nvfp4_difference *difference, char *text, int64_t text_bytes,
                         nvfp4_message *message);

#ifdef __cplusplus
}
#endif
#endif
