// SPDX-License-Identifier: Apache-2.0
// Quantization of small tensors, where launches are what costs: one finds the second levels of several
// tensors, one for each rule and rounding among them makes scales and codes, one does over what FP32
// arithmetic left.
#include "nvfp4/gpu/emulated/quantize_block.cuh"
#include "nvfp4/gpu/emulated/quantize_define.cuh"
#include "nvfp4/gpu/emulated/quantize_level.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kThreads = 1024;

/// This thread's part of the maximum of a tensor, which a block of kThreads looks at.
__device__ Amax part_of_maximum(const TileJob &t) {
  const QuantizeJob &job = t.job;
  Amax a;
  if (t.rotates) {
    for (int64_t i = threadIdx.x; i < job.rows * (job.k / kHadamardSize); i += kThreads) {
      float x[kHadamardSize];
      rotated_group(t, i, x);
      for (const float v : x) a.add(v);
    }
    return a;
  }
  const int64_t rows = t.turned ? t.present : job.rows, cols = t.turned ? job.rows : job.k, n = rows * cols;
  if (job.stride == cols && n % 4 == 0 && t.aligned) {
    const float4 *const v = reinterpret_cast<const float4 *>(job.x);
#pragma unroll 8
    for (int64_t i = threadIdx.x; i < n / 4; i += kThreads) {
      const float4 q = v[i];
      a.add(q.x), a.add(q.y), a.add(q.z), a.add(q.w);
    }
  } else {
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < n; i += kThreads) a.add(job.x[i / cols * job.stride + i % cols]);
  }
  return a;
}

constexpr int kJobs = 16; ///< of a launch
struct SmallBatch {
  SmallJob job[kJobs];
};
static_assert(sizeof(SmallBatch) <= 4096, "arguments of a kernel");

/// A block a job. Empties the list of blocks that tiles leave.
__global__ void __launch_bounds__(kThreads) small_levels_kernel(const __grid_constant__ SmallBatch batch) {
  const SmallJob &small = batch.job[blockIdx.x];
  const TileJob &t = small.t;
  __shared__ AmaxWords maximum;
  if (threadIdx.x == 0) maximum = {};
  __syncthreads();
  if (small.level.from == GlobalFrom::maxima) {
    const Amax a = warp_merged(part_of_maximum(t));
    if (threadIdx.x % 32 == 0) merge_into(&maximum, a);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  *small.out = level_of(t.job.rule, t.job.source, small.level, maximum);
  *t.job.left = 0;
}

/// z of the grid counts jobs; it is as wide as the widest of them needs.
template <class R, ElementRounding rounding>
__global__ void __launch_bounds__(kTileThreads) small_tiles_kernel(const __grid_constant__ SmallBatch batch) {
  const TileJob &t = batch.job[blockIdx.z].t;
  const dim3 own = tile_grid<R::block>(t);
  if (blockIdx.x < own.x && blockIdx.y < own.y) quantize_tile<R, rounding>(t);
}

/// y of the grid counts jobs.
__global__ void __launch_bounds__(64) small_definition_kernel(const __grid_constant__ SmallBatch batch) {
  const TileJob &t = batch.job[blockIdx.y].t;
  const uint32_t count = t.job.left[0];
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
    define_block(t, t.job.left[1 + i]);
}

/// Small tensors of one rule and rounding, at most kJobs.
struct Together {
  std::span<const SmallJob> jobs;
  cudaStream_t stream;

  template <class R, ElementRounding rounding> void run() const {
    SmallBatch batch{};
    dim3 grid(0, 0, unsigned(jobs.size()));
    for (size_t i = 0; i < jobs.size(); ++i) {
      batch.job[i] = jobs[i];
      batch.job[i].t = flattened<R::block>(jobs[i].t);
      const dim3 own = tile_grid<R::block>(batch.job[i].t);
      grid.x = std::max(grid.x, own.x);
      grid.y = std::max(grid.y, own.y);
    }
    small_tiles_kernel<R, rounding><<<grid, kTileThreads, 0, stream>>>(batch);
    check_launch("small_tiles_kernel");
  }
};

constexpr int64_t kSmall = int64_t{1} << 17; ///< elements: one block of threads finds the maximum

void quantize_batch(std::span<SmallJob> jobs, cudaStream_t stream) {
  SmallBatch batch{};
  std::copy(jobs.begin(), jobs.end(), batch.job);
  const unsigned count = unsigned(jobs.size());
  small_levels_kernel<<<count, kThreads, 0, stream>>>(batch);
  check_launch("small_levels_kernel");
  for (auto at = jobs.begin(); at != jobs.end();) {
    const QuantizeJob first = at->t.job;
    const auto end = std::stable_partition(at, jobs.end(), [&](const SmallJob &s) {
      return s.t.job.rule == first.rule && s.t.job.rounding == first.rounding;
    });
    launch_rule(first.rule, first.rounding, Together{{at, end}, stream});
    at = end;
  }
  small_definition_kernel<<<dim3(8, count), 64, 0, stream>>>(batch);
  check_launch("small_definition_kernel");
}

} // namespace

bool quantizes_small(const TileJob &t) {
  const int64_t n = t.job.rows * t.job.k;
  return n > 0 && n <= kSmall && !t.job.rule.per_row && !t.job.tiled_scales && tiles_cover(t);
}

void quantize_small(std::span<SmallJob> jobs, cudaStream_t stream) {
  for (size_t first = 0; first < jobs.size(); first += kJobs)
    quantize_batch(jobs.subspan(first, std::min<size_t>(kJobs, jobs.size() - first)), stream);
}

} // namespace nvfp4::cuda
