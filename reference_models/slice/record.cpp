// SPDX-License-Identifier: Apache-2.0
// From checkpoint to slice: the trainer's steps without its folder, then one with taps.
#include "nvfp4/reference_models/slice/record.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/slice/step.hpp"
#include "nvfp4/reference_models/train/fields.hpp"
#include "nvfp4/reference_models/train/options.hpp"
#include "nvfp4/reference_models/train/run_folder.hpp"
#include "nvfp4/reference_models/train/session.hpp"

#include <cmath>
#include <filesystem>

namespace nvfp4::models {
namespace {

/// The inputs of step `step`.
SliceStep inputs(const TrainOptions &o, const DataSource &data, int64_t step) {
  SliceStep s;
  s.step = step;
  s.seed = o.seed;
  s.accumulation = o.accumulation;
  s.batch = o.batch;
  s.sequence = o.sequence;
  s.learning_rate = learning_rate(o, step);
  s.adamw = {o.beta1, o.beta2, o.epsilon, o.weight_decay, o.clip};
  read_micro_batches(data, s);
  return s;
}

Recipe recipe_of(const RecordRequest &r, const Checkpoint &checkpoint) {
  if (!r.recipe.empty()) return load_recipe(r.recipe);
  if (!checkpoint.recipe.empty()) return parse_recipe(checkpoint.recipe, checkpoint.source + ": recipe");
  return load_recipe(r.options.recipe);
}

/// Layers with HCP that have no channels.
std::vector<std::string> waiting(Model<float> &model, const Recipe &recipe, int64_t step) {
  const Recipe bound = recipe.for_family(std::string(model.config().family->name));
  const std::map<std::string, HotChannels> chosen = model.hot_channels();
  std::vector<std::string> out;
  const std::vector<std::string> roles = linear_roles(*model.config().family);
  for (int64_t layer = 0; layer < model.config().layers; ++layer)
    for (const std::string &role : roles) {
      const std::string name = std::to_string(layer) + "." + role;
      if (role != "lm_head" && bound.resolve(role, layer, model.config().layers, step).hcp.enabled &&
          !chosen.contains(name))
        out.push_back(name);
    }
  return out;
}

} // namespace

std::optional<TrainOptions> options_beside(const std::string &checkpoint) {
  const std::filesystem::path folder = std::filesystem::path(checkpoint).parent_path();
  std::error_code code;
  if (!std::filesystem::exists(folder / "run.json", code)) return std::nullopt;
  return read_options(folder.empty() ? "." : folder.string());
}

RecordReport record_slice(const RecordRequest &r, const std::function<void(int64_t)> &on_step) {
  const TrainOptions &o = r.options;
  if (o.data.empty())
    throw Error("expected data to train on: --data FILE, or a run.json beside the checkpoint");
  check_options(o);
  const Checkpoint checkpoint = read_checkpoint(r.checkpoint);
  const ModelConfig config = checkpoint.config ? *checkpoint.config : find_model(o.model, o.size);
  const Recipe recipe = recipe_of(r, checkpoint).for_run(schedule_steps(o));
  const std::vector<Tap> taps = parse_taps(r.taps, config);
  CheckpointState state = checkpoint.state;
  if (r.step <= state.step)
    throw Error("expected a --step after the checkpoint's, at least " + std::to_string(state.step + 1) +
                ", got " + std::to_string(r.step));
  if (io::is_same_file(r.output, o.data))
    throw Error(io::printable(r.output) + ": the slice would replace the data: give another --output");
  const std::unique_ptr<DataSource> data = open_data(o.data, o.validation, o.sequence, o.validation_data);
  if (data->vocabulary() > config.vocabulary)
    throw Error("the data has tokens up to " + std::to_string(data->vocabulary() - 1) +
                ", the model's vocabulary is " + std::to_string(config.vocabulary));
  Session session = make_session(o.device, o.threads, config, recipe, o.batch, o.sequence, true);
  Model<float> &model = *session.model;
  Optimizer<float> optimizer(model.parameters(), {o.beta1, o.beta2, o.epsilon, o.weight_decay, o.clip}, recipe.optimizer);
  load_checkpoint(checkpoint, model.parameters(), config, checkpoint.optimizer);
  if (state.step > 0) model.at_step(state.step - 1);
  model.set_hot_channels(model.hot_channel_layers(state.hot_channels));
  model.set_held_amaxes(state.held_amaxes);
  model.parameters_changed();
  RecordReport report;
  report.recipe = recipe.name;
  report.from = state.step;
  report.moments = checkpoint.optimizer;
  while (state.step + 1 < r.step) {
    const SliceStep s = inputs(o, *data, state.step + 1);
    const StepOutcome outcome = training_step(model, optimizer, s);
    if (!report.not_finite_before) report.not_finite_before = outcome.not_finite;
    state.step = s.step;
    state.tokens += s.targets();
    if (on_step) on_step(state.step);
  }
  state.hot_channels = model.hot_channels();
  state.held_amaxes = model.held_amaxes();
  io::TensorFile before =
      io::collect(checkpoint_stream(model.parameters(), config, to_json(recipe), state, true));
  const SliceStep s = inputs(o, *data, r.step);
  report.result = run_step(model, optimizer, s, taps, r.gradients);
  report.waiting = waiting(model, recipe, r.step - 1);
  save_slice(r.output, std::move(before), s, report.result);
  return report;
}

} // namespace nvfp4::models
