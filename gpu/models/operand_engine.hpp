// SPDX-License-Identifier: Apache-2.0
// The models' operand engine on a CUDA device: the same codes, scales and products as on the CPU, bit for
// bit.
#pragma once
#include "nvfp4/gpu/device/timeline.hpp"
#include "nvfp4/reference_models/linear/operand_engine.hpp"

namespace nvfp4::cuda {

struct OperandEngineOptions {
  /// Multiply on the GPU's own tensor cores where they are the unit that a recipe names (BF16 of sm_90 on
  /// such a GPU); else, and for all other units, by the exact emulation.
  bool own_tensor_cores = true;
  Timeline *timeline = nullptr; ///< marked after every operation; outlives the engine
};

/// Work starts after what is in the default stream, which goes on after it; the host waits for nothing.
[[nodiscard]] std::unique_ptr<models::OperandEngine>
make_cuda_operand_engine(const OperandEngineOptions &options = {});

} // namespace nvfp4::cuda
