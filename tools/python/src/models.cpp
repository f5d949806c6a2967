// SPDX-License-Identifier: Apache-2.0
// Training, forward passes, reports, the lab.
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/lab/lab.hpp"
#include "nvfp4/reference_models/report/report.hpp"
#include "nvfp4/reference_models/train/forward.hpp"
#include "nvfp4/reference_models/train/options.hpp"
#include "nvfp4/reference_models/train/result_json.hpp"
#include "nvfp4/version.hpp"
#include "tools/python/src/arguments.hpp"

#include <algorithm>

namespace nvfp4::python {
namespace {

using namespace nvfp4::models;

/// `options`: a JSON object of the trainer's fields.
std::string train_run(const std::string &options, const StepCall &on_step) {
  TrainOptions o;
  const auto json = io::parse_json(options, "train: ");
  for (const auto &[key, value] : json.items())
    if (!set_option(o, key, value, "train: "))
      throw TypeError("train: there is no option '" + key + "'; expected one of " +
                      field_names(kTrainFields, kEveryField));
  double seconds = 0;
  int64_t tokens = 0;
  const TrainResult result = train(o, [&](const StepReport &r) {
    const auto trained = double(o.batch * o.sequence * o.accumulation);
    seconds += trained / r.tokens_per_second;
    tokens += int64_t(trained);
    on_step(r.step, r.steps, double(r.loss), r.tokens_per_second);
  });
  return result_json(result, seconds > 0 ? double(tokens) / seconds : 0, o.out);
}

/// Written to `dump` where that is not empty, and the tensors.
std::tuple<std::string, FileResult> forward_pass(const std::string &checkpoint, const ArrayArg &tokens,
                                                 const std::string &recipe, const std::string &model,
                                                 const std::string &size, const std::string &device,
                                                 bool gradients, bool operators, int threads, uint64_t seed,
                                                 const Progress &progress) {
  const ForwardOptions o{checkpoint, recipe, model, size, device, gradients, operators, threads, seed, progress};
  ForwardPass pass = run_forward(o, to_file("tokens", tokens));
  return {forward_json(pass, ""), give(std::move(pass.tensors))};
}

/// `options`: a JSON object of the lab's fields and rates. Gets stage and fraction of it.
std::string lab_run(const std::string &options, const LabCall &progress) {
  LabOptions o;
  const auto json = io::parse_json(options, "lab: ");
  for (const auto &[key, value] : json.items()) {
    if (key == "rates") {
      if (!value.is_array() || !std::ranges::all_of(value, [](const auto &x) { return x.is_number(); }))
        throw Error("lab: 'rates' takes a list of numbers, got " + shown(value));
      o.rates = value.get<std::vector<double>>();
    } else if (!set_field(kLabFields, o, key, value, "lab: ")) {
      throw TypeError("lab: there is no option '" + key + "'; expected one of " + field_names(kLabFields, kEveryField) + ", rates");
    }
  }
  const auto train_one = [](const TrainOptions &t, const std::function<void(const StepReport &)> &step) { return train(t, step); };
  return lab_json(run_lab(o, train_one, {.say = {}, .progress = progress, .stop = {}}, NVFP4_VERSION_STRING));
}

std::string report(const std::vector<std::string> &folders, const std::string &output,
                   const Progress &progress) {
  return report_json(write_report(folders, output, NVFP4_VERSION_STRING, progress), output);
}

} // namespace

void bind_models(Module &m) {
  m.def<train_run>("train", "options progress");
  m.def<forward_pass>("forward", "checkpoint tokens recipe model size device grads operators threads seed progress");
  m.def<lab_run>("lab", "options progress");
  m.def<report>("report", "folders output progress");
}

} // namespace nvfp4::python
