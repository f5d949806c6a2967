// SPDX-License-Identifier: Apache-2.0
// Trains one convolutional network under one recipe into a folder, as train/trainer.hpp does with language models: run.json,
// log.jsonl (its tokens are images), checkpoint.safetensors. A run that was stopped at any moment continues with the same
// bits. And measures a checkpoint.
#pragma once
#include "nvfp4/reference_models/images/config.hpp"
#include "nvfp4/reference_models/images/recipes.hpp"
#include "nvfp4/reference_models/train/trainer.hpp"

namespace nvfp4::models {

/// What each field is, may be and decides is said in the list kImageTrainFields (images/options.hpp).
struct ImageOptions {
  std::string size = "tiny", widths;
  int64_t convolutions = -1, hidden = -1;
  std::string recipe = "nvfp4";
  int64_t bf16_first = -1, bf16_last = -1;
  std::string data = "task:shapes", validation_data, out;
  int64_t steps = 400;
  uint64_t seed = 1;
  int64_t batch = 32;
  double learning_rate = 4e-3, final_learning_rate = 0.01;
  int64_t warmup = -1, schedule_steps = -1;
  std::string schedule = "cosine";
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 5e-4, clip = 0.5;
  double validation = 0.1;
  bool plain = false;
  int64_t eval_every = 0, eval_images = 1000, checkpoint_every = 0;
  bool resume = false;
  int threads = 0;
  std::string device = "cpu";
};

/// The network that the options name. Throws Error where they make none.
[[nodiscard]] ImageConfig image_config(const ImageOptions &options);
/// The recipe that they name, with the layers in BF16 that they ask for.
[[nodiscard]] Recipe image_recipe(const ImageOptions &options);

/// The options in run.json of a folder, with its network and recipe as they are there. Throws Error where there is none, it
/// is damaged or is no run of a convolutional network.
struct StoredImageRun {
  ImageOptions options;
  ImageConfig config;
  Recipe recipe;
};
[[nodiscard]] StoredImageRun read_image_run(const std::string &folder);

/// Runs or resumes; a resumed run takes network and recipe from its folder. The result has validation_accuracy. Throws Error
/// for bad options, data or checkpoints. `stop` as in train().
TrainResult train_images(const ImageOptions &options, const std::function<void(const StepReport &)> &on_step = {},
                         const std::function<bool()> &stop = {});

struct ImageEvaluation {
  double loss = 0, accuracy = 0; ///< nats an image; of 1
  int64_t images = 0;
  std::string recipe = {};
  std::optional<NotFinite> not_finite = {};
};

struct ImageEvaluationOptions {
  std::string checkpoint, recipe, data = "task:shapes", validation_data; ///< recipe: empty for the checkpoint's own
  double validation = 0.1;
  int64_t batch = 100, images = 10000; ///< at a time, at most
  int threads = 0;
  std::string device = "cpu";
  std::function<void(double)> progress = {};
};
/// Loss and accuracy of a checkpoint on held-out images, with stored means and variances and its hot channels.
[[nodiscard]] ImageEvaluation evaluate_images(const ImageEvaluationOptions &options);

} // namespace nvfp4::models
