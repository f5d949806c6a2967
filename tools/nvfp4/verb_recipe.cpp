// SPDX-License-Identifier: Apache-2.0
// nvfp4 recipe list | show | check: the built-in training recipes, and whether a file is one.
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/family/family.hpp"
#include "nvfp4/reference_models/images/recipes.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

using Json = nlohmann::ordered_json;
using models::Recipe;

struct Options {
  std::string name;
  bool full = false, json = false;
};

int list(const Options &o) {
  Json all = Json::array();
  for (const std::string_view name : models::builtin_recipes()) {
    const Recipe r = models::load_recipe(std::string(name));
    if (o.json)
      all.push_back({{"recipe", name}, {"description", r.description}});
    else
      fmt::print("{:<20} {}\n", name, r.description);
  }
  for (const models::RecipeVariation &v : models::recipe_variations()) {
    if (o.json)
      all.push_back({{"recipe", v.name}, {"description", v.description}});
    else
      fmt::print("{:<20} {}\n", v.name, v.description);
  }
  if (o.json) fmt::print("{}\n", all.dump());
  return kEqual;
}

int show(const Options &o) {
  const auto of_images = models::image_recipes();
  const bool images = std::find(of_images.begin(), of_images.end(), o.name) != of_images.end();
  const Recipe r = images ? models::load_image_recipe(o.name) : models::load_recipe(o.name);
  // a built-in one as it was written, which is short; whatever else with every field
  for (const std::string_view name : models::builtin_recipes())
    if (!o.full && name == o.name) {
      fmt::print("{}\n", models::builtin_recipe_json(name));
      return kEqual;
    }
  fmt::print("{}", models::to_json(r));
  return kEqual;
}

/// What each linear of the recipe does in the three products, on one line.
std::string summary(const models::LinearRecipe &l) {
  const auto product = [](const char *name, const models::GemmRecipe &g) {
    return fmt::format("{} {} x {}", name, to_string(g.a.format), to_string(g.b.format));
  };
  return product("fprop", l.fprop) + ", " + product("dgrad", l.dgrad) + ", " + product("wgrad", l.wgrad) +
         (l.hcp.enabled ? ", Hot-Channel Patch" : "");
}

int check(const Options &o) {
  // a name without / or .json would be a built-in recipe
  const bool path = o.name.find('/') != std::string::npos || o.name.ends_with(".json");
  const Recipe r = models::load_recipe(path ? o.name : "./" + o.name);
  if (o.json) {
    Json linears = Json::array();
    for (const auto &[name, linear] : r.linears) linears.push_back(name);
    fmt::print(
        "{}\n",
        Json{{"file", o.name}, {"recipe", r.name}, {"linears", linears}, {"rules", r.rules.size()}, {"mixer_rules", r.mixer_rules.size()}}.dump(
            -1, ' ', false, Json::error_handler_t::replace));
    return kEqual;
  }
  fmt::print("{}: a recipe, '{}', with {} rules{}\n", io::printable(o.name), io::printable(r.name),
             r.rules.size(),
             r.mixer_rules.empty() ? "" : fmt::format(" and {} for mixers", r.mixer_rules.size()));
  for (const auto &[name, linear] : r.linears)
    fmt::print("  {}{}: {}\n", io::printable(name), name == r.default_linear ? " (default)" : "",
               summary(linear));
  return kEqual;
}

} // namespace

void register_recipe(Command &app, int &exit_code) {
  Command *verb =
      app.add_subcommand("recipe", "Training recipes: list them, show one as JSON, check a file");
  verb->require_subcommand(1);
  auto o = std::make_shared<Options>();
  Command *l = verb->add_subcommand("list", "The built-in recipes");
  l->add_flag("--json", o->json, "One line of JSON");
  l->callback([o, &exit_code] { exit_code = list(*o); });
  Command *s = verb->add_subcommand("show", "The JSON of a recipe, to start one of your own from");
  s->add_option("recipe", o->name, "A built-in recipe or a file")->required();
  s->add_flag("--full", o->full, "With every field, defaults too");
  s->footer(
      "Example: nvfp4 recipe show nvfp4 > mine.json\n"
      "         nvfp4 train --model gla --size tiny --recipe mine.json --data task:copy --out runs/mine");
  s->callback([o, &exit_code] { exit_code = show(*o); });
  Command *c = verb->add_subcommand("check", "Is a file a recipe? Exit code 2 with what is wrong if not");
  c->add_option("file", o->name, "A JSON file")->required();
  c->add_flag("--json", o->json, "One line of JSON");
  c->footer("reference_models/recipe/README.md lists the fields.\nExample: nvfp4 recipe check mine.json");
  c->callback([o, &exit_code] { exit_code = check(*o); });
}

} // namespace nvfp4::tool
