// SPDX-License-Identifier: Apache-2.0
// The loop. Order of the writes as in train/trainer.cpp: log, its checksum, checkpoint.
#include "nvfp4/reference_models/images/train.hpp"

#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/stream.hpp"
#include "nvfp4/reference_models/images/options.hpp"
#include "nvfp4/reference_models/images/steps.hpp"
#include "nvfp4/reference_models/train/fields.hpp"
#include "nvfp4/reference_models/train/run_folder.hpp"

#include <chrono>
#include <filesystem>
#include <limits>
#include <sstream>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;

std::string description(const ImageOptions &given, const ImageConfig &config, const Recipe &recipe, const ImageSource &data) {
  ImageOptions options = given;
  options.resume = false;
  Json j;
  j["version"] = 1;
  j["kind"] = "images";
  j["model"] = Json::parse(to_json(config));
  j["recipe"] = Json::parse(to_json(recipe));
  j["options"] = fields_to_json(kImageTrainFields, options);
  j["data"] = {{"description", data.describe()}, {"sha256", data.digest()}};
  j["parameters"] = parameter_count(config);
  return j.dump();
}

/// Where a stored run differs from `mine`, both run.json; empty: nowhere that decides bits.
std::string difference(const std::string &mine, const std::string &theirs, const std::string &where) {
  const Json here = Json::parse(mine), there = Json::parse(theirs);
  const Fields stored(there, where, kRestoreRun);
  if (!stored.has("kind") || stored.text("kind") != "images") return "it is of a language model";
  ImageOptions a, b;
  for (const auto &[key, value] : here["options"].items()) (void)set_field(kImageTrainFields, a, key, value, where);
  const Fields options = stored.object("options");
  for (const auto &[key, value] : options.json().items()) (void)set_field(kImageTrainFields, b, key, value, where, kRestoreRun);
  if (steps_of_schedule(a) != steps_of_schedule(b) || a.steps < b.steps)
    return "steps: " + std::to_string(a.steps) + " here under a schedule for " + std::to_string(steps_of_schedule(a)) + ", " +
           std::to_string(b.steps) + " there under one for " + std::to_string(steps_of_schedule(b)) +
           " (--schedule-steps keeps a schedule when there are more steps)";
  const Json x = fields_to_json(kImageTrainFields, a), y = fields_to_json(kImageTrainFields, b);
  std::string found;
  each_field(kImageTrainFields, [&](const auto &f) {
    const std::string_view name = f.name;
    if ((f.marks & kDecides) != 0 && (f.marks & kNames) == 0 && name != "steps" && name != "schedule_steps" && found.empty() &&
        x[f.name] != y[f.name])
      found = std::string(f.name) + ": " + shown(x[f.name]) + " here, " + shown(y[f.name]) + " there";
  });
  if (!found.empty()) return found;
  for (const char *key : {"model", "recipe"})
    if (here[key] != there.value(key, Json())) return "its " + std::string(key) + " is not the one given";
  if (here["data"]["sha256"] != stored.object("data").text("sha256"))
    return "its data is not the one given: " + shown(here["data"]["description"]) + " here, " +
           shown(there["data"].value("description", Json())) + " there, with other contents";
  return {};
}

std::vector<int64_t> parse_widths(const std::string &text) {
  std::vector<int64_t> out;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    if (part.empty() || part.size() > 6 || part.find_first_not_of("0123456789") != part.npos)
      throw Error("--widths: expected whole numbers between commas, as 16,32,64, got " + io::in_quotes(text));
    out.push_back(std::stoll(part));
  }
  return out;
}

class ImageTrainer {
public:
  ImageTrainer(const ImageOptions &options, const std::function<void(const StepReport &)> &on_step,
               const std::function<bool()> &stop)
      : o_(options), on_step_(on_step), stop_(stop) {
    if (o_.resume) {
      StoredImageRun stored = read_image_run(o_.out);
      config_ = stored.config, recipe_ = stored.recipe;
    } else {
      config_ = image_config(o_), recipe_ = image_recipe(o_);
    }
    steps_ = std::make_unique<ImageSteps>(o_, config_, recipe_);
    const std::string mine = description(o_, config_, recipe_, steps_->data()), where = io::printable(o_.out) + "/run.json: ";
    folder_ = std::make_unique<RunFolder>(
        o_.out,
        RunRecord{mine, o_.data, [mine, where](const std::string &stored) { return difference(mine, stored, where); }}, o_.resume);
    start();
  }

