// SPDX-License-Identifier: Apache-2.0
// The models' backend on a CUDA device: the same kernels as on the CPU, bit for bit.
#pragma once
#include "nvfp4/gpu/device/timeline.hpp"
#include "nvfp4/reference_models/backend/backend.hpp"

namespace nvfp4::cuda {

/// Throws models::NoDevice, with one line, without a GPU of compute capability 8.0 or newer.
void require_device();

/// All work goes to the default stream. `timeline`, when given, outlives the backend and is marked after
/// every kernel. Throws models::NoDevice without a usable device.
[[nodiscard]] std::unique_ptr<models::Backend<float>> make_cuda_backend(Timeline *timeline = nullptr);

} // namespace nvfp4::cuda
