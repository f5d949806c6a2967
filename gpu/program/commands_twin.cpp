// SPDX-License-Identifier: Apache-2.0
// nvfp4-gpu elements, mma, quantize, gemm, kernels, linear, training, profile: the twin against the CPU
// library.
#include "nvfp4/gpu/check/training.hpp"
#include "nvfp4/gpu/models/backend.hpp"
#include "nvfp4/gpu/program/program.hpp"

#include <memory>

namespace nvfp4::crosscheck {
namespace {

struct Options {
  int tiles = 8, repeats = 1, steps = 200, others = 20, images = 20, threads = 2, kernels = 0, after = 0;
  bool large = false, brief = false;
  std::string match, folder, recorded, data = models::StepsOptions{}.data;
  std::vector<std::string> runs;
};

/// A sub-command that compares something on the twin's device.
template <class Check>
CLI::App *add(CLI::App &app, const char *name, const char *what, int &exit_code, Check check) {
  CLI::App *const verb = app.add_subcommand(name, what);
  verb->callback([check, &exit_code] {
    cuda::require_device();
    exit_code = finish(check());
  });
  return verb;
}

std::vector<models::StepsOptions> parsed(const std::vector<std::string> &texts, bool timed) {
  std::vector<models::StepsOptions> runs;
  for (const std::string &text : texts) runs.push_back(parse_run(text, timed));
  return runs;
}

Tally train(const Options &o) {
  std::vector<TrainingRun> records;
  Tally tally = check_training(o.runs.empty() ? default_runs(o.steps, o.others) : parsed(o.runs, false), o.threads, &records);
  if (o.runs.empty() && o.images > 0) tally.add(check_image_training(o.images, o.threads));
  if (!o.folder.empty()) write_slices(o.folder, records);
  return tally;
}

} // namespace

int finish(const Tally &tally) {
  if (tally.values == 0)
    throw Error("nothing was compared: no name has the text of --match, or nothing is this small");
  tally.print("total");
  return tally.mismatches == 0 ? kEqual : kMismatch;
}

void register_twin(CLI::App &app, int &exit_code) {
  auto o = std::make_shared<Options>();
  add(app, "elements", "Element encoders of the fast quantizers against the codec, all 2^32 words", exit_code,
      [] { return check_elements(); });
  CLI::App *const mma = add(app, "mma", "Matrix instructions of every unit of the catalogue", exit_code,
                            [o] { return check_mma(o->tiles, o->match); });
  mma->add_option("--tiles", o->tiles, "Tiles of 16 x 8 outputs a unit and class of input")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  CLI::App *const quantize = add(app, "quantize", "Quantization under every convention and option", exit_code,
                                 [o] { return check_quantize(o->repeats); });
  quantize->add_option("--repeats", o->repeats, "Rounds; 0: a 32nd of one")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  CLI::App *const gemm =
      add(app, "gemm", "Products: FP4 on every path, the others on ragged shapes", exit_code,
          [o] { return check_gemm(o->large, o->brief, o->recorded, o->match); });
  gemm->add_flag("--large", o->large, "With products of 4096^3");
  gemm->add_flag("--brief", o->brief, "The smallest only, for compute-sanitizer")->excludes("--large");
  gemm->add_option("--recorded", o->recorded,
                   "And of a model's operands: golden/operands/gla-27m.safetensors")
      ->check(CLI::ExistingFile);
  CLI::App *const kernels =
      add(app, "kernels", "Kernels of the models", exit_code, [o] { return check_kernels(o->match); });
  CLI::App *const linear = add(app, "linear", "Linear layers under every recipe and Hot-Channel Patch",
                               exit_code, [o] { return check_linear(o->match); });
  for (CLI::App *const verb : {mma, gemm, kernels, linear})
    verb->add_option("--match", o->match, "Only names that contain this");
}

void register_training(CLI::App &app, int &exit_code) {
  auto o = std::make_shared<Options>();
  CLI::App *const training = add(app, "training", "Training runs: loss words and digests of every step",
                                 exit_code, [o] { return train(*o); });
  training->add_option("--steps", o->steps, "Steps of GLA under each recipe")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000000));
  training
      ->add_option("--other-steps", o->others,
                   "Steps of qwen3, qwen2.5, gdn, gsa, mamba2, and of products inside mixers")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000000));
  training->add_option("--image-steps", o->images, "Steps of convolutional networks")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000000));
  training->add_option("--run", o->runs, "Such runs instead: MODEL,SIZE,RECIPE,STEPS,BATCH,LENGTH")
      ->delimiter(' ');
  training->add_option("--threads", o->threads, "CPU threads of one run")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  training->add_option("--record", o->folder, "Folder for the slices of equal runs of 200 steps and more")
      ->check(CLI::ExistingDirectory);
  CLI::App *const profile = app.add_subcommand("profile", "Time training steps by operation");
  profile->add_option("runs", o->runs, "MODEL,SIZE,RECIPE,BATCH,LENGTH")->required()->delimiter(' ');
  profile->add_option("--data", o->data, "What to train on, as for nvfp4 train")->capture_default_str();
  profile->add_option("--kernels", o->kernels, "So many kernels by name, those that take longest")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  profile->add_option("--after", o->after, "Steps before those that are timed")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000000));
  profile->callback([o] {
    cuda::require_device();
    for (models::StepsOptions run : parsed(o->runs, true)) {
      run.data = o->data;
      profile_training(run, 3, o->kernels, o->after);
    }
  });
}

} // namespace nvfp4::crosscheck
