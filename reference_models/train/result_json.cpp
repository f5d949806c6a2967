// SPDX-License-Identifier: Apache-2.0
// Writes what a run gave.
#include "nvfp4/reference_models/train/result_json.hpp"

#include "nvfp4/reference_models/fields/json.hpp"

#include <cmath>

namespace nvfp4::models {

std::string result_json(const TrainResult &result, double tokens_per_second, const std::string &out) {
  nlohmann::ordered_json j;
  j["steps"] = result.steps;
  if (result.interrupted) j["interrupted"] = true;
  if (result.diverged != 0) {
    j["diverged"] = result.diverged;
    j["last_finite_loss"] = result.last_finite_loss;
  }
  if (result.not_finite) j["not_finite"] = fields_to_json(kNotFiniteFields, *result.not_finite);
  j["final_loss"] = result.final_loss;
  j["smoothed_loss"] = result.smoothed_loss;
  j["validation_loss"] = result.validation_loss;
  if (result.validation_accuracy) j["validation_accuracy"] = *result.validation_accuracy;
  if (result.bits_per_byte > 0) j["bits_per_byte"] = result.bits_per_byte;
  j["digest"] = result.parameter_digest;
  j["tokens_per_s"] = std::round(tokens_per_second);
  j["out"] = out;
  return j.dump();
}

} // namespace nvfp4::models
