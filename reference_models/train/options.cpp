// SPDX-License-Identifier: Apache-2.0
// What is done with the list of fields.
#include "nvfp4/reference_models/train/options.hpp"

namespace nvfp4::models {

using Json = nlohmann::ordered_json;

std::string recipe_names() {
  std::string names;
  for (const std::string_view name : builtin_recipes()) names.append(names.empty() ? "" : ", ").append(name);
  return names;
}

void check_options(const TrainOptions &options) {
  check_bounds(kTrainFields, options);
  (void)parse_enum<Schedule>(options.schedule);
}

Recipe recipe_of_run(const TrainOptions &options) {
  Recipe recipe = load_recipe(options.recipe);
  if (options.bf16_first >= 0 || options.bf16_last >= 0)
    keep_in_bf16(recipe, options.bf16_first, options.bf16_last);
  return recipe.for_run(schedule_steps(options));
}

Json options_to_json(const TrainOptions &options) { return fields_to_json(kTrainFields, options); }

bool set_option(TrainOptions &options, std::string_view key, const Json &value, const std::string &where,
                const std::string &advice) {
  return set_field(kTrainFields, options, key, value, where, advice);
}

std::string first_difference(const TrainOptions &options, const Json &stored, const std::string &where,
                             const std::string &advice) {
  TrainOptions other;
  if (!stored.is_object()) throw Error(where + "expected an object of options" + advice);
  for (const auto &[key, value] : stored.items()) set_option(other, key, value, where, advice);
  const Json here = options_to_json(options), there = options_to_json(other);
  std::string difference;
  if (schedule_steps(options) != schedule_steps(other) || options.steps < other.steps)
    difference = "steps: " + std::to_string(options.steps) + " here under a schedule for " +
                 std::to_string(schedule_steps(options)) + ", " + std::to_string(other.steps) +
                 " there under one for " + std::to_string(schedule_steps(other)) +
                 " (--schedule-steps keeps a schedule when there are more steps)";
  each_field(kTrainFields, [&](const auto &f) {
    const std::string_view name = f.name;
    if ((f.marks & kDecides) != 0 && (f.marks & kNames) == 0 && name != "steps" && name != "schedule_steps" &&
        difference.empty() && here[f.name] != there[f.name])
      difference =
          std::string(f.name) + ": " + shown(here[f.name]) + " here, " + shown(there[f.name]) + " there";
  });
  return difference;
}

} // namespace nvfp4::models
