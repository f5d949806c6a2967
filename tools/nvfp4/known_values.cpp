// SPDX-License-Identifier: Apache-2.0
// Walks CLI11's description of verbs and options.
#include "tools/nvfp4/known_values.hpp"

#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/nearest.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/tensorcore/products.hpp"
#include "nvfp4/reference_models/family/family.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>

namespace nvfp4::tool {
namespace {

using Names = std::vector<std::string>;

template <class Rows, class NameOf> Names names_in(const Rows &rows, NameOf name_of) {
  Names names;
  for (const auto &row : rows) names.emplace_back(name_of(row));
  return names;
}

Names unit_names() {
  Names names;
  for (const Product &p : products()) {
    names.emplace_back(p.name);
    for (const UnitKind &kind : unit_kinds())
      if (unit_of_kind(p.arch, kind) != nullptr)
        names.push_back(std::string(p.name) + ":" + std::string(kind.name));
  }
  for (const Unit &u : catalogue()) names.push_back(u.name());
  return names;
}

/// Options whose values are names of the library's tables, wherever they occur.
struct Table {
  const char *option;
  Names (*names)();
};
const Table kTables[] = {
    {"unit", unit_names},
    {"convention", [] { return names_in(conventions(), [](const Convention &c) { return c.name; }); }},
    {"cvt", [] { return names_in(conversions(), [](const Conversion &c) { return c.name; }); }},
    {"recipe",
     [] {
       Names all = names_in(models::builtin_recipes(), [](std::string_view n) { return n; });
       for (const models::RecipeVariation &v : models::recipe_variations()) all.emplace_back(v.name);
       return all;
     }},
    {"model",
     [] { return names_in(models::families(), [](const models::ModelFamily *f) { return f->name; }); }},
    {"accumulation",
     [] { return names_in(names_of(Accumulation{}).names, [](std::string_view n) { return n; }); }},
    {"device",
     [] {
       return Names{"cpu", "cuda"};
     }},
};

bool takes_value(const CLI::Option &o) { return o.get_items_expected_max() > 0; }

const CLI::App *find_verb(const CLI::App &app, const std::string &name) {
  for (const CLI::App *verb : app.get_subcommands([](const CLI::App *) { return true; }))
    if (verb->get_name() == name) return verb;
  return nullptr;
}

Names verb_names(const CLI::App &app) {
  return names_in(app.get_subcommands([](const CLI::App *) { return true; }),
                  [](const CLI::App *v) { return v->get_name(); });
}

Names option_names(const CLI::App &app) {
  Names names;
  for (const CLI::Option *o : app.get_options())
    for (const std::string &name : o->get_lnames()) names.push_back("--" + name);
  return names;
}

/// The option of a word such as "--unit" or "-o"; null if there is none.
const CLI::Option *find_option(const CLI::App &app, const std::string &word) {
  return word.starts_with("-") ? app.get_option_no_throw(word) : nullptr;
}

/// The verb that was called and not finished: the one whose options were read last.
const CLI::App *called(const CLI::App *app) {
  while (!app->get_subcommands().empty()) app = app->get_subcommands().back();
  return app;
}

std::string path_of(const CLI::App &verb) {
  const CLI::App *parent = verb.get_parent();
  if (parent == nullptr) return "";
  const std::string before = path_of(*parent);
  return (before.empty() ? "" : before + " ") + verb.get_name();
}

} // namespace

std::vector<std::string> known_values(const CLI::Option &option) {
  const std::string type = option.get_type_name();
  const size_t open = type.find('{'), close = type.rfind('}');
  if (open != std::string::npos && close != std::string::npos && open < close) {
    Names names;
    std::istringstream list(type.substr(open + 1, close - open - 1));
    for (std::string name; std::getline(list, name, ',');) names.push_back(name);
    return names;
  }
  for (const Table &t : kTables)
    if (option.check_lname(t.option) || (option.get_positional() && option.get_name(true) == t.option))
      return t.names();
  return {};
}

std::vector<std::string> completions(const CLI::App &app, const std::vector<std::string> &words) {
  const CLI::App *verb = &app;
  const CLI::Option *waiting = nullptr; // an option whose value comes next
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (waiting != nullptr) {
      waiting = nullptr;
      continue;
    }
    if (const CLI::App *next = find_verb(*verb, words[i])) {
      verb = next;
      continue;
    }
    const CLI::Option *option = find_option(*verb, words[i]);
    if (option != nullptr && takes_value(*option)) waiting = option;
  }
  const std::string word = words.empty() ? "" : words.back();
  Names candidates;
  if (waiting != nullptr) {
    candidates = known_values(*waiting);
  } else if (word.starts_with("-")) {
    candidates = option_names(*verb);
  } else {
    candidates = verb_names(*verb);
    for (const CLI::Option *o : verb->get_options())
      if (candidates.empty() && o->get_positional()) candidates = known_values(*o);
  }
  std::erase_if(candidates, [&](const std::string &c) { return !c.starts_with(word); });
  return candidates;
}

std::string explain(const CLI::App &app, const CLI::ParseError &error) {
  const CLI::App *verb = called(&app);
  const std::string path = path_of(*verb), where = path.empty() ? "" : path + ": ";
  // the nearest names, or else where all of them are
  const auto end = [&](const std::string &nearest) {
    return nearest.empty() ? " (see nvfp4" + (path.empty() ? "" : " " + path) + " --help)" : nearest;
  };
  const Names extra = verb->remaining();
  for (const std::string &word : extra)
    if (word.size() > 1 && word.front() == '-' &&
        find_option(*verb, word.substr(0, word.find('='))) == nullptr)
      return where + "there is no option '" + word + "'" +
             end(suggestion(word.substr(0, word.find('=')), option_names(*verb)));
  const Names verbs = verb_names(*verb);
  if (!verbs.empty() && !extra.empty())
    return where + "there is no verb '" + extra.front() + "'" + end(suggestion(extra.front(), verbs));
  // "--axis: rwo not in {row,col}"
  const std::string message = error.what();
  const size_t list = message.find(" not in {"), colon = message.find(": ");
  if (list != std::string::npos && colon < list) {
    Names names;
    std::istringstream in(message.substr(list + 9, message.rfind('}') - list - 9));
    for (std::string name; std::getline(in, name, ',');) names.push_back(name);
    return where + message + end(suggestion(message.substr(colon + 2, list - colon - 2), names));
  }
  return where + message + end("");
}

} // namespace nvfp4::tool
