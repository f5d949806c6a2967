// SPDX-License-Identifier: Apache-2.0
// Trains one model under one recipe into a folder: run.json, log.jsonl, checkpoint.safetensors, diagnostics.
// A run that was stopped at any moment continues with the same bits.
#pragma once
#include "nvfp4/reference_models/diagnostics/finite.hpp"

#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace nvfp4::models {

/// Everything that decides the bits of a run, and a few things that do not. What each field is, may be and
/// decides is said in the list kTrainFields (train/options.hpp).
struct TrainOptions {
  std::string model = "gla", size = "tiny", sizes, recipe = "nvfp4";
  int64_t bf16_first = -1, bf16_last = -1;
  std::string data = "build/corpus/kjv.txt", validation_data, out;
  int64_t steps = 100;
  uint64_t seed = 1;
  int64_t batch = 4, sequence = 64, accumulation = 1;
  double learning_rate = 1e-3, final_learning_rate = 0.1;
  int64_t warmup = -1, schedule_steps = -1;
  std::string schedule = "cosine";
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1, clip = 1.0;
  double validation = 0.05;
  int64_t eval_every = 0, eval_batches = 16, checkpoint_every = 0, diagnostics_every = -1,
          diagnostics_tokens = 0;
  bool sensitivity = false, resume = false;
  int threads = 0;
  std::string device = "cpu";
};

/// What one optimizer step did.
struct StepReport {
  int64_t step = 0;   ///< from 1
  int64_t steps = 0;  ///< of the run
  int64_t tokens = 0; ///< trained so far
  float loss = 0;     ///< nats per token, mean over the step
  float learning_rate = 0;
  float gradient_norm = 0; ///< before clipping
  double tokens_per_second = 0;
  std::optional<double> validation_loss; ///< nats per token
  std::optional<double> validation_accuracy = {}; ///< of a network that classifies, 0 to 1
  /// The step's first tensor with NaN or Inf (train/training_step.hpp); a run stops at the first step that
  /// has one.
  std::optional<NotFinite> not_finite = {};

  [[nodiscard]] bool finite() const {
    return !not_finite && std::isfinite(loss) && std::isfinite(gradient_norm);
  }
};

struct TrainResult {
  int64_t steps = 0;
  double final_loss = 0;      ///< of the last step
  double smoothed_loss = 0;   ///< mean of the last 10 % of steps (at least 1)
  double validation_loss = 0; ///< at the end
  std::optional<double> validation_accuracy = {}; ///< at the end, of a network that classifies
  double bits_per_byte = 0;   ///< validation_loss / ln 2, for byte-level data
  int64_t diverged = 0;       ///< step at which something was not finite and the run stopped; 0: none
  std::optional<NotFinite> not_finite; ///< the first such tensor of that step, or of the last validation
  std::string parameter_digest;        ///< of parameters, moments and step: 64 bits, 16 hexadecimal digits
                                       ///< (kernels/digest.hpp)
  double last_finite_loss = 0;         ///< of a run that diverged; NaN if it had none
  bool interrupted = false;            ///< `stop` said so: a resumed run goes on, no validation_loss
};

/// Runs or resumes. Throws Error for bad options, data or checkpoints; `on_step` is called after each step.
/// When stop() is true after a step, a checkpoint is written and the run ends there, to be resumed. `on_start` gets the
/// fraction of initial values made.
TrainResult train(const TrainOptions &options, const std::function<void(const StepReport &)> &on_step = {},
                  const std::function<bool()> &stop = {}, const std::function<void(double)> &on_start = {});

} // namespace nvfp4::models
