// SPDX-License-Identifier: Apache-2.0
// What the current device can run in this build, and the function that runs tiles of one instruction on it.
// Host pointers in and out; layouts are plain matrices, never register fragments.
#pragma once
#include "nvfp4/golden/cases/inputs.hpp"

#include <cstdint>
#include <span>

namespace nvfp4::gpu {

using namespace golden::cases; // the instructions and inputs that this folder runs

/// The device's architecture name ("sm_90"), features and instructions. The features are read from the loaded
/// code itself, so a plain sm_90 build reports no wgmma. Throw NoDevice or CudaError.
[[nodiscard]] const char *device_arch();
[[nodiscard]] uint32_t device_features();
[[nodiscard]] std::span<const MmaKind> kinds_for_device();

/// D = A B + C for `tiles` independent tiles. a [tiles][m][k], b [tiles][n][k] (K contiguous for each
/// column), scale_a [tiles][m][k/block], scale_b [tiles][n][k/block] (null without scales), c and d
/// [tiles][m][n]. One instruction per tile. Throws CudaError.
void run_tiles(const MmaKind &kind, int64_t tiles, const void *a, const void *b, const void *scale_a,
               const void *scale_b, const void *c, void *d);

} // namespace nvfp4::gpu
