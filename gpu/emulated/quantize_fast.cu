// SPDX-License-Identifier: Apache-2.0
// The fast kernels: blocks of 1x16 and 1x32 (and the blocks of 16x16 tiles whose maxima are known), nearest
// or stochastic. A warp reads 32 blocks in whole lines; each lane computes the scale of one block by the
// shared text, and its elements by quantize_elements.cuh. The usual presets have their rule compiled in.
#include "gpu/emulated/quantize_detail.cuh"
#include "gpu/emulated/quantize_elements.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kThreads = 256;

/// A rule known to the compiler, or the job's.
template <FormatId element_id, int block_size> struct DynamicRule {
  static constexpr FormatId element = element_id;
  static constexpr int block = block_size;
  __device__ static Rule of(const QuantizeJob &job) { return job.rule; }
};
NVFP4_HD constexpr Rule mx_floor(FormatId element) {
  return {.element = element,
          .scale = FormatId::ue8m0,
          .block = 32,
          .amax_nan = AmaxNan::propagate,
          .global = GlobalRule::none,
          .order = ScaleOrder::exponent_floor,
          .scale_rounding = ScaleRounding::e8m0_exact,
          .scaling = Scaling::exponent,
          .nan_code = element == FormatId::e2m1 ? NanCode::one_and_half : NanCode::plus_max,
          .decoding = Decoding::scale_only};
}
template <int which> NVFP4_HD constexpr Rule known_rule() {
  return which == 0   ? Rule{}
         : which == 1 ? mx_floor(FormatId::e2m1)
                      : mx_floor(which == 2 ? FormatId::e4m3 : FormatId::e5m2);
}
template <int which> struct KnownRule {
  static constexpr FormatId element = known_rule<which>().element;
  static constexpr int block = known_rule<which>().block;
  __device__ static constexpr Rule of(const QuantizeJob &) { return known_rule<which>(); }
};

/// Everything that the arithmetic of a rule reads; e4m3_max compared as a number.
bool same(const Rule &a, const Rule &b) {
  return a.element == b.element && a.scale == b.scale && a.block == b.block && a.e4m3_max == b.e4m3_max &&
         a.amax_nan == b.amax_nan && a.global == b.global && a.per_row == b.per_row && a.order == b.order &&
         a.scale_rounding == b.scale_rounding && a.scaling == b.scaling &&
         a.zero_multiplier == b.zero_multiplier && a.negative_zero == b.negative_zero &&
         a.nan_code == b.nan_code && a.four_over_six == b.four_over_six && a.flush == b.flush;
}

/// Lane q of a group of `lanes` holds part i of every block i; afterwards v[0] is the maximum of block q.
/// Half of the values change hands at every step.
template <int lanes> __device__ inline uint32_t maximum_of_own(uint32_t (&v)[lanes], int q) {
#pragma unroll
  for (int d = lanes / 2; d > 0; d /= 2) {
    const bool upper = (q & d) != 0;
#pragma unroll
    for (int i = 0; i < d; ++i) {
      const uint32_t got = __shfl_xor_sync(0xFFFFFFFF, upper ? v[i] : v[i + d], d);
      v[i] = max(upper ? v[i + d] : v[i], got);
    }
  }
  return v[0];
}

/// Lane q of four holds words 0..3 of its own block's call; afterwards v[i] is word q of lane i's call.
__device__ inline void transpose4(uint32_t (&v)[4], int q) {
#pragma unroll
  for (int d = 1; d < 4; d *= 2) {
    const bool upper = (q & d) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if ((i & d) == 0) {
        const uint32_t got = __shfl_xor_sync(0xFFFFFFFF, upper ? v[i] : v[i + d], d);
        (upper ? v[i] : v[i + d]) = got;
      }
  }
}

