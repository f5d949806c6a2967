// SPDX-License-Identifier: Apache-2.0
// NotFiniteChunks with a warp a chunk and eight loads of 16 bytes a thread in flight; a team of the other
// kernels would leave seven of its eight warps idle here.
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/models/finite.hpp"

namespace nvfp4::cuda {
namespace {

using Kernel = models::NotFiniteChunks<float>;
constexpr int kWarps = 8, kLoads = 8;

/// 0 times a number is not 0 if it is NaN or infinite, and neither is a sum with that.
__device__ inline float sift(float4 x, float sum) {
  return fmaf(0.0f, x.x, fmaf(0.0f, x.y, fmaf(0.0f, x.z, fmaf(0.0f, x.w, sum))));
}

__global__ void __launch_bounds__(32 * kWarps)
    not_finite_kernel(const __grid_constant__ Kernel kernel, int64_t teams) {
  const int64_t index = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= teams) return;
  int64_t chunk = index;
  const float *x = nullptr;
  int64_t n = 0;
#pragma unroll
  for (int i = 0; i < Kernel::kArrays; ++i) {
    if (i >= kernel.count || x != nullptr) continue;
    const int64_t here = models::chunks(kernel.arrays[i].n);
    if (chunk < here)
      x = kernel.arrays[i].x + chunk * models::kChunk, n = kernel.arrays[i].n - chunk * models::kChunk;
    else
      chunk -= here;
  }
  const int lane = int(threadIdx.x) % 32;
  float sum = 0.0f;
  if (n >= models::kChunk && reinterpret_cast<uintptr_t>(x) % 16 == 0) {
    const float4 *const at = reinterpret_cast<const float4 *>(x) + lane;
#pragma unroll 1
    for (int first = 0; first < int(models::kChunk) / 128; first += kLoads) {
      float4 v[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) v[i] = __ldg(at + (first + i) * 32);
#pragma unroll
      for (int i = 0; i < kLoads; ++i) sum = sift(v[i], sum);
    }
  } else {
    const int length = int(min(n, models::kChunk));
    for (int i = lane; i < length; i += 32) sum = fmaf(0.0f, x[i], sum);
  }
  const bool sick = __any_sync(0xFFFFFFFF, sum != 0.0f) != 0;
  if (sick && lane == 0) ++kernel.partial[index];
}

} // namespace

void find_not_finite(const Kernel &kernel) {
  const int64_t teams = kernel.teams();
  if (teams <= 0) return;
  not_finite_kernel<<<blocks_for(teams, kWarps), 32 * kWarps>>>(kernel, teams);
  check_launch("not_finite_kernel");
}

} // namespace nvfp4::cuda
