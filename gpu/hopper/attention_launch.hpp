// SPDX-License-Identifier: Apache-2.0
// What the attention kernels share on the host: checks, tensor maps of (batch, length, heads, dim), and the
// order in which blocks take heads and tiles.
#pragma once
#include "nvfp4/gpu/hopper/tensor_map.hpp"
#include "nvfp4/reference_models/bf16_mixers/attention.hpp"

#include <string>

namespace nvfp4::cuda::hopper {

using models::tensorcore::AttentionShape;

/// Throws Error unless this GPU has compute capability 9.0 and all pointers are 16-byte aligned; `optional`
/// ones may be null.
inline void check_attention(const char *caller, const AttentionShape &shape,
                            std::initializer_list<const void *> operands,
                            std::initializer_list<const void *> optional = {}) {
  models::tensorcore::check_shape(caller, shape);
  const auto want = [&](bool holds) {
    if (!holds)
      throw Error(std::string(caller) +
                  ": operands must be 16-byte aligned device memory; allocate them with cudaMalloc");
  };
  for (const void *x : operands) want(x != nullptr && reinterpret_cast<uintptr_t>(x) % 16 == 0);
  for (const void *x : optional) want(reinterpret_cast<uintptr_t>(x) % 16 == 0);
  int device = 0, major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  if (major != 9)
    throw Error(std::string(caller) + ": needs a GPU of compute capability 9.0, this one has " +
                std::to_string(major) + ".x");
}

/// Boxes of 64 elements of dim and `rows` rows of one head, swizzled over 128 bytes.
inline CUtensorMap head_map(const uint16_t *data, const AttentionShape &s, int64_t heads, int rows) {
  CUtensorMap map{};
  const cuuint64_t row = cuuint64_t(heads * s.dim) * 2;
  const cuuint64_t sizes[] = {cuuint64_t(s.dim), cuuint64_t(heads), cuuint64_t(s.length),
                              cuuint64_t(s.batch)};
  const cuuint64_t strides[] = {cuuint64_t(s.dim) * 2, row, row * cuuint64_t(s.length)};
  const cuuint32_t box[] = {64, 1, cuuint32_t(rows), 1}, steps[] = {1, 1, 1, 1};
  const CUresult status =
      encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<uint16_t *>(data), sizes, strides, box,
                steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw Error("CUDA: cuTensorMapEncodeTiled refused a tensor of length " + std::to_string(s.length) + ", " +
                std::to_string(heads) + " heads, dim " + std::to_string(s.dim) + " with code " +
                std::to_string(int(status)));
  return map;
}

/// Blocks in the order they start: as many heads at a time as fit into half of an L2 with what
/// `bytes_per_head` each streams, and for these heads the tiles from the last, longest, to the first.
struct BlockOrder {
  int heads, tiles, at_once; ///< heads: of all sequences

  [[nodiscard]] unsigned count() const { return unsigned(heads) * unsigned(tiles); }
};
struct BlockAt {
  int head, tile;
};

inline BlockOrder block_order(int64_t heads, int64_t tiles, int64_t bytes_per_head, const char *caller) {
  if (heads * tiles >= int64_t{1} << 31) throw Error(std::string(caller) + ": more than 2^31 tiles");
  const int64_t fit = (int64_t{20} << 20) / (bytes_per_head > 0 ? bytes_per_head : 1);
  return {int(heads), int(tiles), int(fit < 1 ? 1 : fit > heads ? heads : fit)};
}

#if defined(__CUDACC__)
/// The tile counts from 0 at the longest.
__device__ inline BlockAt block_at(const BlockOrder &order, int index) {
  const int group = index / (order.at_once * order.tiles), first = group * order.at_once;
  const int width = min(order.at_once, order.heads - first), inside = index - first * order.tiles;
  return {first + inside % width, inside / width};
}
#endif

} // namespace nvfp4::cuda::hopper
