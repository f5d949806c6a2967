// SPDX-License-Identifier: Apache-2.0
// Dense matrices under the usual presets, nearest: a warp reads 32 blocks in whole lines, straight into
// registers; each lane computes the scale of one block by the shared text, and its elements by
// quantize_elements.cuh. The rules are compiled in.
#include "nvfp4/gpu/emulated/quantize_detail.cuh"
#include "nvfp4/gpu/emulated/quantize_elements.cuh"

namespace nvfp4::cuda {
namespace {

constexpr int kThreads = 256;

/// A rule that the kernel is compiled for.
enum class Preset : uint8_t { te, mxfp4, mxfp8_e4m3, mxfp8_e5m2 };
template <Preset preset> struct Known {
  static constexpr Rule rule = preset == Preset::te           ? Rule{}
                               : preset == Preset::mxfp4      ? mx_floor_rule(FormatId::e2m1)
                               : preset == Preset::mxfp8_e4m3 ? mx_floor_rule(FormatId::e4m3)
                                                              : mx_floor_rule(FormatId::e5m2);
  static constexpr FormatId element = rule.element;
  static constexpr int block = rule.block;
};

/// Lane q of a group of `lanes` holds part i of every block i; afterwards v[0] is the maximum of block q.
/// Half of the values change hands at every step.
template <int lanes> __device__ inline uint32_t maximum_of_own(uint32_t (&v)[lanes], int q) {
#pragma unroll
  for (int d = lanes / 2; d > 0; d /= 2) {
    const bool upper = (q & d) != 0;
#pragma unroll
    for (int i = 0; i < d; ++i) {
      const uint32_t got = __shfl_xor_sync(kAllLanes, upper ? v[i] : v[i + d], d);
      v[i] = max(upper ? v[i + d] : v[i], got);
    }
  }
  return v[0];
}

/// Blocks are numbered one after the other: the matrix is one row of whole warps of blocks. A group of
/// `lanes` = block / 4 lanes holds one block at a time, `lanes` blocks in turn; lane q of the group owns the
/// q-th: it computes that block's scale.
template <class R>
__global__ void __launch_bounds__(kThreads) flat_kernel(const __grid_constant__ QuantizeJob job) {
  constexpr int lanes = R::block / 4;
  constexpr Rule rule = R::rule;
  const int lane = int(threadIdx.x) % 32, q = lane % lanes, group = lane / lanes;
  const int64_t base = (int64_t(blockIdx.x) * kThreads + (threadIdx.x - lane));
  if (base >= job.rows * (job.k / R::block)) return;
  // i-th block of this lane's group
  const auto block_of = [&](int i) { return base + i * (32 / lanes) + group; };

  float4 x[lanes];
#pragma unroll
  for (int i = 0; i < lanes; ++i)
    x[i] = *reinterpret_cast<const float4 *>(job.x + block_of(i) * R::block + 4 * q);
  // magnitudes as words: NaN above Inf above numbers. A NaN that must lose counts as 0.
  uint32_t largest[lanes];
#pragma unroll
  for (int i = 0; i < lanes; ++i) {
    if (rule.amax_nan == AmaxNan::propagate) {
      largest[i] = max(max(bit_cast<uint32_t>(fabsf(x[i].x)), bit_cast<uint32_t>(fabsf(x[i].y))),
                       max(bit_cast<uint32_t>(fabsf(x[i].z)), bit_cast<uint32_t>(fabsf(x[i].w))));
      continue;
    }
    const float m = fmaxf(fmaxf(fabsf(x[i].x), fabsf(x[i].y)), fmaxf(fabsf(x[i].z), fabsf(x[i].w)));
    largest[i] = m == m ? bit_cast<uint32_t>(m) : 0;
  }
  const uint32_t word = maximum_of_own<lanes>(largest, q);
  const float own_max = Amax{word, word > 0x7F800000u, true}.value(rule.amax_nan);
  if (job.maxima != nullptr) report_maximum(job.maxima, own_max, true);
  const GlobalScale global = rule.global == GlobalRule::none ? GlobalScale{} : job.globals[0];
  const BlockScale scale = block_scale(rule, own_max, global, job.source);
  job.scales[block_of(q)] = scale.code;
#pragma unroll
  for (int i = 0; i < lanes; ++i) {
    const int64_t b = block_of(i);
    const float factor = __shfl_sync(kAllLanes, scale.factor, lane - q + i);
    const float values[4] = {x[i].x, x[i].y, x[i].z, x[i].w};
    uint32_t packed = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float y = detail::multiply(rule.flush, values[j], factor);
      uint32_t code = nearest_code<R::element>(y);
      if (y != y) code = detail::nan_code(rule, rule.element, values[j]);
      packed |= code << (R::element == FormatId::e2m1 ? 4 * j : 8 * j);
    }
    if constexpr (R::element == FormatId::e2m1)
      reinterpret_cast<uint16_t *>(job.codes)[b * lanes + q] = uint16_t(packed);
    else
      reinterpret_cast<uint32_t *>(job.codes)[b * lanes + q] = packed;
  }
}

/// Runs the kernel of a rule that quantizes as the job's does; false for another.
template <Preset preset> bool launch(const QuantizeJob &job, cudaStream_t stream) {
  using R = Known<preset>;
  if (quantizing_part(job.rule) != quantizing_part(R::rule)) return false;
  flat_kernel<R><<<blocks_for(job.rows * (job.k / R::block), kThreads), kThreads, 0, stream>>>(job);
  check_launch("flat_kernel");
  return true;
}

} // namespace

bool quantize_fast(const QuantizeJob &job, cudaStream_t stream) {
  const Rule &r = job.rule;
  if (job.rounding != ElementRounding::nearest || job.block_rows != 1 || job.tiled_scales || r.per_row ||
      job.stride != job.k || job.k % r.block != 0 || job.rows * (job.k / r.block) % 32 != 0 ||
      reinterpret_cast<uintptr_t>(job.x) % 16 != 0)
    return false;
  return launch<Preset::te>(job, stream) || launch<Preset::mxfp4>(job, stream) ||
         launch<Preset::mxfp8_e4m3>(job, stream) || launch<Preset::mxfp8_e5m2>(job, stream);
}

} // namespace nvfp4::cuda
