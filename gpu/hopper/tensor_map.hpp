// SPDX-License-Identifier: Apache-2.0
// Operands of the Hopper GEMMs and their description for the tensor copy engine.
#pragma once
#include "nvfp4/gpu/device/device.hpp"

#include <cuda.h>

#include <cstdint>
#include <optional>

namespace nvfp4::cuda::hopper {

/// Rows of k elements, `stride` elements apart, in device memory.
struct Operand {
  const void *data = nullptr;
  int64_t rows = 0, k = 0, stride = 0;
  int element_bytes = 2; ///< 2: BF16, 1: FP8
};

/// The driver's encoder of tensor maps, found once at run time, so that nothing links with the driver. Error
/// where the driver has none.
[[nodiscard]] decltype(&cuTensorMapEncodeTiled) encoder();

/// Throws Error unless A (M,K) and B (N,K) are a product that the kernels can index: sizes from 0 to 2^31 -
/// 1, strides of at least K, and a GPU of compute capability 9.0 (or at least `capability`).
void check_product(const char *caller, const Operand &a, const Operand &b, int capability);

/// The operand in 128-byte steps and boxes of `box_rows` rows, swizzled. Rows must be 16-byte aligned.
[[nodiscard]] CUtensorMap tensor_map(const Operand &operand, int box_rows);

/// An operand whose rows are 16-byte aligned: the caller's where they are, else a copy that lives on the
/// stream.
class AlignedOperand {
public:
  AlignedOperand(const Operand &operand, cudaStream_t stream);
  [[nodiscard]] const Operand &get() const { return operand_; }

private:
  Operand operand_;
  std::optional<StreamBuffer> copy_;
};

} // namespace nvfp4::cuda::hopper
