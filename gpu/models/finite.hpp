// SPDX-License-Identifier: Apache-2.0
// The search for numbers that are not finite, at the rate of memory. Internal.
#pragma once
#include "nvfp4/reference_models/kernels/finite.hpp"

namespace nvfp4::cuda {

/// What `kernel` does for every team, on the default stream.
void find_not_finite(const models::NotFiniteChunks<float> &kernel);

} // namespace nvfp4::cuda
