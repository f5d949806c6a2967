// SPDX-License-Identifier: Apache-2.0
// One optimizer step. Its order decides bits and is written here alone: the trainer, recorded slices, golden
// training, benchmarks and the comparison of devices all take this one.
#pragma once
#include "nvfp4/reference_models/data/source.hpp"
#include "nvfp4/reference_models/model/model.hpp"
#include "nvfp4/reference_models/train/optimizer.hpp"

namespace nvfp4::models {

/// What a step takes besides the state before it.
struct StepInput {
  int64_t step = 1;  ///< from 1; the state before it has step - 1 behind it
  uint64_t seed = 1; ///< of the order of data and of stochastic rounding
  int64_t accumulation = 1, batch = 1, sequence = 1;
  float learning_rate = 0;
  std::vector<int32_t> tokens; ///< (accumulation, batch, sequence + 1)
  std::vector<float> weights;  ///< of the targets, (accumulation, batch, sequence)

  [[nodiscard]] int64_t targets() const { return accumulation * batch * sequence; }
};

/// Fills tokens and weights with what training reads at input.step: `accumulation` micro-batches, numbered
/// through from (step - 1) * accumulation.
void read_micro_batches(const DataSource &data, StepInput &input);

/// Gives the model the tokens and weights of micro-batch `micro`, from 0.
void set_micro_batch(Model<float> &model, const StepInput &input, int64_t micro);

/// Called on the way; what they change would change bits.
struct StepCallbacks {
  std::function<void(int64_t micro)> before_forward; ///< its tokens are set
  std::function<void(int64_t micro)> after_forward;  ///< activations and logits are there, the loss is not
  std::function<void(int64_t micro)> after_backward;
  std::function<void()> before_update; ///< the gradients are whole and not clipped
};

struct StepOutcome {
  float loss = 0; ///< nats per token: sum of weighted losses over the sum of all weights of the step
  double gradient_norm = 0; ///< before clipping
  /// The first tensor in order of computation that held NaN or Inf, if any did: parameters before the step,
  /// what linear layers read and make, gradients, moments and parameters after it. Loss and norm may be
  /// finite all the same, since quantization makes numbers of NaN.
  std::optional<NotFinite> not_finite;
};

/// Forward, loss and backward of each micro-batch in turn; adds to the model's gradients, which are zero
/// before a step. Every target's gradient is divided by the sum of the weights of all micro-batches (by 1
/// where that is 0), so that accumulation is a larger batch. Returns the loss.
double accumulate_gradients(Model<float> &model, const StepInput &input, const StepCallbacks &callbacks = {});

/// Repeats the forward and backward passes of a step that accumulate_gradients has just taken, and names the
/// first tensor that is not finite. Gradients are the same words afterwards.
[[nodiscard]] std::optional<NotFinite> first_not_finite(Model<float> &model, const StepInput &input);

/// accumulate_gradients, then the optimizer: gradient norm, clipping, AdamW, gradients to zero; then what was
/// quantized from the old parameters is void. HCP's channels are chosen within the forward or backward pass
/// of micro-batch 0 when they fall due. Counters of steps and tokens are the caller's, and so is
/// parameters_changed() before the first step.
StepOutcome training_step(Model<float> &model, Optimizer<float> &optimizer, const StepInput &input,
                          const StepCallbacks &callbacks = {});

} // namespace nvfp4::models
