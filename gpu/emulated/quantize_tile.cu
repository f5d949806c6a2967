// SPDX-License-Identifier: Apache-2.0
// Quantization by tiles of one tensor.
#include "nvfp4/gpu/emulated/quantize_block.cuh"

namespace nvfp4::cuda {
namespace {

template <class R, ElementRounding rounding>
__global__ void __launch_bounds__(kTileThreads, kResident<R, rounding>)
    tile_kernel(const __grid_constant__ TileJob t) {
  quantize_tile<R, rounding>(t);
}

struct OneTensor {
  const TileJob &t;
  cudaStream_t stream;

  template <class R, ElementRounding rounding> void run() const {
    const TileJob flat = flattened<R::block>(t);
    tile_kernel<R, rounding><<<tile_grid<R::block>(flat), kTileThreads, 0, stream>>>(flat);
    check_launch("tile_kernel");
  }
};

} // namespace

bool tiles_cover(const TileJob &t) {
  const QuantizeJob &job = t.job;
  const Rule &r = job.rule;
  const bool known = r.block == 16
                         ? r.element == FormatId::e2m1
                         : r.block == 32 && (r.element == FormatId::e2m1 || r.element == FormatId::e4m3 ||
                                             r.element == FormatId::e5m2);
  const bool scales = r.scale == FormatId::ue4m3 || r.scale == FormatId::ue8m0; // what fast_scale knows
  const bool steps = r.ties == Ties::even && r.order != ScaleOrder::bf16_inverse_top &&
                     r.scaling != Scaling::bf16_reciprocal && r.scaling != Scaling::divide_bf16_reciprocal &&
                     r.scaling != Scaling::divide_unrounded && r.order != ScaleOrder::offset_sixth_by_decode &&
                     r.scale_rounding != ScaleRounding::one_if_zero && r.scale_rounding != ScaleRounding::power_normal &&
                     r.top == 0.0f && job.rounding != ElementRounding::sr_mid8 &&
                     (r.four_over_six == FourOverSix::off || r.second_scale == SecondScale::wider);
  const bool adaptive = r.four_over_six != FourOverSix::off || r.scaling == Scaling::search;
  // Philox calls of a turned source are shared by neighbouring rows of the output
  const bool shares = !t.turned || job.rounding == ElementRounding::nearest || job.rows % 16 == 0;
  return known && scales && steps && shares && (!adaptive || r.block == 16) && job.k % r.block == 0 &&
         job.k / r.block <= 65535 * kTileBlocks;
}

void quantize_tiles(const TileJob &t, cudaStream_t stream) {
  launch_rule(t.job.rule, t.job.rounding, OneTensor{t, stream});
}

} // namespace nvfp4::cuda
