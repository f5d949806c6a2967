// SPDX-License-Identifier: Apache-2.0
// Small exact FP4 products, several in one launch: a warp has 16 x 16 outputs, operands come from L2 straight
// into registers, and each step is looked at. For large products this would be slow; here launches are what
// costs.
#include "nvfp4/gpu/emulated/gemm_fp4_small.hpp"
#include "nvfp4/gpu/emulated/gemm_fp4_steps.cuh"
#include "nvfp4/gpu/emulated/quantize_alpha.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kTile = 32, kThreads = 128; ///< a block's rows and columns: 2 x 2 warps
constexpr int kFragments = 2;             ///< of 16 x 8, in a warp

struct SmallJob {
  Fp4Job product;
  AlphaSource alpha;
};
constexpr int kJobs = 7; ///< of a launch
struct SmallBatch {
  SmallJob job[kJobs];
};
static_assert(sizeof(SmallBatch) <= 4096, "arguments of a kernel");

/// A step's values and ranges, as mma.m16n8k16 wants them.
struct Step {
  uint32_t a[4][4], b[kFragments][4][2]; ///< by groups of 16
  uint32_t range_a, range_b[kFragments];

  __device__ void load(const Fp4Job &job, int64_t row, int64_t col, int64_t t) {
    const int lane = int(threadIdx.x) % 32;
    const int64_t steps = job.steps;
    const auto word = [&](const uint16_t *values, int64_t r, int k) {
      return *reinterpret_cast<const uint32_t *>(values + ((r + lane / 4) * steps + t) * 64 + k +
                                                 lane % 4 * 2);
    };
#pragma unroll
    for (int g = 0; g < 4; ++g) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[g][i] = word(job.a.values, row + i % 2 * 8, g * 16 + i / 2 * 8);
#pragma unroll
      for (int j = 0; j < kFragments; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i) b[j][g][i] = word(job.b.values, col + j * 8, g * 16 + i * 8);
    }
    const uint32_t *const ra = job.a.ranges8 + (t * job.a.padded_rows + row) / 8, *const rb =
                                                                                      job.b.ranges8 +
                                                                                      (t * job.b.padded_rows +
                                                                                       col) /
                                                                                          8;
    range_a = __vmaxu4(ra[0], ra[1]);
#pragma unroll
    for (int j = 0; j < kFragments; ++j) range_b[j] = rb[j];
  }
};

__global__ void __launch_bounds__(kThreads) small_kernel(const __grid_constant__ SmallBatch batch) {
  const Fp4Job &job = batch.job[blockIdx.z].product;
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int64_t tile_row = int64_t(blockIdx.x) * kTile, tile_col = int64_t(blockIdx.y) * kTile;
  if (tile_row >= job.m || tile_col >= job.n) return;
  __shared__ float alpha;
  const bool by_tensors = batch.job[blockIdx.z].alpha.a != nullptr;
  if (threadIdx.x == 0 && by_tensors) alpha = alpha_of(batch.job[blockIdx.z].alpha, job.out.alpha);
  __syncthreads();
  const int64_t row = tile_row + warp % 2 * 16, col = tile_col + warp / 2 * 16;
  const Limits limits(job.accumulation);
  float acc[kFragments][4] = {};
  Counts counts;
  Step ahead;
  ahead.load(job, row, col, 0);
  for (int64_t t = 0; t < job.steps; ++t) {
    const Step now = ahead;
    if (t + 1 < job.steps) ahead.load(job, row, col, t + 1);
#pragma unroll
    for (int j = 0; j < kFragments; ++j)
      mixed_step(job, StepRange::sum(now.range_a, now.range_b[j]), limits, row + lane / 4,
                 col + j * 8 + lane % 4 * 2, t, now.a, now.b[j], acc[j], counts);
  }
  GemmOutput out = job.out;
  if (by_tensors) out.device_alpha = &alpha;
#pragma unroll
  for (int j = 0; j < kFragments; ++j)
#pragma unroll
    for (int o = 0; o < 4; ++o) {
      const int64_t r = row + lane / 4 + (o >= 2 ? 8 : 0), c = col + j * 8 + lane % 4 * 2 + (o & 1);
      if (r < job.m && c < job.n)
        write_output(out, FormatId::f32, job.n, r, c, mixed_word(job, r, c, acc[j][o], counts));
    }
}

} // namespace

bool multiplies_small(const Fp4Operand &a, const Fp4Operand &b) {
  return a.steps <= 16 && a.source.rows * b.source.rows * a.steps <= int64_t{1} << 20;
}

void gemm_fp4_small(std::span<const SmallProduct> products, cudaStream_t stream) {
  for (size_t first = 0; first < products.size(); first += kJobs) {
    const auto part = products.subspan(first, std::min<size_t>(kJobs, products.size() - first));
    SmallBatch batch{};
    int64_t m = 0, n = 0;
    for (size_t i = 0; i < part.size(); ++i) {
      const SmallProduct &p = part[i];
      check_fp4(*p.rule, *p.a, *p.b, p.output);
      batch.job[i] = {.product = {.rule = *p.rule,
                                  .accumulation = p.accumulation,
                                  .a = view_of(*p.a),
                                  .b = view_of(*p.b),
                                  .m = p.a->source.rows,
                                  .n = p.b->source.rows,
                                  .steps = p.a->steps,
                                  .tiles_m = 0,
                                  .tiles_n = 0,
                                  .out = p.output,
                                  .paths = nullptr,
                                  .ways = nullptr,
                                  .frames = false},
                      .alpha =
                          p.scaled_a == nullptr ? AlphaSource{} : alpha_source(*p.scaled_a, *p.scaled_b)};
      m = std::max(m, p.a->source.rows);
      n = std::max(n, p.b->source.rows);
    }
    const dim3 grid(blocks_for(m, kTile), blocks_for(n, kTile), unsigned(part.size()));
    small_kernel<<<grid, kThreads, 0, stream>>>(batch);
    check_launch("small_kernel");
  }
}

} // namespace nvfp4::cuda
