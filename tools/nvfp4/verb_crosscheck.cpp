// SPDX-License-Identifier: Apache-2.0
// nvfp4 crosscheck: the GPU against the CPU, word by word: matrix instructions and products of every unit,
// quantization, kernels and linear layers of the models, training steps.
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/family/family.hpp"
#include "tools/nvfp4/verbs.hpp"

#if NVFP4_CUDA
#include "nvfp4/gpu/check/check.hpp"
#include "nvfp4/gpu/check/training.hpp"
#include "nvfp4/gpu/models/backend.hpp"
#include <omp.h>
#endif

#include <memory>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string units, layers, model = "gla", size = "tiny", recipe;
  int64_t batch = 4, sequence = 64;
  bool units_asked = false, layers_asked = false, json = false;
  int train = 0, tiles = 8, threads = 2;
};

#if NVFP4_CUDA
int run(const Options &o) {
  using namespace crosscheck;
  cuda::require_device();
  const bool everything = !o.units_asked && !o.layers_asked && o.train == 0;
  Tally all;
  if (o.units_asked || everything) {
    all.add(check_mma(o.tiles, o.units));
    if (o.units.empty()) {
      all.add(check_quantize(1));
      all.add(check_gemm(false, false));
    }
  }
  if (o.layers_asked || everything) {
    all.add(check_kernels(o.layers));
    all.add(check_linear(o.layers));
  }
  if (o.train > 0 || everything) {
    std::vector<models::StepsOptions> runs;
    for (const char *recipe : {"fp32", "bf16", "nvfp4", "hcp", "chon"}) {
      if (!o.recipe.empty() && !runs.empty()) break;
      models::StepsOptions steps;
      steps.model = o.model;
      steps.size = o.size;
      steps.batch = o.batch;
      steps.sequence = o.sequence;
      steps.recipe = o.recipe.empty() ? recipe : o.recipe;
      steps.steps = everything ? 20 : o.train;
      runs.push_back(steps);
    }
    const int threads = o.threads > 0 ? o.threads : omp_get_max_threads();
    all.add(check_training(runs, threads));
    if (everything) all.add(check_image_training(20, threads));
  }
  if (all.values == 0) throw Error("nothing matches: see nvfp4 info units, or leave the names out");
  all.print("total");
  if (o.json)
    std::printf("{\"values\":%llu,\"mismatches\":%llu}\n", static_cast<unsigned long long>(all.values),
                static_cast<unsigned long long>(all.mismatches));
  return all.mismatches == 0 ? kEqual : kMismatch;
}
#else
int run(const Options &) {
  throw models::NoDevice(
      "this build has no CUDA: it was configured without it, so there is no GPU side to compare");
}
#endif

} // namespace

void register_crosscheck(Command &app, int &exit_code) {
  auto *verb = app.add_subcommand("crosscheck", "Compare the GPU with the CPU, word by word");
  auto o = std::make_shared<Options>();
  auto *units = verb->add_option("--units", o->units,
                                 "Units whose name has this, \"\" for all, with quantization and products")
                    ->expected(0, 1);
  auto *layers =
      verb->add_option("--layers", o->layers, "Kernels and linear layers whose name has this, \"\" for all")
          ->expected(0, 1);
  verb->add_option("--train", o->train, "Training steps a recipe")->check(Range{1, 100000});
  verb->add_option("--model", o->model, "With --train: " + models::family_names() + ", or a JSON file")
      ->capture_default_str();
  verb->add_option("--size", o->size, "With --train: preset of the family")->capture_default_str();
  verb->add_option("--batch", o->batch, "With --train: sequences a step")
      ->capture_default_str()
      ->check(Range{int64_t{1}, int64_t{1} << 20});
  verb->add_option("--sequence", o->sequence, "With --train: tokens a sequence")
      ->capture_default_str()
      ->check(Range{int64_t{1}, int64_t{1} << 20});
  verb->add_option("--recipe", o->recipe, "With --train: one recipe instead of fp32, bf16, nvfp4, hcp, chon");
  verb->add_option("--tiles", o->tiles, "Tiles a unit and class of input")
      ->capture_default_str()
      ->check(Range{1, 10000});
  verb->add_option("--threads", o->threads, "CPU threads of one training run; 0: all")
      ->capture_default_str()
      ->check(Range{0, 1024});
  verb->add_flag("--json", o->json, "A last line of JSON");
  verb->footer("Without --units, --layers and --train: everything, 20 steps a recipe.\n"
               "Example: nvfp4 crosscheck --units wgmma --train 50 --recipe chon");
  verb->callback([o, units, layers, &exit_code] {
    o->units_asked = units->count() > 0;
    o->layers_asked = layers->count() > 0;
    exit_code = run(*o);
  });
}

} // namespace nvfp4::tool
