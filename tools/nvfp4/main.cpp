// SPDX-License-Identifier: Apache-2.0
// The program nvfp4: every verb, every device.
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/family/family.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/reference_models/train/session.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/known_values.hpp"
#include "tools/nvfp4/program.hpp"
#include "tools/nvfp4/verbs.hpp"
#if NVFP4_CUDA
#include "nvfp4/gpu/models/session.hpp"
#endif

namespace nvfp4::tool {
namespace {

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const std::string_view n : models::builtin_recipes()) names.emplace_back(n);
  for (const models::RecipeVariation &v : models::recipe_variations()) names.emplace_back(v.name);
  return names;
}

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const models::ModelFamily *f : models::families()) names.emplace_back(f->name);
  return names;
}

void add_verbs(Command &program, int &exit_code) {
  Command &golden = *register_arithmetic(program, exit_code);
  register_golden_capture(golden, exit_code);
  register_golden_training(golden, exit_code);
  register_bench(program, exit_code);
  register_check(program, exit_code);
  register_inspect(program, exit_code);
  register_export(program, exit_code);
  register_train(program, exit_code);
  register_eval(program, exit_code);
  register_init(program, exit_code);
  register_forward(program, exit_code);
  register_generate(program, exit_code);
  register_cnn(program, exit_code);
  register_experiment(program, exit_code);
  register_lab(program, exit_code);
  register_report(program, exit_code);
  register_log(program, exit_code);
  register_record(program, exit_code);
  register_replay(program, exit_code);
  register_crosscheck(program, exit_code);
  register_recipe(program, exit_code);
  register_completion(program, exit_code);
  register_man(program, exit_code);
}

} // namespace
} // namespace nvfp4::tool

int main(int argc, char **argv) {
  using namespace nvfp4;
  models::register_device("cpu", [](int threads) { return models::make_cpu_session(threads, tool::asked_isa()); });
#if NVFP4_CUDA
  cuda::register_cuda_device();
#endif
  tool::add_known_values("recipe", tool::recipe_names);
  tool::add_known_values("model", tool::model_names);
  return tool::run_program("nvfp4", argc, argv, tool::add_verbs);
}
