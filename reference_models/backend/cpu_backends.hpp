// SPDX-License-Identifier: Apache-2.0
// The CPU backends by instruction set. Internal: make_cpu_backend chooses.
#pragma once
#include "nvfp4/reference_models/backend/backend.hpp"

namespace nvfp4::models {

/// Compiled for what every CPU of the architecture has; mixers on tensor cores use isa.
[[nodiscard]] std::unique_ptr<Backend<float>> make_baseline_backend(int threads, Isa isa = Isa::scalar);
[[nodiscard]] std::unique_ptr<Backend<double>> make_baseline_double_backend(int threads);
// These return plain pointers, so that their files need nothing of the standard library.
[[nodiscard]] Backend<float> *new_avx2_backend(int threads);
[[nodiscard]] Backend<float> *new_avx512_backend(int threads);

} // namespace nvfp4::models
