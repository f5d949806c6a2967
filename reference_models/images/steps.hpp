// SPDX-License-Identifier: Apache-2.0
// Training steps of a convolutional network without a folder: what the trainer takes, and what is compared between devices.
#pragma once
#include "nvfp4/reference_models/images/data.hpp"
#include "nvfp4/reference_models/images/network.hpp"
#include "nvfp4/reference_models/images/train.hpp"
#include "nvfp4/reference_models/train/steps.hpp"
#include "nvfp4/reference_models/train/training_step.hpp"

namespace nvfp4::models {

/// Data, device, network and optimizer of a run, and one step of it. Its order decides bits and is written here alone.
class ImageSteps {
public:
  /// Opens the data and the device that the options name; parameters are zeros until the network is initialised or loaded.
  /// Throws Error where one of them is not there.
  ImageSteps(const ImageOptions &options, const ImageConfig &config, const Recipe &recipe);

  /// Step `step`, from 1: images, forward, backward, AdamW, soft clipping. The loss is nats an image, their mean.
  StepOutcome step(int64_t step);
  /// The rate of a step under the options' schedule.
  [[nodiscard]] float learning_rate(int64_t step) const;

  [[nodiscard]] const ImageSource &data() const { return *data_; }
  [[nodiscard]] ImageNetwork<float> &network() { return *network_; }
  [[nodiscard]] Optimizer<float> &optimizer() { return *optimizer_; }

private:
  ImageOptions o_;
  float soft_clip_; ///< 0: none
  std::unique_ptr<ImageSource> data_;
  Session session_;
  std::unique_ptr<ImageNetwork<float>> network_;
  std::unique_ptr<Optimizer<float>> optimizer_;
  std::vector<float> pixels_;
  std::vector<int32_t> labels_;
};

/// Steps that a schedule is made for.
[[nodiscard]] int64_t steps_of_schedule(const ImageOptions &options);

/// The options' steps from initial values: the same numbers on every machine and device. `out` and the counts of
/// validations are not read.
[[nodiscard]] std::vector<StepRecord> run_image_steps(const ImageOptions &options);

} // namespace nvfp4::models