/// Blocks are numbered row after row. A group of `lanes` = block / 4 lanes holds one block at a time, `lanes`
/// blocks in turn; lane q of the group owns the q-th: it computes that block's scale. `flat`: the matrix is
/// one row of whole warps of blocks with linear scales and nothing per row, so that addresses need no
/// divisions and loads no conditions.
template <class R, ElementRounding rounding, bool flat>
__global__ void __launch_bounds__(kThreads) blocks_kernel(const __grid_constant__ QuantizeJob job) {
  constexpr int lanes = R::block / 4;
  constexpr bool eight_bits = rounding == ElementRounding::sr_carry8 || rounding == ElementRounding::sr_te;
  const Rule rule = R::of(job);
  const int64_t columns = job.k / R::block, blocks = job.rows * columns;
  const int lane = int(threadIdx.x) % 32, q = lane % lanes, group = lane / lanes;
  const int64_t base = (int64_t(blockIdx.x) * kThreads + (threadIdx.x - lane));
  if (base >= blocks) return;
  // i-th block of this lane's group
  const auto block_of = [&](int i) { return base + i * (32 / lanes) + group; };
  const bool dense = flat || job.stride == job.k;

  float4 x[lanes];
#pragma unroll
  for (int i = 0; i < lanes; ++i) {
    const int64_t b = block_of(i);
    x[i] = make_float4(0, 0, 0, 0);
    if constexpr (flat) {
      x[i] = *reinterpret_cast<const float4 *>(job.x + b * R::block + 4 * q);
    } else if (b < blocks) {
      const int64_t at = dense ? b * R::block : b / columns * job.stride + b % columns * R::block;
      x[i] = *reinterpret_cast<const float4 *>(job.x + at + 4 * q);
    }
  }
  float own_max = 0.0f;
  const int64_t own = block_of(q);
  int64_t own_row = 0, own_column = 0;
  if (!flat && own < blocks &&
      (job.tile_maxima != nullptr || job.tiled_scales || rule.per_row)) { // a division else saved
    own_row = own / columns;
    own_column = own % columns;
  }
  if (!flat && job.tile_maxima != nullptr) {
    own_max = bit_cast<float>(job.tile_maxima[own_row / 16 * columns + own_column]);
  } else {
    // magnitudes as words: NaN above Inf above numbers. A NaN that must lose counts as 0; unless_all
    // remembers numbers.
    uint32_t largest[lanes], numbers = 0;
#pragma unroll
    for (int i = 0; i < lanes; ++i) {
      if (rule.amax_nan == AmaxNan::propagate) {
        largest[i] = max(max(bit_cast<uint32_t>(fabsf(x[i].x)), bit_cast<uint32_t>(fabsf(x[i].y))),
                         max(bit_cast<uint32_t>(fabsf(x[i].z)), bit_cast<uint32_t>(fabsf(x[i].w))));
        continue;
      }
      const float m = fmaxf(fmaxf(fabsf(x[i].x), fabsf(x[i].y)), fmaxf(fabsf(x[i].z), fabsf(x[i].w)));
      largest[i] = m == m ? bit_cast<uint32_t>(m) : 0;
      numbers |= uint32_t(m == m) << i;
    }
    const uint32_t word = maximum_of_own<lanes>(largest, q);
    if (rule.amax_nan == AmaxNan::unless_all)
      for (int d = 1; d < lanes; d *= 2) numbers |= __shfl_xor_sync(0xFFFFFFFF, numbers, d);
    own_max = Amax{word, word > 0x7F800000u, (numbers >> q & 1) != 0}.value(rule.amax_nan);
    if (rule.amax_nan == AmaxNan::unless_all && (numbers >> q & 1) == 0)
      own_max = bit_cast<float>(0x7FC00000u);
  }
  if (job.maxima != nullptr) {
    // NaN blocks make the maximum NaN exactly where NaN elements would: see Amax::value
    const bool nan = own_max != own_max;
    const bool counts = flat || own < blocks;
    const uint32_t word = __reduce_max_sync(0xFFFFFFFF, nan || !counts ? 0 : bit_cast<uint32_t>(own_max));
    const uint32_t nans = __ballot_sync(0xFFFFFFFF, nan && counts),
                   numbers = __ballot_sync(0xFFFFFFFF, !nan && counts);
    // most warps find a larger maximum there already and spare the atomics
    const volatile AmaxWords *const seen = job.maxima;
    if (lane == 0 && word > seen->word) atomicMax(&job.maxima->word, word);
    if (lane == 0 && nans != 0 && seen->nan == 0) atomicMax(&job.maxima->nan, 1u);
    if (lane == 0 && numbers != 0 && seen->number == 0) atomicMax(&job.maxima->number, 1u);
  }
  const GlobalScale global =
      rule.global == GlobalRule::none ? GlobalScale{} : job.globals[rule.per_row ? own_row : 0];
  const BlockScale scale = block_scale(rule, own_max, global, job.source);
  if (flat || own < blocks)
    job.scales[!flat && job.tiled_scales ? job.scale_at(own_row, own_column) : own] = scale.code;

  [[maybe_unused]] uint32_t bytes[4];
  if constexpr (eight_bits && lanes == 4) {
    if (!job.random_by_column) {
      const PhiloxBlock words = job.key.block(uint64_t(own)); // index of the first element / 16
#pragma unroll
      for (int i = 0; i < 4; ++i) bytes[i] = words.word[i];
      transpose4(bytes, q);
    }
  }
  const bool divides = rule.scaling == Scaling::divide || rule.scaling == Scaling::divide_encode;
#pragma unroll
  for (int i = 0; i < lanes; ++i) {
    const int64_t b = block_of(i);
    const int owner = lane - q + i;
    BlockScale s;
    s.factor = __shfl_sync(0xFFFFFFFF, scale.factor, owner);
    if (rule.global == GlobalRule::quotient)
      s.skipped = __shfl_sync(0xFFFFFFFF, int(scale.skipped), owner) != 0;
    const float values[4] = {x[i].x, x[i].y, x[i].z, x[i].w};
    uint32_t packed = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t random = 0;
      if constexpr (rounding != ElementRounding::nearest) {
        if (eight_bits && lanes == 4 && !job.random_by_column) {
          random = bytes[i % 4] >> (8 * j) & 0xFF;
        } else {
          const int64_t first = b % columns * R::block + 4 * q + j;
          const uint64_t index = job.random_index(b / columns, first);
          random = eight_bits ? job.key.bits8(index) : job.key.bits32(index);
        }
      }
      const float y = divides ? detail::divide(rule.flush, values[j], s.factor)
                              : detail::multiply(rule.flush, values[j], s.factor);
      uint32_t code = element_code<R::element, rounding>(y, random);
      if (rule.negative_zero == NegativeZero::drop_exact && y == 0.0f) code = 0;
      if (y != y) code = detail::nan_code(rule, values[j]);
      if (s.skipped) code = 0;
      packed |= code << (R::element == FormatId::e2m1 ? 4 * j : 8 * j);
    }
    if (!flat && b >= blocks) continue;
    if constexpr (R::element == FormatId::e2m1)
      reinterpret_cast<uint16_t *>(job.codes)[b * lanes + q] = uint16_t(packed);
    else
      reinterpret_cast<uint32_t *>(job.codes)[b * lanes + q] = packed;
  }
}

