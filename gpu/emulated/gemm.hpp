// SPDX-License-Identifier: Apache-2.0
// D = alpha * A * B^T + beta * C on device-resident operands, every output the chain of tensor-core
// instructions that emulator/gemm computes, in increasing K from +0 or an accumulator: the same words. NVFP4
// and MXFP4 have a fast engine (gemm_fp4.cu), FP8 and MXFP8 of Blackwell another (gemm_parts.cu), units whose
// step this GPU has run on it (gemm_native.cu), the others in gemm_fdpa.cu or by the definition. README.md
// has the proofs.
#pragma once
#include "nvfp4/emulator/gemm/epilogue.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/emulated/output_vectors.hpp"

#include <span>

namespace nvfp4::cuda {

/// An operand in device memory: A is (M, K), B is (N, K). Codes are rows of padded_k elements, 4-bit codes
/// two to a byte with even k in the low nibble, other formats in their storage width; elements from k to
/// padded_k are zero codes. Scales are linear, (rows, padded_k / scale_block). padded_k needs to be a
/// multiple of the scale block only (of 2 for FP4 without scales); the pointers need 16-byte alignment. The
/// layout is BlockScaled's and cuda::quantize's.
struct DeviceOperand {
  FormatId format = FormatId::e2m1;
  int64_t rows = 0, k = 0, padded_k = 0;
  const uint8_t *codes = nullptr;
  const uint8_t *scales = nullptr; ///< null for units without scales
};

/// What becomes of the accumulators: alpha * acc, or fma(alpha, acc, beta * C) where beta is not 0, then one
/// rounding to `out`, by the text of emulator/gemm/epilogue.hpp. FP64 units write FP64 (alpha and beta are
/// widened).
struct GemmOutput {
  void *d = nullptr;            ///< (M, N) words of `out`, row-major
  FormatId out = FormatId::f32; ///< f32, bf16 or f16; f64 for FP64 units
  float alpha = 1.0f;
  float beta = 0.0f;
  const float *device_alpha = nullptr; ///< read on the device instead of `alpha`, see global_alpha()
  const void *c = nullptr;             ///< (M, N) FP32 (FP64 for FP64 units), read when beta != 0
  bool accumulators =
      false; ///< write the accumulator's own words (4 bytes, 8 for FP64; FP16 in 4) and nothing else
  /// Instead of `out`, `beta` and `c`: d, FP32 words, becomes finish(epilogue, alpha, acc, d, bias), as in a
  /// training layer. bias: (N) in device memory or null.
  bool finishes = false;
  Epilogue epilogue = {};
  const float *bias = nullptr;
  const void *start = nullptr; ///< (M, N) such words: where chains start; null: at +0. Only the definition
                               ///< continues a chain: gemm() runs it then, the other engines throw Error
};

/// Outputs (m, n) from accumulators that a product left (GemmOutput::accumulators), each
/// OutputVectors::finish.
void finish_accumulators(FormatId acc_format, const void *accumulators, int64_t m, int64_t n,
                         const GemmOutput &output, const OutputVectors &vectors, cudaStream_t stream);

/// n FP32 values as BF16 words: nearest even, every NaN 0x7FC0. Both pointers are 16-byte aligned.
void narrow_to_bf16(const float *x, int64_t n, uint16_t *y, cudaStream_t stream);

/// How many outputs or steps of outputs each way of computing took; see README.md. Products in parts (FP8)
/// count tiles as framed or, left to another kernel, as mixed, and steps as framed or repaired.
struct Fp4Paths {
  unsigned long long tiles_fast =
      0; ///< 128 x 128 tiles that nothing but the tensor core and FP32 additions made
  unsigned long long tiles_mostly = 0; ///< tiles of which the tensor core summed many steps whole (sm_90)
  unsigned long long tiles_carried = 0; ///< tiles whose accumulators went through the tensor core in two parts (sm_90)
  unsigned long long outgrown = 0; ///< of these, pieces of 64 x 32 done over as framed ones
  unsigned long long tiles_framed = 0; ///< tiles whose groups FP32 pairs added (sm_90)
  unsigned long long tiles_mixed = 0;  ///< the others; the rest counts within these
  unsigned long long summed = 0;  ///< steps of outputs whose four groups the tensor core summed, or could
  unsigned long long framed = 0;  ///< steps in which FP32 pairs held every bit and nothing was cut
  unsigned long long guarded = 0; ///< steps of guarded tiles, in which something may have been cut
  unsigned long long halved = 0;  ///< steps of mostly fast tiles summed in two halves
  unsigned long long carried = 0; ///< steps of carried tiles that added to parts of accumulators
  unsigned long long apart = 0;   ///< steps of mostly fast tiles done by fragments, counted again by their way
  unsigned long long repaired = 0; ///< of the guarded ones, done over with every cut
  unsigned long long split = 0;    ///< steps summed in pairs of FP32
  unsigned long long wide = 0;     ///< steps summed in FP64
  unsigned long long aligned = 0;  ///< steps in which alignment may cut
  unsigned long long defined = 0;  ///< steps computed by the definition
  unsigned long long outputs = 0;  ///< outputs whose whole chain was done by the definition
};

/// An FP4 operand as the fast engine reads it: values as BF16 and the ranges that decide which shortcuts
/// hold. Prepare a weight once and use it in many products. It refers to the DeviceOperand's memory, which
/// must live as long. Memory: 2 bytes an element, and per 64 elements 32 bytes of scratch, 17 of exponents,
/// about three of ranges.
struct Fp4Operand {
  DeviceOperand source; ///< K padded to 64, own memory where the caller's was not
  FormatId scale = FormatId::ue4m3;
  int scale_block = 16;
  int64_t padded_rows = 0, steps = 0;
  DeviceBuffer codes, scales, values, raw, presence, halves, halves8, tops, carried, carried8, carried128, ranges8,
      ranges128, row_info;
};
void prepare_fp4(const UnitRule &rule, const DeviceOperand &operand, Fp4Operand &out, cudaStream_t stream);

/// Arguments of prepare_fp4().
struct PrepareRequest {
  const UnitRule *rule;
  DeviceOperand operand;
  Fp4Operand *out;
};
/// Operands for which one launch is better than three: at most 2048 x 2048.
[[nodiscard]] bool prepares_small(const DeviceOperand &operand);
/// prepare_fp4() of small operands, up to 16 in one launch.
void prepare_small(std::span<const PrepareRequest> requests, cudaStream_t stream);

/// An operand of units with 32 products a step and 25 fraction bits (FP8, FP6, MXFP8), in parts; see
/// gemm_parts.cuh. Memory: 6 bytes an element, and 9 per 32 elements.
struct PartsOperand {
  int64_t padded_rows = 0, steps = 0;
  DeviceBuffer parts, powers, norms, exponents;
};

/// Memory that products may use; keep it between calls.
struct GemmWorkspace {
  Fp4Operand a, b;
  PartsOperand parts_a, parts_b;
  DeviceBuffer left;                                 ///< tiles that the parts' kernel left to others
  DeviceBuffer accumulators;                         ///< of products whose epilogue is a kernel of its own
  DeviceBuffer codes_a, codes_b, scales_a, scales_b; ///< operands padded to the unit's K
};

/// Any unit of the catalogue. Throws Error where operands, unit and output do not fit. `paths`, when given,
/// is device memory to add to (FP4 units and products in parts only).
void gemm(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b, const GemmOutput &output,
          Accumulation accumulation, GemmWorkspace &workspace, cudaStream_t stream,
          Fp4Paths *paths = nullptr);

/// The FP4 engine on prepared operands of the same unit.
void gemm_fp4(const UnitRule &rule, const Fp4Operand &a, const Fp4Operand &b, const GemmOutput &output,
              Accumulation accumulation, cudaStream_t stream, Fp4Paths *paths = nullptr);

/// One thread per output running dot(): any unit, any values. The reference of the others.
void gemm_definition(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                     const GemmOutput &output, Accumulation accumulation, GemmWorkspace &workspace,
                     cudaStream_t stream);

} // namespace nvfp4::cuda
