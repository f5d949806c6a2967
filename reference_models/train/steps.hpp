// SPDX-License-Identifier: Apache-2.0
// A few training steps without a folder: what golden training slices record, and what is compared between
// devices.
#pragma once
#include "nvfp4/reference_models/fields/field.hpp"
#include "nvfp4/reference_models/train/session.hpp"

namespace nvfp4::models {

struct StepsOptions {
  std::string model = "gla", size = "tiny", recipe = "nvfp4";
  std::string data = "task:copy,vocab=200";
  int64_t steps = 20, batch = 4, sequence = 64;
  uint64_t seed = 1;
  double learning_rate = 2e-3; ///< constant
  std::string device = "cpu";
  int threads = 0;
};

/// What a golden training slice says of its steps besides recipe and number.
inline constexpr auto kStepsFields =
    std::tuple{field("model", &StepsOptions::model, "Family, or a JSON file with the sizes"),
               field("size", &StepsOptions::size, "Preset of the family"),
               field("data", &StepsOptions::data, "Text file or task"),
               field("batch", &StepsOptions::batch, "Sequences a step", at_least(1)),
               field("sequence", &StepsOptions::sequence, "Tokens a sequence", at_least(1)),
               field("seed", &StepsOptions::seed, "Of initial values, order of data, stochastic rounding"),
               field("learning_rate", &StepsOptions::learning_rate, "Constant", above(0))};

struct StepRecord {
  uint32_t loss = 0;  ///< FP32 word
  std::string digest; ///< of parameters, moments and counter after the step
  bool operator==(const StepRecord &) const = default;
};

/// The same numbers on every machine and device.
[[nodiscard]] std::vector<StepRecord> run_steps(const StepsOptions &options,
                                                const std::function<void(int64_t)> &on_step = {});

} // namespace nvfp4::models