template <class R, ElementRounding rounding, bool may_be_flat = false>
void launch(const QuantizeJob &job, cudaStream_t stream) {
  const int64_t blocks = job.rows * (job.k / R::block);
  if (blocks == 0) return;
  if constexpr (may_be_flat)
    if (job.stride == job.k && blocks % 32 == 0 && job.tile_maxima == nullptr && !job.tiled_scales &&
        !job.rule.per_row) {
      blocks_kernel<R, rounding, true><<<blocks_for(blocks, kThreads), kThreads, 0, stream>>>(job);
      check_launch("blocks_kernel");
      return;
    }
  blocks_kernel<R, rounding, false><<<blocks_for(blocks, kThreads), kThreads, 0, stream>>>(job);
  check_launch("blocks_kernel");
}

template <class R> void launch_rounding(const QuantizeJob &job, cudaStream_t stream) {
  switch (job.rounding) {
  case ElementRounding::nearest: return launch<R, ElementRounding::nearest>(job, stream);
  case ElementRounding::sr_carry8: return launch<R, ElementRounding::sr_carry8>(job, stream);
  case ElementRounding::sr_exact: return launch<R, ElementRounding::sr_exact>(job, stream);
  case ElementRounding::sr_te:
    if constexpr (R::element == FormatId::e2m1) launch<R, ElementRounding::sr_te>(job, stream);
  }
}

} // namespace

bool quantize_fast(const QuantizeJob &job, cudaStream_t stream) {
  const Rule &r = job.rule;
  if (r.four_over_six != FourOverSix::off || r.scaling == Scaling::search || job.k % r.block != 0 ||
      job.stride % 4 != 0 || reinterpret_cast<uintptr_t>(job.x) % 16 != 0 ||
      (job.block_rows != 1 && job.tile_maxima == nullptr))
    return false;
  const bool nearest = job.rounding == ElementRounding::nearest;
  if (r.element == FormatId::e2m1 && r.block == 16) {
    if (nearest && same(r, known_rule<0>()))
      launch<KnownRule<0>, ElementRounding::nearest, true>(job, stream);
    else if (same(r, known_rule<0>()))
      launch_rounding<KnownRule<0>>(job, stream);
    else
      launch_rounding<DynamicRule<FormatId::e2m1, 16>>(job, stream);
    return true;
  }
  if (nearest && same(r, known_rule<1>()))
    return launch<KnownRule<1>, ElementRounding::nearest, true>(job, stream), true;
  if (nearest && same(r, known_rule<2>()))
    return launch<KnownRule<2>, ElementRounding::nearest, true>(job, stream), true;
  if (nearest && same(r, known_rule<3>()))
    return launch<KnownRule<3>, ElementRounding::nearest, true>(job, stream), true;
  if (r.block != 32) return false;
  if (r.element == FormatId::e2m1)
    launch_rounding<DynamicRule<FormatId::e2m1, 32>>(job, stream);
  else if (r.element == FormatId::e4m3)
    launch_rounding<DynamicRule<FormatId::e4m3, 32>>(job, stream);
  else if (r.element == FormatId::e5m2)
    launch_rounding<DynamicRule<FormatId::e5m2, 32>>(job, stream);
  else
    return false;
  return true;
}

} // namespace nvfp4::cuda