  TrainResult run() {
    TrainResult result;
    for (int64_t step = state_.step + 1; step <= o_.steps && diverged_ == 0; ++step) {
      if (stop_ && stop_()) {
        result.interrupted = true;
        break;
      }
      one_step(step);
    }
    constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
    result.steps = state_.step;
    result.diverged = diverged_;
    result.not_finite = not_finite_;
    result.parameter_digest = steps_->optimizer().digest(state_.step);
    result.last_finite_loss = losses_.empty() ? kUnknown : double(losses_.back());
    result.final_loss = diverged_ != 0 ? kUnknown : result.last_finite_loss;
    result.smoothed_loss = result.validation_loss = kUnknown;
    if (diverged_ != 0) return result;
    if (state_.step > 0 && saved_step_ != state_.step) save();
    if (result.interrupted) return result;
    const auto tail = std::min(losses_.size(), size_t(std::max<int64_t>(1, o_.steps / 10)));
    result.smoothed_loss = 0;
    for (size_t i = losses_.size() - tail; i < losses_.size(); ++i) result.smoothed_loss += double(losses_[i]) / double(tail);
    if (!measured_) validate(state_.step);
    result.validation_loss = measured_->loss;
    result.validation_accuracy = measured_->accuracy;
    result.diverged = diverged_;
    result.not_finite = not_finite_;
    return result;
  }

private:
  [[nodiscard]] Digests digests() {
    const std::string digest = steps_->optimizer().digest(state_.step);
    return {digest, state_digest(digest, state_.tokens, steps_->network().hot_channels())};
  }

  void start() {
    steps_->network().initialise(o_.seed);
    std::error_code code;
    if (o_.resume && std::filesystem::exists(folder_->checkpoint(), code)) {
      const Checkpoint checkpoint = read_checkpoint(folder_->checkpoint(), CheckpointKind::images);
      if (image_config_from_json(checkpoint.model, checkpoint.source) != config_ ||
          to_json(parse_image_recipe(checkpoint.recipe, checkpoint.source + ": recipe")) != to_json(recipe_))
        throw Error(checkpoint.source + ": is of another network or recipe than " + io::printable(o_.out) + "/run.json");
      load_checkpoint(checkpoint, steps_->network().parameters(), true);
      steps_->network().set_hot_channels(checkpoint.state.hot_channels);
      state_ = checkpoint.state;
      saved_step_ = state_.step;
      steps_->network().parameters_changed();
    }
    losses_ = folder_->go_back(state_.step, digests());
  }

  void one_step(int64_t step) {
    const auto begin = std::chrono::steady_clock::now();
    StepReport report;
    report.step = step;
    report.steps = o_.steps;
    report.learning_rate = steps_->learning_rate(step);
    const StepOutcome outcome = steps_->step(step);
    report.loss = outcome.loss;
    report.gradient_norm = float(outcome.gradient_norm);
    not_finite_ = outcome.not_finite;
    if (not_finite_) diverged_ = step;
    state_.step = step;
    state_.tokens += o_.batch;
    report.tokens = state_.tokens;
    const Digests now = digests();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    report.tokens_per_second = double(o_.batch) / elapsed.count();
    if (diverged_ == 0 && (step == o_.steps || (o_.eval_every > 0 && step % o_.eval_every == 0))) {
      validate(step);
      report.validation_loss = measured_->loss;
      report.validation_accuracy = measured_->accuracy;
    }
    report.not_finite = not_finite_;
    if (std::isfinite(report.loss)) losses_.push_back(report.loss);
    folder_->log(report, now);
    if (diverged_ == 0 && (step == o_.steps || step % (o_.checkpoint_every > 0 ? o_.checkpoint_every : 100) == 0)) save();
    if (on_step_) on_step_(report);
  }

  void validate(int64_t step);

  void save() {
    state_.hot_channels = steps_->network().hot_channels();
    folder_->note_files(state_.step);
    io::write_safetensors(folder_->checkpoint(), checkpoint_stream(steps_->network().parameters(), CheckpointKind::images,
                                                                   to_json(config_), to_json(recipe_), state_, true));
    saved_step_ = state_.step;
  }

  ImageOptions o_;
  std::function<void(const StepReport &)> on_step_;
  std::function<bool()> stop_;
  ImageConfig config_;
  Recipe recipe_;
  std::unique_ptr<ImageSteps> steps_;
  std::unique_ptr<RunFolder> folder_;
  CheckpointState state_;
  int64_t saved_step_ = -1, diverged_ = 0;
  std::vector<float> losses_;
  std::optional<ImageEvaluation> measured_;
  std::optional<NotFinite> not_finite_;
};

