// SPDX-License-Identifier: Apache-2.0
// The files of golden training slices, and the comparison of steps.
#include "nvfp4/reference_models/golden_training/training_slices.hpp"

#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/train/fields.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char *kFormat = "nvfp4-training-slices";

std::string hex(uint32_t word) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", unsigned(word));
  return text;
}

/// The list under `key`, each of n hexadecimal digits.
std::vector<std::string> words(const Fields &fields, const char *key, size_t n, const std::string &where) {
  const Json &json = fields.json();
  if (!json.contains(key) || !json[key].is_array() || json[key].empty())
    throw Error(where + key + ": expected a list of " + std::to_string(n) + " hexadecimal digits each");
  std::vector<std::string> out;
  for (const Json &item : json[key]) out.push_back(Fields(Json{{key, item}}, where).digits(key, n));
  return out;
}

TrainingSlice read_slice(const Json &json, const StepsOptions &shared, const std::string &where) {
  const Fields fields(json, where);
  TrainingSlice slice{shared, {}};
  slice.options.recipe = fields.text("recipe");
  const std::vector<std::string> losses = words(fields, "loss_hex", 8, where);
  const std::vector<std::string> digests = words(fields, "digest", 16, where);
  if (losses.size() != digests.size())
    throw Error(where + "expected as many losses as digests, got " + std::to_string(losses.size()) + " and " +
                std::to_string(digests.size()));
  for (size_t i = 0; i < losses.size(); ++i)
    slice.steps.push_back({uint32_t(std::stoul(losses[i], nullptr, 16)), digests[i]});
  slice.options.steps = int64_t(losses.size());
  return slice;
}

} // namespace

std::string TrainingSlice::name() const { return options.model + " " + options.size + " " + options.recipe; }

std::vector<StepsOptions> mixer_product_runs(std::string_view family, int64_t steps) {
  std::vector<StepsOptions> runs;
  for (const char *recipe : {"nvfp4+mixer_rules=nvfp4", "mxfp8+mixer_rules=mxfp8"}) {
    StepsOptions o;
    o.model = family;
    o.recipe = recipe;
    o.steps = steps;
    o.batch = 2;
    o.sequence = 80;
    runs.push_back(o);
  }
  return runs;
}

std::vector<TrainingSlice> parse_training_slices(std::string_view text, const std::string &source) {
  const std::string where = io::printable(source) + ": ";
  const Fields file(parse_json(text, where), where);
  if (file.text("format") != kFormat || file.count("version", 1) != 1)
    throw Error(where + "expected format " + kFormat + ", version 1");
  StepsOptions shared;
  const Fields options = file.object("options");
  size_t found = 0;
  for (const auto &[key, value] : options.json().items()) {
    if (!set_field(kStepsFields, shared, key, value, where + "options: "))
      throw Error(where + "options: unknown key " + io::in_quotes(key));
    ++found;
  }
  if (found != std::tuple_size_v<std::remove_cvref_t<decltype(kStepsFields)>>)
    throw Error(where + "options: expected " + field_names(kStepsFields, kEveryField));
  if (!file.json().contains("slices") || !file.json()["slices"].is_array())
    throw Error(where + "expected a list under 'slices'");
  std::vector<TrainingSlice> slices;
  for (const Json &slice : file.json()["slices"])
    slices.push_back(read_slice(slice, shared, where + "slice " + std::to_string(slices.size()) + ": "));
  return slices;
}

std::vector<TrainingSlice> read_training_slices(const std::string &folder, std::string_view match) {
  std::error_code code;
  if (!std::filesystem::is_directory(folder, code))
    throw Error(io::printable(folder) +
                ": expected a folder of training slices; give --dir with the golden folder");
  std::vector<std::string> paths;
  for (const auto &entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".json") paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  std::vector<TrainingSlice> out;
  for (const std::string &path : paths)
    for (TrainingSlice &slice : parse_training_slices(read_text(path), path))
      if (slice.name().find(match) != std::string::npos) out.push_back(std::move(slice));
  if (out.empty()) throw Error("no training slice matches " + io::in_quotes(match));
  return out;
}

std::string training_slices_json(const std::vector<TrainingSlice> &slices) {
  Json file = {{"format", kFormat}, {"version", 1}, {"evidence", "model"}};
  file["options"] = fields_to_json(kStepsFields, slices.at(0).options);
  for (const TrainingSlice &slice : slices) {
    if (fields_to_json(kStepsFields, slice.options) != file["options"])
      throw Error("training slices of one file share their options; " + slice.name() + " has others");
    Json losses = Json::array(), digests = Json::array();
    for (const StepRecord &step : slice.steps) {
      losses.push_back(hex(step.loss));
      digests.push_back(step.digest);
    }
    file["slices"].push_back({{"recipe", slice.options.recipe}, {"loss_hex", losses}, {"digest", digests}});
  }
  return file.dump(1) + "\n";
}

SliceRepetition repeat(const TrainingSlice &slice, const std::string &device, int threads) {
  StepsOptions options = slice.options;
  options.device = device;
  options.threads = threads;
  SliceRepetition out{run_steps(options), 0};
  const auto differs =
      std::mismatch(out.steps.begin(), out.steps.end(), slice.steps.begin(), slice.steps.end());
  out.equal = size_t(differs.first - out.steps.begin());
  return out;
}

std::string step_text(const StepRecord &step) {
  return "loss " + hex(step.loss) + " and digest " + step.digest;
}

} // namespace nvfp4::models
