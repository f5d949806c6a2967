// SPDX-License-Identifier: Apache-2.0
// nvfp4 lab: recipes side by side, and one page to decide from.
#include "nvfp4/reference_models/lab/lab.hpp"
#include "nvfp4/version.hpp"
#include "tools/nvfp4/field_options.hpp"
#include "tools/nvfp4/interrupt.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <memory>
#include <optional>

namespace nvfp4::tool {
namespace {

struct Options {
  models::LabOptions lab;
  bool json = false;
};

int lab(const Options &o) {
  const Interrupt interrupt;
  const auto stop = [] { return Interrupt::signal() != 0; };
  std::optional<Progress> line;
  std::string at;
  const models::LabCallbacks callbacks{
      .say = [](const std::string &text) { fmt::print(stderr, "nvfp4: lab: {}\n", text); },
      .progress =
          [&](const std::string &stage, double fraction) {
            if (stage != at) line.emplace("lab: " + (at = stage));
            line->show(std::min(1.0, fraction));
          },
      .stop = stop};
  const models::LabResult result = models::run_lab(
      o.lab,
      [&](const models::TrainOptions &t, const std::function<void(const models::StepReport &)> &step) {
        return models::train(t, step, stop);
      },
      callbacks, NVFP4_VERSION_STRING);
  line.reset();
  if (result.interrupted || stop()) {
    fmt::print("stopped; the same call goes on: nvfp4 lab --out {} and the options given before\n",
               o.lab.out);
    return Interrupt::exit_code();
  }
  fmt::print("{}", o.json ? models::lab_json(result) : models::lab_table(result));
  if (!o.json) fmt::print("{0}/lab.html is the page, {0}/lab.json has every number\n", o.lab.out);
  return kEqual;
}

} // namespace

void register_lab(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand(
      "lab", "Recipes and formats side by side: losses, errors, biases, costs, published claims");
  auto o = std::make_shared<Options>();
  add_fields(*verb, models::kLabFields, o->lab, models::kEveryField, [](const auto &, Option *) {});
  verb->add_option("--rates", o->lab.rates,
                   "Multiples of the learning rate, all of which are run; the first counts for gaps")
      ->delimiter(',')
      ->capture_default_str();
  verb->add_flag("--json", o->json, "Machine-readable output: what lab.json has");
  verb->footer(
      "Says how long it takes before it starts. Stopped or killed, the same call goes on.\n"
      "Example: nvfp4 lab --model gla,tiny --data kjv.txt --recipes nvfp4,chon,mxfp4-sr-rht --out lab");
  verb->callback([o, &exit_code] { exit_code = lab(*o); });
}

} // namespace nvfp4::tool
