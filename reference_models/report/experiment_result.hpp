// SPDX-License-Identifier: Apache-2.0
// What a run gave, as experiments write and read it. Internal.
#pragma once
#include "nvfp4/reference_models/train/fields.hpp"
#include "nvfp4/reference_models/train/trainer.hpp"

namespace nvfp4::models {

[[nodiscard]] nlohmann::ordered_json experiment_result_json(const TrainResult &result);
[[nodiscard]] TrainResult experiment_result_of(const Fields &fields);

} // namespace nvfp4::models
