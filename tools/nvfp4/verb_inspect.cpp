// SPDX-License-Identifier: Apache-2.0
// nvfp4 inspect: what a checkpoint holds, how its weights look, and what is wrong with them.
#include "nvfp4/golden/checkpoint/inspection.hpp"
#include "nvfp4/reference_models/pretrained/alike.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>

namespace nvfp4::tool {
namespace {

using namespace checkpoint;
using tool::Progress; // not the library's

struct Options {
  std::string path;
  InspectionOptions inspection;
  std::string recipe;
  bool json = false, details = false;
};

/// Do the trainer's weights under a recipe become the bytes that are served?
int run_alike(const Options &o, const Checkpoint &served) {
  if (o.inspection.against.empty())
    throw Error("--recipe compares with a trainer's weights: name them with --against");
  if (!o.inspection.convention.empty()) throw Error("give --recipe or --convention, not both");
  const Checkpoint masters = open_checkpoint(o.inspection.against);
  Progress progress("inspect");
  const models::pretrained::Alike found = models::pretrained::compare_alike(
      served, masters, models::load_recipe(o.recipe),
      {o.inspection.tensor, o.inspection.threads, [&](double part) { progress.show(part); }});
  progress.done();
  fmt::print("{}", o.json ? to_json(found) + "\n" : to_text(found));
  return found.differing > 0 ? kMismatch : kEqual;
}

int run(const Options &o) {
  const Checkpoint c = open_checkpoint(o.path);
  if (!o.recipe.empty()) return run_alike(o, c);
  const Weights weights = find_weights(c);
  Progress progress("inspect");
  InspectionOptions options = o.inspection;
  options.progress = [&](double part) { progress.show(part); };
  const Inspection found = inspect(c, weights, options);
  progress.done();
  if (o.json)
    fmt::print("{}\n", to_json(c, found));
  else
    fmt::print("{}", to_text(c, found, o.details || found.lines.size() <= 4));
  return found.wrong ? kMismatch : kEqual;
}

} // namespace

void register_inspect(Command &app, int &exit_code) {
  auto *verb = app.add_subcommand("inspect", "What a checkpoint holds, and what is wrong with it");
  auto o = std::make_shared<Options>();
  verb->add_option("path", o->path,
                   "Hugging Face folder, model.safetensors.index.json, .safetensors or .gguf")
      ->required();
  verb->add_option("--tensor", o->inspection.tensor,
                   "Only weights whose names match, such as '*.mlp.*' (quote it)");
  verb->add_option(
      "--against", o->inspection.against,
      "The checkpoint before quantization: SNR of each weight, and which convention gives its bytes");
  verb->add_option("--convention", o->inspection.convention,
                   "With --against: the one convention that must give them; exit code 1 if it does not");
  verb->add_option("--recipe", o->recipe,
                   "With --against, a trainer's weights: whether this recipe's forward products quantize them to "
                   "the bytes of PATH, layer by layer, and if not, why; exit code 1 then");
  verb->add_option("--threads", o->inspection.threads, "Threads (default: all)")
      ->check(NotNegative{});
  verb->add_flag("--details", o->details,
                 "Channels, blocks and scales of each weight; the default for up to four");
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer("Exit code 1 if anything is wrong. Containers: golden/checkpoint/README.md.\nExample: nvfp4 "
               "inspect model-nvfp4 --against model-bf16");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
