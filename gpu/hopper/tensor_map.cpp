// SPDX-License-Identifier: Apache-2.0
// Checks of operands, their alignment, and tensor maps. The driver's encoder is found at run time, so that
// nothing links with the driver.
#include "nvfp4/gpu/hopper/tensor_map.hpp"

#include <string>

namespace nvfp4::cuda::hopper {

decltype(&cuTensorMapEncodeTiled) encoder() {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode found = [] {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult status;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                           &status),
          "cudaGetDriverEntryPointByVersion");
    if (status != cudaDriverEntryPointSuccess || function == nullptr)
      throw Error(
          "CUDA: the driver has no cuTensorMapEncodeTiled; a driver for CUDA 12.0 or newer is needed");
    return reinterpret_cast<Encode>(function);
  }();
  return found;
}

namespace {

[[nodiscard]] bool aligned(const Operand &x) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride * x.element_bytes % 16 == 0;
}

std::string shape(const Operand &x) {
  return "[" + std::to_string(x.rows) + ", " + std::to_string(x.k) + "], row stride " +
         std::to_string(x.stride);
}

} // namespace

void check_product(const char *caller, const Operand &a, const Operand &b, int capability) {
  constexpr int64_t limit = int64_t{1} << 31;
  for (const Operand *x : {&a, &b})
    if (x->rows < 0 || x->rows >= limit || x->k < 0 || x->k >= limit || x->stride < x->k ||
        (x->data == nullptr && x->rows * x->k > 0))
      throw Error(std::string(caller) +
                  ": needs sizes from 0 to 2^31 - 1, row strides of at least K and operands in " +
                  "device memory; got A " + shape(a) + ", B " + shape(b));
  int device = 0, major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  const bool fits = capability == 9 ? major == 9 : major >= capability;
  if (!fits)
    throw Error(std::string(caller) + ": needs a GPU of compute capability " +
                (capability == 9 ? "9.0" : std::to_string(capability) + ".0 or newer") + ", this one has " +
                std::to_string(major) + ".x");
}

CUtensorMap tensor_map(const Operand &operand, int box_rows) {
  CUtensorMap map{};
  if (operand.k == 0) return map; // never read
  const bool bf16 = operand.element_bytes == 2;
  const cuuint64_t sizes[] = {cuuint64_t(operand.k), cuuint64_t(operand.rows)};
  const cuuint64_t strides[] = {cuuint64_t(operand.stride * operand.element_bytes)};
  const cuuint32_t box[] = {cuuint32_t(128 / operand.element_bytes), cuuint32_t(box_rows)}, steps[] = {1, 1};
  const CUresult status = encoder()(
      &map, bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8, 2,
      const_cast<void *>(operand.data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw Error("CUDA: cuTensorMapEncodeTiled refused " + shape(operand) + " with code " +
                std::to_string(int(status)));
  return map;
}

AlignedOperand::AlignedOperand(const Operand &operand, cudaStream_t stream) : operand_(operand) {
  if (aligned(operand) || operand.rows * operand.k == 0) return;
  const int64_t per_16 = 16 / operand.element_bytes;
  operand_.stride = (operand.k + per_16 - 1) / per_16 * per_16;
  const auto bytes = [&](int64_t elements) { return size_t(elements * operand.element_bytes); };
  copy_.emplace(int64_t(bytes(operand.rows * operand_.stride)), stream);
  operand_.data = copy_->as<void>();
  check(cudaMemcpy2DAsync(copy_->as<void>(), bytes(operand_.stride), operand.data, bytes(operand.stride),
                          bytes(operand.k), size_t(operand.rows), cudaMemcpyDeviceToDevice, stream),
        "copy of an unaligned operand");
}

} // namespace nvfp4::cuda::hopper
