// SPDX-License-Identifier: Apache-2.0
// nvfp4 cnn: trains a small convolutional network, or measures a checkpoint of one.
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/images/options.hpp"
#include "nvfp4/reference_models/train/result_json.hpp"
#include "tools/nvfp4/field_options.hpp"
#include "tools/nvfp4/interrupt.hpp"
#include "tools/nvfp4/train_progress.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <map>
#include <memory>

namespace nvfp4::tool {
namespace {

using namespace nvfp4::models;

struct CnnVerb {
  ImageOptions flags;
  std::map<std::string, const Option *> given; ///< by field
  std::string checkpoint;
  bool json = false;

  [[nodiscard]] bool has(const char *field) const { return given.at(field)->count() > 0; }
};

/// The run's own options, and what the command line gives instead. More steps leave the schedule as it was.
ImageOptions resumed(const CnnVerb &v) {
  const StoredImageRun stored = read_image_run(v.flags.out);
  ImageOptions o = stored.options;
  for (const char *field : {"size", "widths", "convolutions", "hidden", "recipe", "bf16_first", "bf16_last"})
    if (v.has(field))
      throw Error(fmt::format("a resumed run has the network and recipe of its folder: drop {}", v.given.at(field)->get_name()));
  const int64_t schedule = o.schedule_steps > 0 ? o.schedule_steps : o.steps;
  each_field(kImageTrainFields, [&](const auto &f) {
    if (v.has(f.name)) o.*f.member = v.flags.*f.member;
  });
  if (v.has("steps") && !v.has("schedule_steps")) o.schedule_steps = schedule;
  return o;
}

int measure(const CnnVerb &v) {
  for (const char *field : {"size", "widths", "convolutions", "hidden", "out", "steps", "resume"})
    if (v.has(field))
      throw Error(fmt::format("--checkpoint measures a network that is there: drop {}", v.given.at(field)->get_name()));
  ImageEvaluationOptions o{.checkpoint = v.checkpoint,
                           .recipe = v.has("recipe") ? v.flags.recipe : std::string(),
                           .data = v.flags.data,
                           .validation_data = v.flags.validation_data,
                           .validation = v.flags.validation,
                           .threads = v.flags.threads,
                           .device = v.flags.device};
  if (v.has("batch")) o.batch = v.flags.batch;
  if (v.has("eval_images")) o.images = v.flags.eval_images;
  Progress progress("cnn");
  o.progress = [&](double f) { progress.show(f); };
  const ImageEvaluation e = evaluate_images(o);
  progress.done();
  if (v.json) {
    nlohmann::ordered_json j = {{"loss", e.loss}, {"accuracy", e.accuracy}, {"images", e.images}, {"recipe", e.recipe}};
    if (e.not_finite) j["not_finite"] = fields_to_json(kNotFiniteFields, *e.not_finite);
    fmt::print("{}\n", j.dump());
  } else {
    fmt::print("accuracy {:.2f} %, loss {:.5f} nats, over {} images, under {}\n", 100 * e.accuracy, e.loss, e.images, e.recipe);
    if (e.not_finite) fmt::print("NOT FINITE: {}\n", e.not_finite->text());
  }
  return e.not_finite ? kNotFinite : kEqual;
}

int run_cnn(const CnnVerb &v) {
  if (!v.checkpoint.empty()) return measure(v);
  if (v.flags.out.empty()) throw Error("expected a folder for the run (--out DIR), or --checkpoint FILE to measure one");
  const ImageOptions options = v.flags.resume ? resumed(v) : v.flags;
  const Interrupt interrupt;
  TrainProgress progress("images");
  double seconds = 0;
  int64_t images = 0;
  const TrainResult result = train_images(
      options,
      [&](const StepReport &r) {
        seconds += double(options.batch) / r.tokens_per_second;
        images += options.batch;
        progress.show(r);
      },
      [] { return Interrupt::signal() != 0; });
  progress.done();
  const double speed = seconds > 0 ? double(images) / seconds : 0;
  if (v.json) {
    fmt::print("{}\n", result_json(result, speed, options.out));
    return result.interrupted ? Interrupt::exit_code() : result.diverged != 0 ? kNotFinite : kEqual;
  }
  fmt::print("{} under {}, seed {}: {} steps of {} images\n", options.size, options.recipe, options.seed, result.steps, options.batch);
  if (result.interrupted) {
    fmt::print("  stopped after step {} of {}; go on with: nvfp4 cnn --resume --out {}\n", result.steps, options.steps, options.out);
    return Interrupt::exit_code();
  }
  if (result.diverged != 0) {
    if (result.not_finite) fmt::print("  NOT FINITE: {}\n", result.not_finite->text());
    fmt::print("  DIVERGED at step {}: last finite loss {}; stopped, written to {}\n", result.diverged,
               std::isfinite(result.last_finite_loss) ? fmt::format("{:.4f}", result.last_finite_loss) : std::string("none"),
               options.out);
    return kNotFinite;
  }
  fmt::print("  loss {:.4f} (last 10 %: {:.4f}), validation {:.4f} nats, accuracy {:.2f} %\n", result.final_loss,
             result.smoothed_loss, result.validation_loss, 100 * result.validation_accuracy.value_or(0));
  fmt::print("  {:.0f} images/s, state {}, written to {}\n", speed, result.parameter_digest, options.out);
  return kEqual;
}

} // namespace

void register_cnn(Command &app, int &exit_code) {
  auto *verb = app.add_subcommand("cnn", "Train a small convolutional network in exact arithmetic, or measure one");
  auto o = std::make_shared<CnnVerb>();
  add_fields(*verb, kImageTrainFields, o->flags, kEveryField,
             [&](const auto &f, Option *option) { o->given[f.name] = option; });
  verb->add_option("--checkpoint", o->checkpoint,
                   "Measure this checkpoint instead: accuracy on held-out images, 10000 at the most, 100 at a time, under its "
                   "own recipe or --recipe");
  verb->add_flag("--json", o->json, "One line of JSON at the end");
  verb->footer(
      "Ctrl-C and SIGTERM save a checkpoint and end with exit code 128 + signal; nvfp4 cnn --resume --out DIR\n"
      "then goes on with the run's own options, with --steps N to more steps than it had.\n"
      "Exit code 4: the computation did not stay finite; the first tensor that did not is named.\n"
      "Example: nvfp4 cnn --recipe tanh-int4 --out runs/cnn\n"
      "         nvfp4 cnn --size cifar --data 'cifar-10-batches-bin/data_batch_*.bin' --validation-data\n"
      "         cifar-10-batches-bin/test_batch.bin --batch 128 --steps 39000 --out runs/cifar\n"
      "         nvfp4 cnn --checkpoint runs/cnn/checkpoint.safetensors --recipe bf16");
  verb->callback([o, &exit_code] { exit_code = run_cnn(*o); });
}

} // namespace nvfp4::tool