ImageEvaluation measure(ImageNetwork<float> &network, const ImageSource &data, int64_t batch, int64_t images,
                        const std::function<void(double)> &progress = {}) {
  ImageEvaluation out;
  out.images = std::min(images, data.validation_count());
  std::vector<float> pixels;
  std::vector<int32_t> labels;
  int64_t correct = 0;
  (void)network.finite(); // of passes before
  for (int64_t first = 0; first < out.images; first += batch) {
    const auto n = size_t(std::min(batch, out.images - first));
    pixels.resize(n * size_t(kImageSize));
    labels.resize(n);
    data.validation_images(first, pixels, labels);
    network.set_images(pixels, labels);
    const ImageOutcome outcome = network.forward({.training = false});
    out.loss += outcome.loss;
    correct += outcome.correct;
    if ((!network.finite() || !std::isfinite(outcome.loss)) && !out.not_finite) out.not_finite = network.first_not_finite();
    if (progress) progress(double(first + int64_t(n)) / double(out.images));
  }
  out.loss /= double(out.images);
  out.accuracy = double(correct) / double(out.images);
  return out;
}

void ImageTrainer::validate(int64_t step) {
  measured_ = measure(steps_->network(), steps_->data(), o_.batch, o_.eval_images);
  if (!measured_->not_finite) return;
  not_finite_ = measured_->not_finite;
  not_finite_->step = step;
  diverged_ = step;
}

} // namespace

ImageConfig image_config(const ImageOptions &o) {
  ImageConfig c = image_preset(o.size);
  if (!o.widths.empty()) c.widths = parse_widths(o.widths);
  if (o.convolutions >= 0) c.convolutions = o.convolutions;
  if (o.hidden >= 0) c.hidden = o.hidden;
  check(c);
  return c;
}

Recipe image_recipe(const ImageOptions &o) {
  Recipe recipe = load_image_recipe(o.recipe);
  if (o.bf16_first >= 0 || o.bf16_last >= 0) keep_in_bf16(recipe, o.bf16_first, o.bf16_last);
  return recipe;
}

StoredImageRun read_image_run(const std::string &folder) {
  const std::string where = io::printable(folder) + "/run.json: ";
  const Fields stored(Json::parse(read_run_json(folder)), where, kRestoreRun);
  if (!stored.has("kind") || stored.text("kind") != "images")
    throw Error(where + "is a run of a language model; continue it with nvfp4 train --resume");
  StoredImageRun run;
  const Fields options = stored.object("options");
  for (const auto &[key, value] : options.json().items()) (void)set_field(kImageTrainFields, run.options, key, value, where, kRestoreRun);
  run.config = image_config_from_json(stored.object("model").json().dump(), where + "model");
  run.recipe = parse_image_recipe(stored.object("recipe").json().dump(), where + "recipe");
  return run;
}

TrainResult train_images(const ImageOptions &options, const std::function<void(const StepReport &)> &on_step,
                         const std::function<bool()> &stop) {
  check_bounds(kImageTrainFields, options);
  (void)parse_enum<Schedule>(options.schedule);
  return ImageTrainer(options, on_step, stop).run();
}

ImageEvaluation evaluate_images(const ImageEvaluationOptions &o) {
  const Checkpoint checkpoint = read_checkpoint(o.checkpoint, CheckpointKind::images);
  const ImageConfig config = image_config_from_json(checkpoint.model, checkpoint.source + ": model");
  const Recipe recipe = o.recipe.empty() ? parse_image_recipe(checkpoint.recipe, checkpoint.source + ": recipe")
                                         : load_image_recipe(o.recipe);
  const std::unique_ptr<ImageSource> data = open_images(o.data, o.validation, o.validation_data, false);
  const Session session = make_device(o.device, o.threads);
  ImageNetwork<float> network(*session.backend, session.engine.get(), config, recipe, o.batch, false);
  load_checkpoint(checkpoint, network.parameters(), false);
  network.parameters_changed();
  if (o.recipe.empty()) network.set_hot_channels(checkpoint.state.hot_channels);
  ImageEvaluation out = measure(network, *data, o.batch, o.images, o.progress);
  out.recipe = recipe.name;
  return out;
}

} // namespace nvfp4::models
