// SPDX-License-Identifier: Apache-2.0
// Reading a grid, and which of its runs are whose.
#include "nvfp4/reference_models/report/experiment.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/reference_models/train/options.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

/// The list under `key`, which must be there, not empty and without repetitions.
const Json &list_of(const Json &json, const char *key, const char *example, const std::string &where) {
  const auto at = json.find(key);
  if (at == json.end() || !at->is_array() || at->empty())
    throw Error(where + "expected a list under '" + key + "', such as " + example);
  std::set<std::string> seen;
  for (const Json &item : *at)
    if (!seen.insert(item.dump()).second)
      throw Error(where + "'" + key + "' has " + io::printable(item.dump(), 60) + " twice");
  return *at;
}

ExperimentModel model_of(const Json &json, const std::string &where) {
  ExperimentModel m;
  if (!json.is_object())
    throw Error(where +
                "an element of 'models' is an object such as {\"model\": \"gla\", \"size\": \"tiny\"}, got " +
                io::printable(json.dump(), 60));
  TrainOptions o;
  for (const auto &[key, value] : json.items()) {
    if (key != "model" && key != "size")
      throw Error(where + "unknown key " + io::in_quotes(key) +
                  " in 'models': only model and size stand there");
    set_option(o, key, value, where);
  }
  if (!json.contains("model")) throw Error(where + "an element of 'models' lacks 'model'");
  return {o.model, o.size};
}

/// A name that may stand in that of a folder.
bool is_plain(const std::string &name) {
  return !name.empty() &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+=") ==
             std::string::npos &&
         name[0] != '.';
}

/// "recipes/mine.json" -> "mine".
std::string stem(const std::string &name) {
  return name.find_first_of("/.") == std::string::npos || !name.ends_with(".json")
             ? name
             : fs::path(name).stem().string();
}

/// {"name": "chon-no-sr", "base": "chon", "change": {...}} as the recipe's own JSON.
std::string changed_recipe(const Json &json, const std::string &where) {
  std::string name, base;
  for (const auto &[key, value] : json.items()) {
    const bool text = key == "name" || key == "base";
    if (!text && key != "change" && key != "bf16_first" && key != "bf16_last")
      throw Error(where + "unknown key " + io::in_quotes(key) +
                  "; a recipe is a name or has name, base, change, bf16_first, bf16_last");
    if (text && !value.is_string()) throw Error(where + "'" + key + "' takes a text, got " + shown(value));
    if (key == "change" && !value.is_object())
      throw Error(where + "'change' takes an object of a recipe's fields, got " + shown(value));
  }
  if (!json.contains("name") || !json.contains("base"))
    throw Error(where + "expected 'name' and 'base', such as {\"name\": \"mine\", \"base\": \"chon\"}, got " +
                shown(json));
  name = json["name"].get<std::string>();
  base = json["base"].get<std::string>();
  if (!is_plain(name))
    throw Error(where + "'name' takes letters, digits and - _ . + =, got " + io::in_quotes(name));
  if (std::ranges::find(builtin_recipes(), name) != builtin_recipes().end() ||
      std::ranges::find(recipe_variations(), name, &RecipeVariation::name) != recipe_variations().end())
    throw Error(where + io::in_quotes(name) + " is the name of a built-in recipe: give this one another");
  Json recipe = Json::parse(to_json(load_recipe(base)));
  if (json.contains("change")) {
    if (json["change"].contains("name")) throw Error(where + "'name' stands beside 'change', not in it");
    recipe.merge_patch(json["change"]);
  }
  recipe["name"] = name;
  Recipe made = parse_recipe(recipe.dump(), where + io::printable(name, 60));
  TrainOptions o;
  for (const char *key : {"bf16_first", "bf16_last"})
    if (json.contains(key)) set_option(o, key, json[key], where);
  if (o.bf16_first >= 0 || o.bf16_last >= 0) keep_in_bf16(made, o.bf16_first, o.bf16_last);
  return Json::parse(to_json(made)).dump();
}

int64_t whole(const std::string &text, int64_t low, const std::string &what) {
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || code != std::errc() || end != text.data() + text.size() || value < low)
    throw Error(what + ": expected a whole number of at least " + std::to_string(low) + ", got " +
                io::in_quotes(text));
  return value;
}

} // namespace

