// SPDX-License-Identifier: Apache-2.0
// The loop: micro-batches, optimizer step, log line, and now and then validation, diagnostics and a
// checkpoint. Order of the writes: diagnostics, log, their checksums, checkpoint; a resumed run cuts the
// first two back to the last.
#include "nvfp4/reference_models/train/trainer.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/train/evaluate.hpp"
#include "nvfp4/reference_models/train/options.hpp"
#include "nvfp4/reference_models/train/probe.hpp"
#include "nvfp4/reference_models/train/run_folder.hpp"
#include "nvfp4/reference_models/train/schedule.hpp"
#include "nvfp4/reference_models/train/training_step.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>

namespace nvfp4::models {
namespace {

class Trainer {
public:
  Trainer(const TrainOptions &options, const std::function<void(const StepReport &)> &on_step,
          const std::function<bool()> &stop, const std::function<void(double)> &on_start)
      : o_(options), on_step_(on_step), stop_(stop), recipe_(recipe_of_run(options)),
        data_(open_data(options.data, options.validation, options.sequence, options.validation_data)) {
    config_ = find_model(o_.model, o_.size, o_.sizes);
    check_vocabulary(*data_, config_);
    if (o_.device == "cpu") check_memory(config_, o_.batch, o_.sequence, true, o_.accumulation);
    session_ = make_session(o_.device, o_.threads, config_, recipe_, o_.batch, o_.sequence, true);
    optimizer_ = std::make_unique<Optimizer<float>>(
        model().parameters(), AdamWOptions{o_.beta1, o_.beta2, o_.epsilon, o_.weight_decay, o_.clip},
        recipe_.optimizer);
    folder_ = std::make_unique<RunFolder>(
        o_.out, RunDescription{o_, config_, to_json(recipe_), data_->digest(), data_->describe()}, o_.resume);
    input_ = {1, o_.seed, o_.accumulation, o_.batch, o_.sequence, 0, {}, {}};
    start(on_start);
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
    result.steps = state_.step;
    result.diverged = diverged_;
    result.not_finite = not_finite_;
    result.parameter_digest = optimizer_->digest(state_.step);
    if (diverged_ != 0) {
      result.final_loss = result.smoothed_loss = result.validation_loss = result.last_finite_loss =
          std::numeric_limits<double>::quiet_NaN();
      if (!losses_.empty()) result.last_finite_loss = double(losses_.back());
      return result;
    }
    if (state_.step > 0 && saved_step_ != state_.step) save();
    if (o_.sensitivity && !result.interrupted) result.interrupted = !measure_sensitivity();
    if (result.interrupted) {
      result.smoothed_loss = result.validation_loss = std::numeric_limits<double>::quiet_NaN();
      result.final_loss = losses_.empty() ? result.smoothed_loss : double(losses_.back());
      return result;
    }
    result.final_loss = double(losses_.back());
    const auto tail = size_t(std::max<int64_t>(1, o_.steps / 10));
    for (size_t i = losses_.size() - tail; i < losses_.size(); ++i)
      result.smoothed_loss += double(losses_[i]) / double(tail);
    if (!validation_) validate(state_.step);
    result.validation_loss = *validation_;
    result.diverged = diverged_;
    result.not_finite = not_finite_;
    if (data_->bytes()) result.bits_per_byte = result.validation_loss / std::log(2.0);
    return result;
  }

private:
  [[nodiscard]] Model<float> &model() { return *session_.model; }

  [[nodiscard]] Digests digests() {
    const std::string digest = optimizer_->digest(state_.step);
    return {digest, state_digest(digest, state_.tokens, model().hot_channels(), model().held_amaxes())};
  }

  void start(const std::function<void(double)> &on_start) {
    initialise(model().parameters(), config_, o_.seed, on_start);
    std::error_code code;
    if (o_.resume && std::filesystem::exists(folder_->checkpoint(), code)) {
      const Checkpoint checkpoint = read_checkpoint(folder_->checkpoint());
      // through parse_recipe, as an older release wrote fewer fields
      if (!checkpoint.config || *checkpoint.config != config_ || checkpoint.recipe.empty() ||
          to_json(parse_recipe(checkpoint.recipe, checkpoint.source + ": recipe")) != to_json(recipe_))
        throw Error(checkpoint.source + ": is of another model or recipe than " + io::printable(o_.out) +
                    "/run.json");
      load_checkpoint(checkpoint, model().parameters(), config_, true);
      if (checkpoint.state.step > 0) model().at_step(checkpoint.state.step - 1); // as after its last step
      model().set_hot_channels(checkpoint.state.hot_channels);
      model().set_held_amaxes(checkpoint.state.held_amaxes);
      state_ = checkpoint.state;
      saved_step_ = state_.step;
    }
    model().parameters_changed();
    losses_ = folder_->go_back(state_.step, digests());
    if (o_.diagnostics_every != 0) recorder_.emplace(folder_->path());
  }

