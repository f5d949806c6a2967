// SPDX-License-Identifier: Apache-2.0
// Which training runs are compared, how a run is named on the command line, and how equal runs are recorded.
#include "nvfp4/gpu/check/training.hpp"
#include "nvfp4/reference_models/golden_training/training_slices.hpp"

#include <cstdlib>

namespace nvfp4::crosscheck {

using models::StepsOptions;

std::vector<StepsOptions> default_runs(int steps, int others) {
  std::vector<StepsOptions> runs;
  for (const char *family : {"gla", "qwen3", "gdn", "qwen2.5", "gsa", "mamba2"}) {
    for (const char *recipe : {"fp32", "bf16", "nvfp4", "hcp", "chon"}) {
      StepsOptions o;
      o.model = family;
      o.recipe = recipe;
      o.steps = o.model == "gla" ? steps : others;
      if (o.steps > 0) runs.push_back(o);
    }
    if (others > 0)
      for (const StepsOptions &o : models::mixer_product_runs(family, others)) runs.push_back(o);
  }
  return runs;
}

// The file format is that of tools/nvfp4/verb_golden_training.cpp.
void write_slices(const std::string &folder, const std::vector<TrainingRun> &runs) {
  cudaDeviceProp device{};
  int driver = 0, runtime = 0;
  cuda::check(cudaGetDeviceProperties(&device, 0), "device properties");
  cuda::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  cuda::check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  for (const TrainingRun &r : runs) {
    if (r.cpu != r.gpu || r.options.steps < 200) continue;
    const StepsOptions &o = r.options;
    const std::string path = folder + "/gpu-" + o.model + "-" + o.recipe + ".json";
    const bool hardware = o.recipe.starts_with("bf16") && device.major == 9;
    std::FILE *const f = std::fopen(path.c_str(), "w");
    if (f == nullptr) throw Error(path + ": cannot be written");
    std::fprintf(
        f,
        "{\n \"format\": \"nvfp4-training-slices\",\n \"version\": 1,\n \"evidence\": \"%s\",\n"
        " \"note\": \"every loss word and digest also equal on %s (CUDA driver %d.%d, runtime %d.%d)%s\",\n"
        " \"options\": {\n  \"model\": \"%s\",\n  \"size\": \"%s\",\n  \"data\": \"%s\",\n  \"batch\": "
        "%lld,\n"
        "  \"sequence\": %lld,\n  \"seed\": %llu,\n  \"learning_rate\": %g\n },\n \"slices\": [\n  {\n"
        "   \"recipe\": \"%s\",\n   \"loss_hex\": [",
        hardware ? "hardware" : "model", device.name, driver / 1000, driver % 1000 / 10, runtime / 1000,
        runtime % 1000 / 10, hardware ? ", BF16 products on its own tensor cores" : "", o.model.c_str(),
        o.size.c_str(), o.data.c_str(), static_cast<long long>(o.batch), static_cast<long long>(o.sequence),
        static_cast<unsigned long long>(o.seed), o.learning_rate, o.recipe.c_str());
    for (size_t i = 0; i < r.gpu.size(); ++i)
      std::fprintf(f, "%s\n    \"%08x\"", i == 0 ? "" : ",", r.gpu[i].loss);
    std::fprintf(f, "\n   ],\n   \"digest\": [");
    for (size_t i = 0; i < r.gpu.size(); ++i)
      std::fprintf(f, "%s\n    \"%s\"", i == 0 ? "" : ",", r.gpu[i].digest.c_str());
    std::fprintf(f, "\n   ]\n  }\n ]\n}\n");
    if (std::fclose(f) != 0) throw Error(path + ": cannot be written");
  }
}

StepsOptions parse_run(const std::string &text, bool timed) {
  std::vector<std::string> parts(1);
  for (const char c : text)
    if (c == ',')
      parts.emplace_back();
    else
      parts.back() += c;
  std::vector<int64_t StepsOptions::*> numbers = {&StepsOptions::batch, &StepsOptions::sequence};
  if (!timed) numbers.insert(numbers.begin(), &StepsOptions::steps);
  const Error bad(std::string("expected MODEL,SIZE,RECIPE,") + (timed ? "" : "STEPS,") +
                  "BATCH,LENGTH, numbers positive; got '" + text + "'");
  if (parts.size() != 3 + numbers.size()) throw bad;
  StepsOptions o;
  o.model = parts[0];
  o.size = parts[1];
  o.recipe = parts[2];
  for (size_t i = 0; i < numbers.size(); ++i)
    if ((o.*numbers[i] = std::atoll(parts[3 + i].c_str())) < 1) throw bad;
  return o;
}

} // namespace nvfp4::crosscheck
