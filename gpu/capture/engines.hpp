// SPDX-License-Identifier: Apache-2.0
// What each engine's file offers to run_tiles: launch one kind on device pointers. Internal to this folder.
#pragma once
#include "nvfp4/gpu/capture/run_tiles.hpp"

namespace nvfp4::gpu {

/// Device pointers of a batch of tiles, laid out as run_tiles describes.
struct TileArgs {
  int64_t tiles;
  const void *a, *b, *scale_a, *scale_b, *c;
  void *d;
};

/// Each launches asynchronously on the default stream and returns false when it has no such kind.
[[nodiscard]] bool launch_mma_dense(const MmaKind &kind, const TileArgs &args);
[[nodiscard]] bool launch_mma_fp8(const MmaKind &kind, const TileArgs &args);
[[nodiscard]] bool launch_mma_f64(const MmaKind &kind, const TileArgs &args);
[[nodiscard]] bool launch_mma_f8f6f4(const MmaKind &kind, const TileArgs &args);
[[nodiscard]] bool launch_mma_block(const MmaKind &kind, const TileArgs &args);
[[nodiscard]] bool launch_wgmma(const MmaKind &kind, const TileArgs &args);
[[nodiscard]] bool launch_tcgen05(const MmaKind &kind, const TileArgs &args);

/// Runs wgmma.k16.f32.f16 on generated tiles with A in shared memory and with A in registers; true when every
/// bit of D agrees. A check of the shared-memory layout and of the instruction at once. Needs kWgmma.
[[nodiscard]] bool wgmma_register_a_agrees();

} // namespace nvfp4::gpu
