// SPDX-License-Identifier: Apache-2.0
// The kernels of gpu/hopper against their definitions on the CPU, and their speed.
#pragma once
#include "nvfp4/gpu/check/check.hpp"

namespace nvfp4::crosscheck {

/// True on a GPU of compute capability 9.0.
[[nodiscard]] bool has_hopper();
/// Throws models::NoDevice unless has_hopper().
void require_hopper();

/// Whole GEMMs of the real tensor cores against the CPU's exact units, every output word: ragged shapes,
/// unaligned rows, every epilogue, several distributions, sizes up to `largest`.
[[nodiscard]] Tally check_hopper_gemm(int64_t largest);
/// Every output word of attention, forward and backward, for lengths up to `largest`.
[[nodiscard]] Tally check_attention(int64_t largest);
/// Every word of every array of chunkwise GLA, forward and backward; `quick` leaves the long cases out.
[[nodiscard]] Tally check_gla(bool quick);

/// Prints milliseconds and TFLOP/s; `which`: "forward", "backward" or "" for both.
void time_attention(const std::string &which);
/// Prints milliseconds, GB/s and TFLOP/s of each kernel beside its roofline.
void time_gla();
/// Forward and backward once, for a profiler.
void run_gla();

} // namespace nvfp4::crosscheck
