// SPDX-License-Identifier: Apache-2.0
// An operand of the models' linear layers in device memory, and the kernels that fill and read it. Internal
// to the CUDA operand engine; the meaning of each task is reference_models/linear/cpu_operand.cpp.
#pragma once
#include "nvfp4/gpu/emulated/quantize.hpp"
#include "nvfp4/reference_models/linear/operand_engine.hpp"

namespace nvfp4::cuda {

class CudaOperand final : public models::Operand {
public:
  bool scaled = false; ///< block-scaled, else BF16
  DeviceBlockScaled q; ///< of block-scaled operands
  DeviceBuffer words;  // (bf16_rows, bf16_padded_k) of BF16 operands
  int64_t bf16_rows = 0, bf16_k = 0, bf16_padded_k = 0;
  mutable Fp4Operand fp4; ///< what the FP4 engine reads, made at the first product
  mutable bool fp4_ready = false;

  [[nodiscard]] int64_t rows() const { return scaled ? q.info.rows : bf16_rows; }
  [[nodiscard]] DeviceOperand view() const;
};

/// y = x rounded to BF16, as FP32.
void round_array_to_bf16(const float *x, int64_t n, float *y, cudaStream_t stream);

/// BF16 words of x (rows, cols) or, for Axis::col, of its transpose; rows padded with zeros to the unit's K.
void pack_bf16(const UnitRule &unit, const float *x, int64_t rows, int64_t cols, Axis axis, CudaOperand &out,
               cudaStream_t stream);

/// values (rows, width): the first columns of an operand.
void read_values(const CudaOperand &operand, int64_t width, float *values, cudaStream_t stream);

/// Scratch of patches.
struct PatchWorkspace {
  DeviceBuffer gathered;
  DeviceBlockScaled segment;
};
void patch(const models::PatchTask &task, PatchWorkspace &workspace, cudaStream_t stream);

} // namespace nvfp4::cuda
