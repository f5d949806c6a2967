// SPDX-License-Identifier: Apache-2.0
// What a training run gave, for machines.
#pragma once
#include "nvfp4/reference_models/train/trainer.hpp"

namespace nvfp4::models {

/// One line, as `nvfp4 train --json` prints it; `out` is the run's folder.
[[nodiscard]] std::string result_json(const TrainResult &result, double tokens_per_second, const std::string &out);

} // namespace nvfp4::models