Experiment parse_experiment(std::string_view text, const std::string &source) {
  const std::string where = io::printable(source) + ": ";
  const Json json = io::parse_json(text, where);
  if (!json.is_object())
    throw Error(where + "expected an object with models, recipes, seeds, out and training options");
  const std::set<std::string> lists = {"models", "recipes", "seeds", "out", "reference"};
  std::set<std::string> decided;
  each_field(kTrainFields, [&](const auto &f) {
    if ((f.marks & kGrid) != 0) decided.insert(f.name);
  });
  Experiment e;
  for (const auto &[key, value] : json.items()) {
    if (lists.contains(key)) continue;
    if (decided.contains(key))
      throw Error(where + "'" + key + "' is decided by the grid: 'models', 'recipes' and 'seeds' are lists");
    if (!set_option(e.base, key, value, where))
      throw Error(where + "unknown key " + io::in_quotes(key) +
                  "; there are models, recipes, seeds, out, reference, " +
                  field_names(kTrainFields, [](const auto &f) { return (f.marks & kGrid) == 0; }));
  }
  const auto out = json.find("out");
  if (out == json.end() || !out->is_string() || out->get<std::string>().empty())
    throw Error(where + "expected the folder of the results under 'out'");
  e.out = out->get<std::string>();
  for (const Json &m : list_of(json, "models", "[{\"model\": \"gla\", \"size\": \"tiny\"}]", where))
    e.models.push_back(model_of(m, where));
  for (const Json &r : list_of(json, "recipes", "[\"bf16\", \"nvfp4\", \"chon\"]", where)) {
    TrainOptions o;
    if (r.is_object())
      o.recipe = changed_recipe(r, where + "in 'recipes': ");
    else
      set_option(o, "recipe", r, where + "in 'recipes': ");
    e.recipes.push_back(o.recipe);
  }
  const auto is = [&](const std::string &label) {
    return std::ranges::find(e.recipes, label, recipe_label) != e.recipes.end();
  };
  if (const auto at = json.find("reference"); at != json.end()) {
    if (!at->is_string() || !is(at->get<std::string>()))
      throw Error(where + "'reference' takes the name of one of the recipes, got " + shown(*at));
    e.reference = at->get<std::string>();
  } else {
    for (const char *name : {"bf16+mixers=bf16", "bf16"})
      if (is(name)) e.reference = name;
  }
  for (const Json &s : list_of(json, "seeds", "[1, 2, 3]", where)) {
    TrainOptions o;
    set_option(o, "seed", s, where + "in 'seeds': ");
    e.seeds.push_back(o.seed);
  }
  std::set<std::string> folders;
  for (const ExperimentModel &m : e.models)
    for (const std::string &r : e.recipes)
      if (!folders.insert(run_folder(e, m, r, e.seeds[0])).second)
        throw Error(where + "two runs would share the folder " +
                    io::in_quotes(run_folder(e, m, r, e.seeds[0])) + ": give files different names");
  return e;
}

std::string run_folder(const Experiment &e, const ExperimentModel &m, const std::string &recipe,
                       uint64_t seed) {
  return e.out + "/" + stem(m.model) + "-" + m.size + "-" + recipe_label(recipe) + "-" + std::to_string(seed);
}

std::string recipe_label(const std::string &recipe) {
  if (!recipe.starts_with('{')) return stem(recipe);
  return Json::parse(recipe).at("name").get<std::string>();
}

Shard parse_shard(const std::string &text, const std::function<const char *(const char *)> &variable) {
  const std::string where = "--shard " + io::printable(text, 60);
  if (text != "env") {
    const size_t slash = text.find('/');
    if (slash == std::string::npos) throw Error(where + ": expected I/N, such as 2/4, or env");
    const int64_t index = whole(text.substr(0, slash), 1, where),
                  count = whole(text.substr(slash + 1), 1, where);
    if (index > count) throw Error(where + ": expected a part from 1 to " + std::to_string(count));
    return {index - 1, count};
  }
  const auto number = [&](const char *name, int64_t low, std::optional<int64_t> otherwise = {}) {
    const char *const value = variable(name);
    if (value == nullptr && otherwise) return *otherwise;
    if (value == nullptr) throw Error(where + ": expected " + name + " in the environment");
    return whole(value, low, name);
  };
  Shard shard;
  const bool slurm = variable("SLURM_ARRAY_TASK_ID") != nullptr;
  if (slurm) {
    const int64_t first = number("SLURM_ARRAY_TASK_MIN", 0, 0), step = number("SLURM_ARRAY_TASK_STEP", 1, 1);
    shard = {(number("SLURM_ARRAY_TASK_ID", first) - first) / step, number("SLURM_ARRAY_TASK_COUNT", 1)};
  } else if (variable("RANK") != nullptr) {
    shard = {number("RANK", 0), number("WORLD_SIZE", 1)};
  } else {
    throw Error(where +
                ": expected SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT, or RANK and WORLD_SIZE, in "
                "the environment; or give I/N");
  }
  if (shard.index >= shard.count)
    throw Error(where + ": this is part " + std::to_string(shard.index + 1) + " of " +
                std::to_string(shard.count) + ", as " +
                (slurm ? "SLURM_ARRAY_TASK_*" : "RANK and WORLD_SIZE") + " say");
  return shard;
}

} // namespace nvfp4::models