  /// False if it was stopped.
  bool measure_sensitivity() {
    struct Stopped {};
    try {
      const auto watch = [&](double) {
        if (stop_ && stop_()) throw Stopped{};
      };
      folder_->sensitivity(
          models::sensitivity(model(), o_.device, o_.threads, *data_, o_.eval_batches, watch), state_.step);
      return true;
    } catch (const Stopped &) {
      return false;
    }
  }

  void one_step(int64_t step) {
    const auto begin = std::chrono::steady_clock::now();
    const int64_t period = o_.diagnostics_every < 0 ? 50 : o_.diagnostics_every;
    const bool probed = recorder_ && (step == 1 || step % period == 0);
    StepReport report;
    report.step = input_.step = step;
    report.steps = o_.steps;
    report.learning_rate = input_.learning_rate = learning_rate(o_, step);
    read_micro_batches(*data_, input_);
    const StepOutcome outcome =
        training_step(model(), *optimizer_, input_, probed ? probe_callbacks(step) : StepCallbacks{});
    report.loss = outcome.loss;
    report.gradient_norm = float(outcome.gradient_norm);
    not_finite_ = outcome.not_finite;
    if (!not_finite_ && !std::isfinite(report.gradient_norm)) { // finite in FP64
      not_finite_ = NotFinite{.tensor = "gradient norm", .what = StepTensor::weight_grad};
      not_finite_->step = step;
      not_finite_->inf = 1;
    }
    if (not_finite_) diverged_ = step;
    state_.step = step;
    state_.tokens += input_.targets();
    report.tokens = state_.tokens;
    const Digests now = digests();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    report.tokens_per_second = double(input_.targets()) / elapsed.count();
    if (diverged_ == 0 && (step == o_.steps || (o_.eval_every > 0 && step % o_.eval_every == 0)))
      report.validation_loss = validate(step);
    report.not_finite = not_finite_;
    if (std::isfinite(report.loss)) losses_.push_back(report.loss);
    folder_->log(report, now);
    if (diverged_ != 0) {
      if (on_step_) on_step_(report);
      return;
    }
    if (step == o_.steps || step % (o_.checkpoint_every > 0 ? o_.checkpoint_every : 100) == 0) save();
    if (on_step_) on_step_(report);
  }

  double validate(int64_t step) {
    const Evaluation e = evaluate(model(), *data_, o_.eval_batches);
    validation_ = e.loss;
    if (e.not_finite) {
      diverged_ = step;
      not_finite_ = e.not_finite;
    }
    return e.loss;
  }

  /// Diagnostics of the step's first micro-batch.
  StepCallbacks probe_callbacks(int64_t step) {
    StepCallbacks calls;
    calls.before_forward = [this, step](int64_t micro) {
      if (micro == 0) probe_.emplace(model(), *session_.backend, *recorder_, step, o_.diagnostics_tokens);
    };
    calls.after_forward = [this](int64_t) {
      if (probe_) probe_->after_forward();
    };
    calls.after_backward = [this](int64_t) {
      if (probe_) probe_->finish();
      probe_.reset();
    };
    return calls;
  }

  void save() {
    if (recorder_) recorder_->save();
    state_.hot_channels = model().hot_channels();
    state_.held_amaxes = model().held_amaxes();
    folder_->note_files(state_.step);
    save_checkpoint(folder_->checkpoint(), model().parameters(), config_, to_json(recipe_), state_, true);
    saved_step_ = state_.step;
  }

  TrainOptions o_;
  std::function<void(const StepReport &)> on_step_;
  std::function<bool()> stop_;
  Recipe recipe_;
  std::unique_ptr<DataSource> data_;
  ModelConfig config_;
  Session session_;
  std::unique_ptr<Optimizer<float>> optimizer_;
  std::unique_ptr<RunFolder> folder_;
  std::optional<Recorder> recorder_;
  std::optional<Probe> probe_; ///< during a probed micro-batch
  CheckpointState state_;
  int64_t saved_step_ = -1, diverged_ = 0;
  std::vector<float> losses_;
  std::optional<double> validation_;
  std::optional<NotFinite> not_finite_;
  StepInput input_;
};

} // namespace

TrainResult train(const TrainOptions &options, const std::function<void(const StepReport &)> &on_step,
                  const std::function<bool()> &stop, const std::function<void(double)> &on_start) {
  check_options(options);
  return Trainer(options, on_step, stop, on_start).run();
}

} // namespace nvfp4::models
