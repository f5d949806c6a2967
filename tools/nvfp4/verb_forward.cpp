// SPDX-License-Identifier: Apache-2.0
// nvfp4 init and nvfp4 forward: checkpoints to start from, and every tensor of one pass, to compare with
// other programs.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/reference_models/train/forward.hpp"
#include "nvfp4/reference_models/train/session.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/pretrained_options.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/format.h>

#include <memory>

namespace nvfp4::tool {
namespace {

using namespace nvfp4::models;

struct InitOptions {
  std::string model = "gla", size = "tiny", sizes, out;
  uint64_t seed = 1;
};

int run_init(const InitOptions &o) {
  const ModelConfig config = find_model(o.model, o.size, o.sizes);
  check_memory(config, 1, 1, false, 1);
  const std::unique_ptr<Backend<float>> backend = make_cpu_backend(0, asked_isa());
  Parameters<float> parameters(*backend, config, false);
  Progress progress("init");
  initialise(parameters, config, o.seed, [&](double f) { progress.show(f); });
  progress.done();
  save_checkpoint(o.out, parameters, config, "", {}, false);
  fmt::print("{} {}: {} parameters, seed {}, written to {}\n", config.family->name, config.name,
             parameter_count(config), o.seed, o.out);
  return kEqual;
}

struct Forward : ForwardOptions {
  std::string tokens, dump;
  PretrainedFlags folder = {};
  bool json = false;
};

/// A Hugging Face folder instead of a checkpoint of ours.
int run_folder(const Forward &o) {
  if (o.gradients) throw Error("--grads: pretrained models run forward alone");
  Progress progress("forward");
  pretrained::RunOptions options = of_folder(o.folder, o.checkpoint, o.model, o.device, o.threads);
  options.seed = o.seed;
  options.progress = [&](double f) { progress.show(f); };
  const pretrained::Forward pass = pretrained::run_forward(options, io::read_tensors(o.tokens));
  progress.done();
  io::write_tensors(o.dump, pass.tensors);
  if (o.json) {
    fmt::print("{}\n", to_json(pass, o.dump));
  } else {
    fmt::print("loss {:.6f} nats per token; {} tensors in {}\n", pass.loss, pass.tensors.tensors.size(), o.dump);
    for (const std::string &line : pass.products) fmt::print("  {}\n", line);
    if (pass.not_finite) fmt::print("NOT FINITE: {}\n", pass.not_finite->text());
  }
  return pass.not_finite ? kNotFinite : kEqual;
}

int run_forward_verb(const Forward &given) {
  if (pretrained::is_pretrained(given.checkpoint)) return run_folder(given);
  Forward o = given;
  refuse_folder_flags(o.folder);
  if (!o.folder.recipe.empty()) o.recipe = o.folder.recipe;
  Progress progress("forward");
  ForwardOptions options = o;
  options.progress = [&](double f) { progress.show(f); };
  const ForwardPass pass = run_forward(options, io::read_tensors(o.tokens));
  progress.done();
  io::write_tensors(o.dump, pass.tensors);
  if (o.json) {
    fmt::print("{}\n", forward_json(pass, o.dump));
  } else {
    fmt::print("loss {:.6f} nats per token; {} tensors in {}\n", pass.loss, pass.tensors.tensors.size(), o.dump);
    if (pass.not_finite)
      fmt::print("NOT FINITE: {}; {} of the tensors written are not finite\n", pass.not_finite->text(),
                 pass.not_finite_tensors.size());
  }
  return pass.not_finite ? kNotFinite : kEqual;
}

} // namespace

void register_init(Command &app, int &exit_code) {
  auto *verb = app.add_subcommand("init", "Write a fresh checkpoint");
  auto o = std::make_shared<InitOptions>();
  verb->add_option("--model", o->model, family_names() + ", or a JSON file")->capture_default_str();
  verb->add_option("--size", o->size, "Preset of the family")->capture_default_str();
  verb->add_option("--set", o->sizes, "Changes to the preset, e.g. hidden=256,layers=6");
  verb->add_option("--seed", o->seed, "Of the initial values")->capture_default_str();
  verb->add_option("-o,--output", o->out, "Checkpoint (.safetensors)")->required();
  verb->footer("Example: nvfp4 init --model gla --size tiny --seed 1 -o c.safetensors");
  verb->callback([o, &exit_code] { exit_code = run_init(*o); });
}

void register_forward(Command &app, int &exit_code) {
  auto *verb = app.add_subcommand("forward", "Run a checkpoint on given tokens and write every tensor");
  auto o = std::make_shared<Forward>();
  verb->add_option("--checkpoint", o->checkpoint,
                   "Written by train or init, a PyTorch model's safetensors, a Hugging Face folder, or a .gguf file")
      ->required();
  verb->add_option("--recipe", o->folder.recipe, "Built-in name or JSON file (default bf16)");
  add_folder_options(*verb, o->folder);
  verb->add_option("--tokens", o->tokens, "int32 [B, T + 1]: inputs [:, :-1], targets [:, 1:]")->required();
  verb->add_option("--dump", o->dump, "Output: logits, loss, act/MODULE; with --grads also grad/PARAMETER, output_grad/MODULE, input_grad/MODULE")->required();
  verb->add_flag("--grads", o->gradients, "Also the gradients of the mean loss");
  verb->add_flag("--operators", o->operators,
                 "Also tap/layers.N.ROLE.KIND, the matrices of the operators inside mixers");
  verb->add_option("--model", o->model, "Where the checkpoint does not say: family or JSON file");
  verb->add_option("--size", o->size, "Preset")->capture_default_str();
  verb->add_option("--seed", o->seed, "Of stochastic rounding")->capture_default_str();
  add_threads(*verb, o->threads);
  verb->add_option("--device", o->device, "cpu or cuda")->capture_default_str();
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer("Exit code 4: a parameter or a tensor on the way is not finite; the first is named.\n"
               "Example: nvfp4 forward --checkpoint c.safetensors --recipe chon --tokens t.npy --dump "
               "out.safetensors --grads");
  verb->callback([o, &exit_code] { exit_code = run_forward_verb(*o); });
}

} // namespace nvfp4::tool
