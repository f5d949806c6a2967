// SPDX-License-Identifier: Apache-2.0
// A model with everything it runs on, made from a configuration: backend, operand engine, model.
#pragma once
#include "reference_models/model/model.hpp"
#include "reference_models/train/checkpoint.hpp"

#include <memory>

namespace nvfp4::models {

struct Session {
  std::unique_ptr<Backend<float>> backend;
  std::unique_ptr<OperandEngine> engine;
  std::unique_ptr<Model<float>> model;
};

/// device: "cpu". Throws Error for another, and NoDevice where it is not there.
[[nodiscard]] Session make_session(const std::string &device, int threads, const ModelConfig &config,
                                   const Recipe &recipe, int64_t batch, int64_t length, bool training);

} // namespace nvfp4::models
