// SPDX-License-Identifier: Apache-2.0
// The models' backend on a CUDA device: the same kernels as on the CPU, bit for bit.
#pragma once
#include "reference_models/backend/backend.hpp"

namespace nvfp4::cuda {

/// Throws models::NoDevice without a usable device.
[[nodiscard]] std::unique_ptr<models::Backend<float>> make_cuda_backend();

} // namespace nvfp4::cuda
