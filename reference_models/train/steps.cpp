// SPDX-License-Identifier: Apache-2.0
// The trainer's loop without its files.
#include "reference_models/train/steps.hpp"
#include "reference_models/data/source.hpp"
#include "reference_models/train/optimizer.hpp"

#include <bit>

namespace nvfp4::models {

std::vector<StepRecord> run_steps(const StepsOptions &o, const std::function<void(int64_t)> &on_step) {
  const ModelConfig config = find_model(o.model, o.size);
  const std::unique_ptr<DataSource> data = open_data(o.data, 0.05, o.sequence);
  Session session =
      make_session(o.device, o.threads, config, load_recipe(o.recipe), o.batch, o.sequence, true);
  Model<float> &model = *session.model;
  Optimizer<float> optimizer(model.parameters(), {});
  initialise(model.parameters(), config, o.seed);
  std::vector<int32_t> tokens(size_t(o.batch * (o.sequence + 1)));
  std::vector<float> weights(size_t(o.batch * o.sequence));
  std::vector<StepRecord> out;
  for (int64_t step = 1; step <= o.steps; ++step) {
    model.parameters_changed();
    data->training_batch(o.seed, step - 1, o.batch, o.sequence, tokens, weights);
    model.set_tokens(tokens, weights);
    const StepContext context{o.seed, step - 1, 0, true};
    model.forward(context);
    const auto loss = float(model.loss(1.0));
    model.backward(context);
    optimizer.step(step, float(o.learning_rate));
    out.push_back({std::bit_cast<uint32_t>(loss), optimizer.digest(step)});
    if (on_step) on_step(step);
  }
  return out;
}

} // namespace nvfp4::models
