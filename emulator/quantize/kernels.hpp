// SPDX-License-Identifier: Apache-2.0
// The contract between the quantization engine and its kernels for one instruction set. Plain data only, so
// that files compiled for wider instruction sets share no inline code with the others. Internal.
#pragma once
#include "nvfp4/emulator/quantize/block_rule.hpp"

namespace nvfp4::quant {

/// Blocks of one row that a kernel call handles: one lane each in the steps from maximum to multiplier.
inline constexpr int kGroup = 16;
/// Bits of the smallest word that is not a finite magnitude.
inline constexpr uint32_t kInfinity = 0x7F800000;

/// Floats ahead of what they read along rows that kernels ask for: more than the CPU does by itself where it waits for
/// the inexact flag, and the rows of random bits and codes between.
inline constexpr int kAhead = 1024;

/// What block_scale reads, with everything that does not depend on the block computed beforehand. Only for
/// positive finite S and p.
struct ScaleSteps {
  ScaleOrder order;
  ScaleRounding rounding;
  Scaling scaling;
  ZeroMultiplier zero_multiplier;
  bool flush;
  bool bf16_source;     ///< ScaleOrder::source_sixth rounds to BF16
  bool to_four;         ///< the wider candidate of four-over-six
  int max_exponent;     ///< of the largest element
  int exponent_carry;   ///< what a maximum's word gets before its exponent is taken
  float encode, decode; ///< S, p
  float encode_sixth;   ///< S * K6
  float six_decode;     ///< 6 p
  float inverse_decode; ///< 1 / p
  float top;            ///< largest element
  float inverse_top;    ///< 1 / top
};

/// How an element meets its block's factor. The quotients belong to rules that drop the sign of a zero.
enum class Meet : uint8_t { multiply, multiply_flushed, divide };

/// The codes of kGroup blocks: x (kGroup, block), factors (kGroup), random: one byte per element, four for
/// sr_exact, none for nearest. E2M1 is written two to a byte. Factors and x are finite, or the codes of that
/// block are worthless.
using Encode = void (*)(const float *x, int block, const float *factors, const uint8_t *random,
                        uint8_t *codes);

/// The codes of kGroup blocks that are columns of `block` rows of kGroup floats each; factors (kGroup); random
/// as above, that of each row at a multiple of random_stride. Word w of a column, to + w * to_stride + column, has
/// the codes of rows 8 w and following (4 w for codes of 8 bits), the first lowest.
using EncodeColumns = void (*)(const float *x, int block, const float *factors, const uint8_t *random,
                               int64_t random_stride, uint32_t *to, int64_t to_stride);

/// How four-over-six weighs a candidate.
struct ErrorRule {
  float amax, range; ///< range = 6 M
  bool squared, fused;
};

struct Kernels {
  /// Largest word of n floats without their signs; above kInfinity when there is a NaN.
  uint32_t (*amax)(const float *x, int64_t n);
  /// The same for each of kGroup blocks of 16 or 32.
  void (*block_amax)(const float *x, int block, uint32_t *words);
  /// The same for kGroup columns of `block` rows, which are copied to (block, kGroup), where they may be already.
  void (*column_amax)(const float *x, int64_t stride, int block, float *copy, uint32_t *words);
  /// kGroup scale codes and factors from the maxima. Returns a bit for each block that the definition must
  /// redo: a NaN or Inf in it, or a factor that is not a positive finite number or 0 (0 counts where it
  /// divides).
  uint32_t (*scales)(const ScaleSteps &, const uint32_t *amax, float *factors, uint8_t *codes);
  /// Errors of kGroup blocks of 16 rounded to E2M1: transposed (16, kGroup), the rest (kGroup).
  void (*errors)(const ErrorRule &, const float *transposed, const float *factors, const float *scales,
                 float *sums);
  /// Null where the combination is not covered.
  Encode (*encoder)(FormatId element, Meet, ElementRounding);
  EncodeColumns (*column_encoder)(FormatId element, Meet, ElementRounding); ///< null where encoder's is
  /// The 16 bytes of each Philox block, one after the other. count is a multiple of 8.
  void (*philox)(uint64_t seed, uint64_t offset, const uint64_t *index, int count, uint8_t *bytes);
  /// rotate16 on `groups` groups of 16 (at most 32), out of place or in place. Returns a bit for each group
  /// that it left as it was, for the definition.
  uint32_t (*rotate)(const float *x, int groups, uint16_t signs, float *rotated);
  /// rotate16 down the columns of `tiles` tiles of 16 x 16 that stand side by side, one after the other to `to`,
  /// which is not x. Returns false, with worthless results, where FP32 does not hold the sums.
  bool (*rotate_columns)(const float *x, int64_t stride, int tiles, uint16_t signs, float *to, int64_t to_tile);
  /// The largest word, without its sign, of what rotate and rotate_columns would give; above kInfinity where
  /// FP32 does not hold the sums.
  uint32_t (*rotated_amax)(const float *x, int groups, uint16_t signs);
  uint32_t (*rotated_columns_amax)(const float *x, int64_t stride, int tiles, uint16_t signs);
  /// A 16 x 16 tile; strides in elements.
  void (*transpose)(const float *x, int64_t stride, float *transposed, int64_t to_stride);
  void (*transpose_bytes)(const uint8_t *x, int64_t stride, uint8_t *transposed, int64_t to_stride);
};

/// Null when not compiled in.
const Kernels *kernels_avx512();
const Kernels *kernels_avx2();

// The parts of those tables that live in files of their own.
Encode encoder_avx512(FormatId element, Meet meet, ElementRounding rounding);
EncodeColumns column_encoder_avx512(FormatId element, Meet meet, ElementRounding rounding);
void philox_avx512(uint64_t seed, uint64_t offset, const uint64_t *index, int count, uint8_t *bytes);
uint32_t rotate_avx512(const float *x, int groups, uint16_t signs, float *rotated);
bool rotate_columns_avx512(const float *x, int64_t stride, int tiles, uint16_t signs, float *to, int64_t to_tile);
uint32_t rotated_amax_avx512(const float *x, int groups, uint16_t signs);
uint32_t rotated_columns_amax_avx512(const float *x, int64_t stride, int tiles, uint16_t signs);
void transpose_avx512(const float *x, int64_t stride, float *transposed, int64_t to_stride);
void transpose_bytes_avx512(const uint8_t *x, int64_t stride, uint8_t *transposed, int64_t to_stride);
Encode encoder_avx2(FormatId element, Meet meet, ElementRounding rounding);
EncodeColumns column_encoder_avx2(FormatId element, Meet meet, ElementRounding rounding);
void philox_avx2(uint64_t seed, uint64_t offset, const uint64_t *index, int count, uint8_t *bytes);
uint32_t rotate_avx2(const float *x, int groups, uint16_t signs, float *rotated);
bool rotate_columns_avx2(const float *x, int64_t stride, int tiles, uint16_t signs, float *to, int64_t to_tile);
uint32_t rotated_amax_avx2(const float *x, int groups, uint16_t signs);
uint32_t rotated_columns_amax_avx2(const float *x, int64_t stride, int tiles, uint16_t signs);
void transpose_avx2(const float *x, int64_t stride, float *transposed, int64_t to_stride);
void transpose_bytes_avx2(const uint8_t *x, int64_t stride, uint8_t *transposed, int64_t to_stride);

} // namespace nvfp4::quant
