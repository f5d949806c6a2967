// SPDX-License-Identifier: Apache-2.0
// nvfp4 train and nvfp4 eval.
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/train/evaluate.hpp"
#include "nvfp4/reference_models/train/options.hpp"
#include "nvfp4/reference_models/train/result_json.hpp"
#include "nvfp4/reference_models/train/run_folder.hpp"
#include "tools/nvfp4/field_options.hpp"
#include "tools/nvfp4/interrupt.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/pretrained_options.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/train_progress.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <unistd.h>

namespace nvfp4::tool {
namespace {

using namespace nvfp4::models;

struct TrainVerb {
  TrainOptions flags;
  std::map<std::string, const Option *> given; ///< by field
  bool json = false;

  [[nodiscard]] bool has(const char *field) const { return given.at(field)->count() > 0; }
};

/// What a resumed run continues with: the run's own options, model and recipe from its run.json, and what the
/// command line gives instead. More steps leave the schedule as it was.
TrainOptions resumed(const TrainVerb &v, const TrainOptions &own) {
  TrainOptions o = own;
  const std::string run = v.flags.out + "/run.json";
  if (!v.has("model") && !v.has("size") && !v.has("sizes")) {
    o.model = run;
    o.sizes.clear();
  }
  if (!v.has("recipe") && !v.has("bf16_first") && !v.has("bf16_last")) {
    o.recipe = run;
    o.bf16_first = o.bf16_last = -1;
  }
  each_field(kTrainFields, [&](const auto &f) {
    if (v.has(f.name)) o.*f.member = v.flags.*f.member;
  });
  if (v.has("steps") && !v.has("schedule_steps")) o.schedule_steps = schedule_steps(own);
  const auto there = [](const std::string &data) { // lists and patterns say themselves what is missing
    return data.empty() || data.starts_with("task:") || data.find_first_of(",*?[:") != std::string::npos ||
           access(data.c_str(), R_OK) == 0;
  };
  if (!v.has("data") && !there(o.data))
    throw Error(io::printable(o.data) + ": the run's text is not there: give its place now with --data");
  if (!v.has("validation_data") && !there(o.validation_data))
    throw Error(io::printable(o.validation_data) +
                ": the run's validation data are not there: give their place now with --validation-data");
  return o;
}

int run_train(const TrainVerb &v) {
  const bool json = v.json;
  const TrainOptions own = v.flags.resume ? read_options(v.flags.out) : v.flags,
                     options = v.flags.resume ? resumed(v, own) : v.flags;
  if (!v.flags.resume && options.data == TrainOptions().data && access(options.data.c_str(), R_OK) != 0)
    throw Error("the default text " + options.data +
                " is not there: make it with tools/corpus, or give --data");
  const Interrupt interrupt;
  Progress initial("initial values");
  TrainProgress progress;
  double seconds = 0;
  int64_t tokens = 0;
  const TrainResult result = train(
      options,
      [&](const StepReport &r) {
        const auto trained = double(options.batch * options.sequence * options.accumulation);
        seconds += trained / r.tokens_per_second;
        tokens += int64_t(trained);
        initial.done();
        progress.show(r);
      },
      [] { return Interrupt::signal() != 0; }, [&](double f) { initial.show(f); });
  progress.done();
  const double speed = seconds > 0 ? double(tokens) / seconds : 0;
  if (json) {
    fmt::print("{}\n", result_json(result, speed, options.out));
    return result.interrupted ? Interrupt::exit_code() : result.diverged != 0 ? kNotFinite : kEqual;
  }
  fmt::print("{} {} under {}, seed {}: {} steps\n", own.model, own.size, own.recipe, own.seed, result.steps);
  if (result.interrupted) {
    fmt::print("  stopped after step {} of {}; go on with: nvfp4 train --resume --out {}\n", result.steps,
               options.steps, options.out);
    return Interrupt::exit_code();
  }
  if (result.diverged != 0) {
    if (result.not_finite) fmt::print("  NOT FINITE: {}\n", result.not_finite->text());
    fmt::print("  DIVERGED at step {}: last finite loss {}; stopped, written to {}\n", result.diverged,
               std::isfinite(result.last_finite_loss) ? fmt::format("{:.4f}", result.last_finite_loss)
                                                      : std::string("none"),
               options.out);
    return kNotFinite;
  }
  fmt::print("  loss {:.4f} (last 10 %: {:.4f}), validation {:.4f} nats", result.final_loss,
             result.smoothed_loss, result.validation_loss);
  if (result.bits_per_byte > 0) fmt::print(" = {:.4f} bits per byte", result.bits_per_byte);
  fmt::print("\n  {:.0f} tokens/s, state {}, written to {}\n", speed, result.parameter_digest, options.out);
  return kEqual;
}

struct EvalOptions {
  std::string checkpoint, recipe, data, validation_data, model, size = "tiny", device = "cpu";
  double validation = 0.05;
  int64_t batch = 4, sequence = 64, batches = 64, bos = -1;
  PretrainedFlags folder = {};
  int threads = 0;
  bool json = false;
};

/// A Hugging Face folder instead of a checkpoint of ours.
int eval_folder(const EvalOptions &o) {
  Progress progress("eval");
  pretrained::RunOptions options = of_folder(o.folder, o.checkpoint, o.model, o.device, o.threads);
  options.progress = [&](double f) { progress.show(f); };
  const std::unique_ptr<DataSource> data = open_data(o.data, o.validation, o.sequence, o.validation_data);
  const pretrained::EvalResult r = pretrained::run_eval(options, *data, o.batch, o.sequence, o.batches, o.bos);
  progress.done();
  if (o.json) {
    fmt::print("{}\n", to_json(r));
  } else {
    fmt::print("loss {:.5f} nats per token, perplexity {:.4f}, over {} tokens, under {} (hot channels: {})\n",
               r.loss, std::exp(r.loss), r.tokens, r.recipe, hot_channels_text(r));
    for (const std::string &line : r.products) fmt::print("  {}\n", line);
    if (r.not_finite) fmt::print("NOT FINITE: {}\n", r.not_finite->text());
  }
  return r.not_finite ? kNotFinite : kEqual;
}

int run_eval(const EvalOptions &given) {
  if (pretrained::is_pretrained(given.checkpoint)) return eval_folder(given);
  EvalOptions o = given;
  refuse_folder_flags(o.folder);
  if (o.bos >= 0) throw Error("--bos is for Hugging Face folders; --checkpoint is a file");
  o.recipe = o.folder.recipe;
  const Checkpoint checkpoint = read_checkpoint(o.checkpoint);
  if (!checkpoint.config && o.model.empty())
    throw Error(checkpoint.source + ": does not say which model it is: give --model and --size");
  const ModelConfig config = o.model.empty() ? *checkpoint.config : find_model(o.model, o.size);
  const Recipe recipe = !o.recipe.empty()            ? load_recipe(o.recipe)
                        : !checkpoint.recipe.empty() ? parse_recipe(checkpoint.recipe, checkpoint.source)
                                                     : load_recipe("bf16");
  const std::unique_ptr<DataSource> data = open_data(o.data, o.validation, o.sequence, o.validation_data);
  Session session = make_session(o.device, o.threads, config, recipe, o.batch, o.sequence, false);
  load_checkpoint(checkpoint, session.model->parameters(), config, false);
  session.model->parameters_changed();
  if (checkpoint.state.step > 0) session.model->at_step(checkpoint.state.step - 1); // as in its last step
  session.model->set_held_amaxes(checkpoint.state.held_amaxes);
  std::map<std::string, HotChannels> known = session.model->hot_channel_layers(checkpoint.state.hot_channels);
  session.model->set_hot_channels(known);
  Progress progress("eval");
  const Evaluation evaluation = evaluate(
      *session.model, *data, o.batches, [&](double f) { progress.show(f); }, known.empty());
  progress.done();
  const double loss = evaluation.loss;
  const char *hot = !known.empty()                          ? "stored"
                    : session.model->hot_channels().empty() ? "none"
                                                            : "chosen on the first batch";
  const int64_t tokens = o.batches * o.batch * o.sequence;
  if (o.json) {
    nlohmann::ordered_json j = {
        {"loss", loss}, {"tokens", tokens}, {"recipe", recipe.name}, {"hot_channels", hot}};
    if (data->bytes()) j["bits_per_byte"] = loss / std::log(2.0);
    if (evaluation.not_finite) j["not_finite"] = fields_to_json(kNotFiniteFields, *evaluation.not_finite);
    fmt::print("{}\n", j.dump());
  } else {
    fmt::print("validation loss {:.5f} nats per token", loss);
    if (data->bytes()) fmt::print(" = {:.5f} bits per byte", loss / std::log(2.0));
    fmt::print(" over {} tokens, under {} (hot channels: {})\n", tokens, recipe.name, hot);
    if (evaluation.not_finite) fmt::print("NOT FINITE: {}\n", evaluation.not_finite->text());
  }
  return evaluation.not_finite ? kNotFinite : kEqual;
}

} // namespace

void register_train(Command &app, int &exit_code) {
  auto *verb = app.add_subcommand("train", "Train a small language model in exact arithmetic");
  auto o = std::make_shared<TrainVerb>();
  add_fields(*verb, kTrainFields, o->flags, kEveryField, [&](const auto &f, Option *option) {
    if (f.name == std::string_view("out")) option->required();
    o->given[f.name] = option;
  });
  verb->add_flag("--json", o->json, "One line of JSON at the end");
  verb->footer(
      "Ctrl-C and SIGTERM save a checkpoint and end with exit code 128 + signal; nvfp4 train --resume --out\n"
      "DIR then goes on with the run's own options, with --steps N to more steps than it had.\n"
      "Exit code 4: the computation did not stay finite; the first tensor that did not is named.\n"
      "Example: nvfp4 train --model gla --size tiny --recipe chon --data kjv.txt --steps 300 --out "
      "runs/chon");
  verb->callback([o, &exit_code] { exit_code = run_train(*o); });
}

void register_eval(Command &app, int &exit_code) {
  auto *verb = app.add_subcommand("eval", "Validation loss of a checkpoint");
  auto o = std::make_shared<EvalOptions>();
  verb->add_option("--checkpoint", o->checkpoint,
                   "Written by train or init, a PyTorch model's safetensors, a Hugging Face folder, or a .gguf file")
      ->required();
  verb->add_option("--data", o->data, "Text file, token files or task; the held-out part is used")
      ->required();
  verb->add_option("--recipe", o->folder.recipe, "Default: the checkpoint's own; of a folder bf16");
  add_folder_options(*verb, o->folder);
  verb->add_option("--bos", o->bos, "Of a folder: the first input of every sequence is this token")
      ->check(Range{int64_t{0}, int64_t{1} << 31});
  verb->add_option("--model", o->model, "Where the checkpoint does not say: family or JSON file");
  verb->add_option("--size", o->size, "Preset")->capture_default_str();
  verb->add_option("--batch", o->batch, "Sequences at a time")
      ->capture_default_str()
      ->check(Range{int64_t{1}, int64_t{1} << 20});
  verb->add_option("--sequence", o->sequence, "Tokens a sequence")
      ->capture_default_str()
      ->check(Range{int64_t{1}, int64_t{1} << 20});
  verb->add_option("--batches", o->batches, "How many")
      ->capture_default_str()
      ->check(Range{int64_t{1}, int64_t{1} << 40});
  verb->add_option("--validation", o->validation, "Fraction of the data held out")->capture_default_str();
  verb->add_option("--validation-data", o->validation_data,
                   "Files to validate on instead of a fraction of --data");
  add_threads(*verb, o->threads);
  verb->add_option("--device", o->device, "cpu or cuda")->capture_default_str();
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer(
      "Exit code 4: a parameter or a tensor on the way is not finite; the first is named.\n"
      "Example: nvfp4 eval --checkpoint runs/chon/checkpoint.safetensors --data kjv.txt --recipe bf16");
  verb->callback([o, &exit_code] { exit_code = run_eval(*o); });
}

} // namespace nvfp4::tool
