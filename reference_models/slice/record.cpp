// SPDX-License-Identifier: Apache-2.0
// From checkpoint to slice: the trainer's steps without its folder, then one with taps.
#include "reference_models/slice/record.hpp"
#include "golden/io/message.hpp"
#include "reference_models/data/source.hpp"
#include "reference_models/report/options.hpp"
#include "reference_models/slice/step.hpp"
#include "reference_models/train/schedule.hpp"
#include "reference_models/train/session.hpp"

#include <cmath>
#include <filesystem>

namespace nvfp4::models {
namespace {

constexpr int64_t kMaxSequence = 1 << 20;

void check_options(const TrainOptions &o) {
  const auto want = [](bool holds, const std::string &what) {
    if (!holds) throw Error("expected " + what);
  };
  want(!o.data.empty(), "data to train on: --data FILE, or a run.json beside the checkpoint");
  want(o.batch >= 1 && o.batch <= kMaxSequence, "--batch of 1 to 2^20, got " + std::to_string(o.batch));
  want(o.sequence >= 1 && o.sequence <= kMaxSequence,
       "--sequence of 1 to 2^20, got " + std::to_string(o.sequence));
  want(o.accumulation >= 1, "--accumulation of at least 1, got " + std::to_string(o.accumulation));
  want(std::isfinite(o.learning_rate) && o.learning_rate > 0, "a positive --learning-rate");
  want(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1, "--beta1 and --beta2 in [0, 1)");
  want(o.epsilon > 0 && o.weight_decay >= 0 && o.clip >= 0,
       "a positive --epsilon, and --weight-decay and --clip of at least 0");
  want(o.threads >= 0, "--threads of at least 0 (0: all)");
}

/// The inputs of step `step`.
SliceStep inputs(const TrainOptions &o, const DataSource &data, int64_t step) {
  SliceStep s;
  s.step = step;
  s.seed = o.seed;
  s.accumulation = o.accumulation;
  s.batch = o.batch;
  s.sequence = o.sequence;
  s.learning_rate = learning_rate(parse_schedule(o.schedule), o.learning_rate, o.final_learning_rate,
                                  o.warmup, o.steps, step);
  s.adamw = {o.beta1, o.beta2, o.epsilon, o.weight_decay, o.clip};
  const int64_t tokens = o.batch * (o.sequence + 1), targets = o.batch * o.sequence;
  s.tokens.resize(size_t(o.accumulation * tokens));
  s.weights.resize(size_t(o.accumulation * targets));
  for (int64_t micro = 0; micro < o.accumulation; ++micro)
    data.training_batch(o.seed, (step - 1) * o.accumulation + micro, o.batch, o.sequence,
                        std::span(s.tokens).subspan(size_t(micro * tokens), size_t(tokens)),
                        std::span(s.weights).subspan(size_t(micro * targets), size_t(targets)));
  return s;
}

Recipe recipe_of(const RecordRequest &r, const Checkpoint &checkpoint) {
  if (!r.recipe.empty()) return load_recipe(r.recipe);
  if (!checkpoint.recipe.empty()) return parse_recipe(checkpoint.recipe, checkpoint.source + ": recipe");
  return load_recipe(r.options.recipe);
}

/// Layers with HCP that have no channels.
std::vector<std::string> waiting(Model<float> &model, const Recipe &recipe) {
  const Recipe bound = recipe.for_family(std::string(to_string(model.config().family)));
  const std::map<std::string, HotChannels> chosen = model.hot_channels();
  std::vector<std::string> out;
  const std::vector<std::string> roles = linear_roles_of(model.config());
  for (int64_t layer = 0; layer < model.config().layers; ++layer)
    for (const std::string &role : roles) {
      const std::string name = std::to_string(layer) + "." + role;
      if (role != "lm_head" && bound.resolve(role, layer, model.config().layers).hcp.enabled &&
          !chosen.contains(name))
        out.push_back(name);
    }
  return out;
}

} // namespace

std::optional<TrainOptions> options_beside(const std::string &checkpoint) {
  const std::filesystem::path file = std::filesystem::path(checkpoint).parent_path() / "run.json";
  std::error_code code;
  if (!std::filesystem::exists(file, code)) return std::nullopt;
  const auto bytes = io::read_file(file.string());
  const auto json = nlohmann::ordered_json::parse(
      std::string_view(reinterpret_cast<const char *>(bytes.data()), bytes.size()), nullptr, false);
  if (!json.is_object() || json.value("version", 0) != 1 || !json.contains("options") ||
      !json["options"].is_object())
    throw Error(io::printable(file.string()) + ": expected the description of a run, version 1");
  TrainOptions options;
  for (const auto &[key, value] : json["options"].items())
    set_option(options, key, value, io::printable(file.string()) + ": ");
  return options;
}

RecordReport record_slice(const RecordRequest &r, const std::function<void(int64_t)> &on_step) {
  const TrainOptions &o = r.options;
  check_options(o);
  const Checkpoint checkpoint = read_checkpoint(r.checkpoint);
  const ModelConfig config = checkpoint.config ? *checkpoint.config : find_model(o.model, o.size);
  const Recipe recipe = recipe_of(r, checkpoint);
  const std::vector<Tap> taps = parse_taps(r.taps, config);
  CheckpointState state = checkpoint.state;
  if (r.step <= state.step)
    throw Error("expected a --step after the checkpoint's, at least " + std::to_string(state.step + 1) +
                ", got " + std::to_string(r.step));
  const std::unique_ptr<DataSource> data = open_data(o.data, o.validation, o.sequence);
  if (data->vocabulary() > config.vocabulary)
    throw Error("the data has tokens up to " + std::to_string(data->vocabulary() - 1) +
                ", the model's vocabulary is " + std::to_string(config.vocabulary));
  Session session = make_session(o.device, o.threads, config, recipe, o.batch, o.sequence, true);
  Model<float> &model = *session.model;
  Optimizer<float> optimizer(model.parameters(), {o.beta1, o.beta2, o.epsilon, o.weight_decay, o.clip});
  load_checkpoint(checkpoint, model.parameters(), config, checkpoint.optimizer);
  model.set_hot_channels(model.hot_channel_layers(state.hot_channels));
  model.parameters_changed();
  RecordReport report;
  report.recipe = recipe.name;
  report.from = state.step;
  report.moments = checkpoint.optimizer;
  while (state.step + 1 < r.step) {
    const SliceStep s = inputs(o, *data, state.step + 1);
    run_micro_batches(model, s);
    optimizer.step(s.step, s.learning_rate);
    model.parameters_changed();
    state.step = s.step;
    state.tokens += o.accumulation * o.batch * o.sequence;
    if (on_step) on_step(state.step);
  }
  state.hot_channels = model.hot_channels();
  io::TensorFile before = checkpoint_file(model.parameters(), config, to_json(recipe), state, true);
  const SliceStep s = inputs(o, *data, r.step);
  report.result = run_step(model, optimizer, s, taps, r.gradients);
  report.waiting = waiting(model, recipe);
  save_slice(r.output, std::move(before), s, report.result);
  return report;
}

} // namespace nvfp4::models
