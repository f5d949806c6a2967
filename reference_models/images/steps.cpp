// SPDX-License-Identifier: Apache-2.0
// The step, and several of them.
#include "nvfp4/reference_models/images/steps.hpp"

#include "nvfp4/reference_models/train/first_not_finite.hpp"
#include "nvfp4/reference_models/train/schedule.hpp"

#include <bit>
#include <cmath>

namespace nvfp4::models {

int64_t steps_of_schedule(const ImageOptions &o) { return o.schedule_steps > 0 ? o.schedule_steps : o.steps; }

ImageSteps::ImageSteps(const ImageOptions &options, const ImageConfig &config, const Recipe &recipe)
    : o_(options), soft_clip_(float(recipe.soft_clip)),
      data_(open_images(o_.data, o_.validation, o_.validation_data, !o_.plain)), session_(make_device(o_.device, o_.threads)),
      network_(std::make_unique<ImageNetwork<float>>(*session_.backend, session_.engine.get(), config, recipe, o_.batch, true)),
      optimizer_(std::make_unique<Optimizer<float>>(
          network_->parameters(), AdamWOptions{o_.beta1, o_.beta2, o_.epsilon, o_.weight_decay, o_.clip}, recipe.optimizer)),
      pixels_(size_t(o_.batch * kImageSize)), labels_(size_t(o_.batch)) {}

float ImageSteps::learning_rate(int64_t step) const {
  return models::learning_rate(parse_enum<Schedule>(o_.schedule), o_.learning_rate, o_.final_learning_rate, o_.warmup,
                               steps_of_schedule(o_), step);
}

StepOutcome ImageSteps::step(int64_t step) {
  StepOutcome out;
  const StepContext context{.seed = o_.seed, .step = step - 1, .micro_batch = 0, .training = true};
  data_->training_batch(o_.seed, step - 1, pixels_, labels_);
  network_->set_images(pixels_, labels_);
  out.loss = float(network_->forward(context).loss / double(o_.batch));
  network_->backward(context);
  out.gradient_norm = optimizer_->gradient_norm();
  const bool sick = !network_->finite();
  if (sick || !std::isfinite(out.loss) || !std::isfinite(float(out.gradient_norm))) {
    out.not_finite = network_->first_not_finite();
    if (!out.not_finite)
      out.not_finite = NotFinite{.tensor = "gradients of a layer's output", .what = StepTensor::output_grad, .inf = 1};
  }
  (void)optimizer_->step(step, learning_rate(step), out.gradient_norm);
  if (soft_clip_ != 0) { // weights of convolutions and linear layers: those that decay
    Parameters<float> &p = network_->parameters();
    session_.backend->run(SoftClip<float>{p.decaying(), soft_clip_, p.values()});
  }
  network_->parameters_changed();
  if (!out.not_finite && !optimizer_->finite())
    for (const StepTensor what : {StepTensor::first_moment, StepTensor::second_moment, StepTensor::updated_weight})
      if (!out.not_finite) out.not_finite = not_finite_parameter(network_->parameters(), what);
  if (out.not_finite) out.not_finite->step = step;
  return out;
}

std::vector<StepRecord> run_image_steps(const ImageOptions &options) {
  ImageSteps steps(options, image_config(options), image_recipe(options));
  steps.network().initialise(options.seed);
  std::vector<StepRecord> out;
  for (int64_t step = 1; step <= options.steps; ++step) {
    const float loss = steps.step(step).loss;
    out.push_back({std::bit_cast<uint32_t>(loss), steps.optimizer().digest(step)});
  }
  return out;
}

} // namespace nvfp4::models
