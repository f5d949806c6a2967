// SPDX-License-Identifier: Apache-2.0
// nvfp4-crosscheck-gpu: compares gpu/emulated with the CPU library, word by word, and times it. Exit code 0
// equal, 1 mismatch, 2 bad call, 3 no GPU.
#include "nvfp4/gpu/check/check.hpp"
#include "nvfp4/gpu/check/training.hpp"
#include "nvfp4/gpu/models/backend.hpp"

#include <cstdlib>
#include <cstring>
#include <set>

namespace {

using namespace nvfp4::crosscheck;
using nvfp4::models::StepsOptions;

constexpr const char *kUsage =
    "usage: nvfp4-crosscheck-gpu [elements] [mma] [quantize] [gemm] [large] [brief] [time] [kernels] "
    "[linear]\n"
    "         [train] [--tiles N] [--match TEXT] [--repeats N] [--size N] [--steps N] [--other-steps N]\n"
    "         [--train MODEL,SIZE,RECIPE,STEPS,BATCH,LENGTH]... [--record FOLDER]\n"
    "         [--profile MODEL,SIZE,RECIPE,BATCH,LENGTH]...\n"
    "Without names: elements, mma, quantize, gemm, kernels, linear. large and brief are gemm with 4096^3 "
    "products or\n"
    "the smallest only.\n"
    "--tiles: tiles of 16 x 8 outputs per unit and class (default 8).\n"
    "--match: units whose name contains TEXT. --repeats: rounds of the quantization check, 0 for a "
    "32nd\n"
    "of one. --size: of the timed product (default 8192). train: GLA under fp32, bf16, nvfp4, hcp and chon "
    "for --steps (default 200), "
    "qwen3,\n"
    "qwen2.5 and gdn for --other-steps (default 20); --train: such a run instead; --record writes GLA's "
    "slices.\n"
    "--profile: times training steps.\n"
    "Example: nvfp4-crosscheck-gpu mma --match wgmma --tiles 64\n";

std::vector<StepsOptions> training_runs(int steps, int others) {
  std::vector<StepsOptions> runs;
  for (const char *family : {"gla", "qwen3", "gdn", "qwen2.5"})
    for (const char *recipe : {"fp32", "bf16", "nvfp4", "hcp", "chon"}) {
      StepsOptions o;
      o.model = family;
      o.recipe = recipe;
      o.steps = o.model == "gla" ? steps : others;
      if (o.steps > 0) runs.push_back(o);
    }
  return runs;
}

/// Slices of one family as golden/training has them (tools/nvfp4/verb_golden_training.cpp).
void record(const std::string &folder, const std::vector<TrainingRun> &runs) {
  cudaDeviceProp device{};
  int driver = 0, runtime = 0;
  nvfp4::cuda::check(cudaGetDeviceProperties(&device, 0), "device properties");
  nvfp4::cuda::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  nvfp4::cuda::check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  for (const TrainingRun &r : runs) {
    if (r.cpu != r.gpu || r.options.steps < 200) continue;
    const StepsOptions &o = r.options;
    const std::string path = folder + "/gpu-" + o.model + "-" + o.recipe + ".json";
    const bool hardware = o.recipe.starts_with("bf16") && device.major == 9;
    std::FILE *const f = std::fopen(path.c_str(), "w");
    if (f == nullptr) throw nvfp4::Error(path + ": cannot be written");
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
    if (std::fclose(f) != 0) throw nvfp4::Error(path + ": cannot be written");
  }
}

/// MODEL,SIZE,RECIPE and numbers, which `to` gets.
StepsOptions parse_run(const std::string &text, const char *expected,
                       std::initializer_list<int64_t StepsOptions::*> to) {
  std::vector<std::string> parts(1);
  for (const char c : text)
    if (c == ',')
      parts.emplace_back();
    else
      parts.back() += c;
  const nvfp4::Error bad(std::string(expected) + ", numbers positive; got '" + text + "'");
  if (parts.size() != 3 + to.size()) throw bad;
  StepsOptions o;
  o.model = parts[0];
  o.size = parts[1];
  o.recipe = parts[2];
  size_t i = 3;
  for (const auto field : to)
    if ((o.*field = std::atoi(parts[i++].c_str())) < 1) throw bad;
  return o;
}

int run(int argc, char **argv) {
  const std::set<std::string> known = {"elements", "mma",  "quantize", "gemm",   "large",
                                       "brief",    "time", "kernels",  "linear", "train"};
  std::set<std::string> asked;
  int tiles = 8, repeats = 1, size = 8192, steps = 200, others = 20;
  std::string match, folder;
  std::vector<StepsOptions> profiles, runs;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const char *const value = i + 1 < argc ? argv[i + 1] : nullptr;
    const auto number = [&](int &to, int least) {
      if (value == nullptr || std::atoi(value) < least)
        throw nvfp4::Error(word + " takes a number of at least " + std::to_string(least));
      to = std::atoi(value);
      ++i;
    };
    if (known.contains(word))
      asked.insert(word);
    else if (word == "--tiles")
      number(tiles, 1);
    else if (word == "--repeats")
      number(repeats, 0);
    else if (word == "--size")
      number(size, 1);
    else if (word == "--steps")
      number(steps, 0);
    else if (word == "--other-steps")
      number(others, 0);
    else if (word == "--match" && value != nullptr)
      match = value, ++i;
    else if (word == "--record" && value != nullptr)
      folder = value, ++i;
    else if (word == "--profile" && value != nullptr)
      profiles.push_back(parse_run(value, "--profile takes MODEL,SIZE,RECIPE,BATCH,LENGTH",
                                   {&StepsOptions::batch, &StepsOptions::sequence})),
          ++i;
    else if (word == "--train" && value != nullptr)
      runs.push_back(parse_run(value, "--train takes MODEL,SIZE,RECIPE,STEPS,BATCH,LENGTH",
                               {&StepsOptions::steps, &StepsOptions::batch, &StepsOptions::sequence})),
          ++i;
    else if (word == "--help" || word == "-h")
      return std::fputs(kUsage, stdout), 0;
    else
      throw nvfp4::Error("unknown argument '" + word + "'; see --help");
  }
  if (asked.empty() && profiles.empty() && runs.empty())
    asked = {"elements", "mma", "quantize", "gemm", "kernels", "linear"};
  nvfp4::cuda::require_device();
  const auto wanted = [&](const char *name) { return asked.contains(name); };
  Tally all;
  if (wanted("elements")) all.add(check_elements());
  if (wanted("mma")) all.add(check_mma(tiles, match));
  if (wanted("quantize")) all.add(check_quantize(repeats));
  if (wanted("gemm") || wanted("large") || wanted("brief"))
    all.add(check_gemm(wanted("large"), wanted("brief")));
  if (wanted("kernels")) all.add(check_kernels(match));
  if (wanted("linear")) all.add(check_linear(match));
  if (wanted("train") && runs.empty()) runs = training_runs(steps, others);
  if (!runs.empty()) {
    std::vector<TrainingRun> records;
    all.add(check_training(runs, 2, &records));
    if (!folder.empty()) record(folder, records);
  }
  if (wanted("time")) all.add(time_all(size));
  for (const StepsOptions &p : profiles) profile_training(p, 3);
  if (!asked.empty() || !runs.empty()) all.print("total");
  return all.mismatches == 0 ? 0 : 1;
}

} // namespace

int main(int argc, char **argv) {
  try {
    return run(argc, argv);
  } catch (const nvfp4::models::NoDevice &e) {
    std::fprintf(stderr, "nvfp4-crosscheck-gpu: %s\n", e.what());
    return 3;
  } catch (const std::exception &e) {
    std::fprintf(stderr, "nvfp4-crosscheck-gpu: %s\n", e.what());
    return 2;
  }
}
