// SPDX-License-Identifier: Apache-2.0
// A model with everything it runs on, made from a configuration: backend, operand engine, model.
#pragma once
#include "nvfp4/reference_models/model/model.hpp"
#include "nvfp4/reference_models/train/checkpoint.hpp"

#include <functional>
#include <memory>

namespace nvfp4::models {

struct Session {
  std::unique_ptr<Backend<float>> backend;
  std::unique_ptr<OperandEngine> engine;
  std::unique_ptr<Model<float>> model;
};

/// Makes backend and engine of a device, or throws NoDevice. The argument is the number of CPU threads.
using DeviceFactory = std::function<Session(int threads)>;
/// Adds a device; one of the same name gives way, the CPU included. Before any session is made, on one
/// thread.
void register_device(const std::string &name, DeviceFactory factory);

/// Backend and engine of the CPU; isa: instead of the best that it has, changes no bit.
[[nodiscard]] Session make_cpu_session(int threads, std::optional<Isa> isa = {});

/// Backend and engine of a device by name; Error for another, NoDevice where it is not there.
[[nodiscard]] Session make_device(const std::string &device, int threads);

/// Throws Error where the machine's memory is less than what a model on the CPU takes at least, with the
/// tokens of a step, before anything of it is made.
void check_memory(const ModelConfig &config, int64_t batch, int64_t length, bool training,
                  int64_t micro_batches);

/// device: "cpu", or a registered one ("cuda" where the program was built with it). Throws Error for another,
/// NoDevice where this build or this machine does not have it, and what check() and check_memory() throw.
[[nodiscard]] Session make_session(const std::string &device, int threads, const ModelConfig &config,
                                   const Recipe &recipe, int64_t batch, int64_t length, bool training);

} // namespace nvfp4::models
