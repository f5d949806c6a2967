// SPDX-License-Identifier: Apache-2.0
// The trainer's loop without its files.
#include "nvfp4/reference_models/train/steps.hpp"
#include "nvfp4/reference_models/train/training_step.hpp"

#include <bit>

namespace nvfp4::models {

std::vector<StepRecord> run_steps(const StepsOptions &o, const std::function<void(int64_t)> &on_step) {
  const ModelConfig config = find_model(o.model, o.size);
  const std::unique_ptr<DataSource> data = open_data(o.data, 0.05, o.sequence);
  const Recipe recipe = load_recipe(o.recipe).for_run(o.steps);
  Session session = make_session(o.device, o.threads, config, recipe, o.batch, o.sequence, true);
  Model<float> &model = *session.model;
  Optimizer<float> optimizer(model.parameters(), {}, recipe.optimizer);
  initialise(model.parameters(), config, o.seed);
  model.parameters_changed();
  StepInput input{1, o.seed, 1, o.batch, o.sequence, float(o.learning_rate), {}, {}};
  std::vector<StepRecord> out;
  for (; input.step <= o.steps; ++input.step) {
    read_micro_batches(*data, input);
    const float loss = training_step(model, optimizer, input).loss;
    out.push_back({std::bit_cast<uint32_t>(loss), optimizer.digest(input.step)});
    if (on_step) on_step(input.step);
  }
  return out;
}

} // namespace nvfp4::models
