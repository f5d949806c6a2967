// SPDX-License-Identifier: Apache-2.0
// Recipes' BF16 mixers on a GPU: the kernels of gpu/hopper between FP32 arrays.
#pragma once
#include "nvfp4/gpu/device/timeline.hpp"
#include "nvfp4/reference_models/backend/backend.hpp"

namespace nvfp4::cuda {

/// `backend` gives the memory and, like `timeline` (may be null), outlives the mixer; all work goes to the
/// default stream. Throws models::NoDevice unless the GPU has compute capability 9.0, Error for a unit with
/// other bits than its tensor cores'.
[[nodiscard]] std::unique_ptr<models::Bf16Gla> make_cuda_bf16_gla(models::Backend<float> &backend,
                                                                  const models::bf16_gla::Shape &shape,
                                                                  const Unit &unit, Timeline *timeline);
[[nodiscard]] std::unique_ptr<models::Bf16Attention>
make_cuda_bf16_attention(models::Backend<float> &backend, const models::tensorcore::AttentionShape &shape,
                         const Unit &unit, Timeline *timeline);

} // namespace nvfp4::cuda
