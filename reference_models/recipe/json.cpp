// SPDX-License-Identifier: Apache-2.0
// Recipes from JSON and back. Reading is strict: an unknown key or value is an error that says where it
// stands.
#include "nvfp4/reference_models/recipe/fields.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;

std::string default_convention(OperandFormat f) {
  switch (f) {
  case OperandFormat::nvfp4:
  case OperandFormat::simulated: return "te";
  case OperandFormat::mxfp4: return "mxfp4";
  case OperandFormat::mxfp8: return "mxfp8-e4m3";
  case OperandFormat::block_scaled: return "nvint4";
  case OperandFormat::f32:
  case OperandFormat::bf16:
  case OperandFormat::fp8: break;
  }
  return {};
}

/// A text stands for an object with that format.
OperandRecipe read_operand(const Json &json, const std::string &path) {
  const Json object = json.is_string() ? Json{{"format", json}} : json;
  OperandRecipe o;
  const std::tuple format_only{std::get<0>(kOperandFields)};
  if (object.is_object() && object.contains("format"))
    (void)set_field(format_only, o, "format", object["format"], path + ": ");
  o.convention = default_convention(o.format);
  if (o.convention.empty())
    read_fields(format_only, o, object, path + ": ", {"format"});
  else
    read_fields(kOperandFields, o, object, path + ": ");
  return o;
}

GemmRecipe read_gemm(const Json &json, const std::string &path, FormatId output) {
  GemmRecipe g{.output = output};
  read_fields(kGemmFields, g, json, path + ": ", {"a", "b"}, {"a", "b"});
  g.a = read_operand(json["a"], path + ".a");
  g.b = read_operand(json["b"], path + ".b");
  return g;
}

HcpRecipe read_hcp(const Json &json, const std::string &path) {
  HcpRecipe h{.enabled = true};
  read_fields(kHcpFields, h, json, path + ": ");
  if (json.contains("k") && json.contains("fraction"))
    throw Error(path + ": give 'k' or 'fraction', not both");
  return h;
}

LinearRecipe read_linear(const Json &json, const std::string &path) {
  LinearRecipe l;
  read_fields(kLinearFields, l, json, path + ": ", {"fprop", "dgrad", "wgrad"},
              {"fprop", "dgrad", "wgrad", "hcp"});
  l.fprop = read_gemm(json["fprop"], path + ".fprop", FormatId::bf16);
  l.dgrad = read_gemm(json["dgrad"], path + ".dgrad", FormatId::bf16);
  l.wgrad = read_gemm(json["wgrad"], path + ".wgrad", FormatId::f32);
  if (json.contains("hcp")) l.hcp = read_hcp(json["hcp"], path + ".hcp");
  return l;
}

RecipeRule read_rule(const Json &json, const std::string &path) {
  RecipeRule rule;
  read_fields(kRuleFields, rule, json, path + ": ", {"use"});
  for (const auto &[key, of, amount] :
       {std::tuple("first", "blocks", rule.first), {"last", "blocks", rule.last}, {"from", "steps", rule.from}})
    if (amount > 1 && amount != double(int64_t(amount)))
      throw Error(path + ": '" + key + "' takes a number of " + of + ", or a fraction below 1, got " + shown(amount));
  return rule;
}

Json write_operand(const OperandRecipe &o) {
  return o.convention.empty() ? Json{{"format", to_string(o.format)}} : fields_to_json(kOperandFields, o, kOptional);
}

Json write_gemm(const GemmRecipe &g) {
  Json j = {{"a", write_operand(g.a)}, {"b", write_operand(g.b)}};
  j.update(fields_to_json(kGemmFields, g, kOptional));
  return j;
}

Json write_hcp(const HcpRecipe &h) {
  Json j = fields_to_json(kHcpFields, h, kOptional);
  if (h.k >= 0) j.erase("fraction");
  return j;
}

} // namespace

Recipe parse_recipe(std::string_view text, const std::string &where) {
  const Json json = io::parse_json(text, where + ": ");
  Recipe recipe{.units = {{"bf16", "sm_90:wgmma.k16.f32.bf16"},
                          {"nvfp4", "sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16"},
                          {"mxfp4", "sm_100:tcgen05.k64.f32.mxf4.ue8m0.block32"},
                          {"mxfp8", "sm_100:tcgen05.k32.f32.mxf8f6f4.{a}.{b}.ue8m0.block32"}}};
  read_fields(kRecipeFields, recipe, json, where + ": ", {"name", "linears", "default"},
              {"units", "linears", "rules", "mixer_rules", "kv_cache", "gate_inputs", "optimizer"});
  if (const auto optimizer = json.find("optimizer"); optimizer != json.end())
    read_fields(kOptimizerFields, recipe.optimizer, *optimizer, where + ".optimizer: ");
  for (const auto &[key, into] : {std::pair<std::string, OperandRecipe *>("kv_cache", &recipe.kv_cache),
                                  {"gate_inputs", &recipe.gate_inputs}})
    if (const auto operand = json.find(key); operand != json.end())
      *into = read_operand(*operand, where + "." + key);
  if (const auto units = json.find("units"); units != json.end()) {
    if (!units->is_object()) throw Error(where + ".units: expected an object, got " + shown(*units));
    for (const auto &[format, unit] : units->items()) {
      const auto at = recipe.units.find(format);
      if (at == recipe.units.end())
        throw Error(where + ".units: unknown key " + io::in_quotes(format) +
                    "; expected bf16, mxfp4, mxfp8, nvfp4");
      if (!take_value(at->second, unit))
        throw Error(where + ".units: '" + format + "' takes a text, got " + shown(unit));
    }
  }
  const Json &linears = json["linears"];
  if (!linears.is_object() || linears.empty())
    throw Error(where + ".linears: expected an object with at least one linear recipe, got " +
                shown(linears));
  for (const auto &[name, linear] : linears.items())
    recipe.linears[name] = read_linear(linear, where + ".linears." + io::printable(name, 60));
  for (const auto &[key, into] : {std::pair<std::string, std::vector<RecipeRule> *>("rules", &recipe.rules),
                                  {"mixer_rules", &recipe.mixer_rules}}) {
    const auto rules = json.find(key);
    if (rules == json.end()) continue;
    const std::string path = where + "." + key;
    if (!rules->is_array()) throw Error(path + ": expected a list, got " + shown(*rules));
    for (size_t i = 0; i < rules->size(); ++i)
      into->push_back(read_rule((*rules)[i], path + "[" + std::to_string(i) + "]"));
  }
  check_recipe(recipe, where);
  return recipe;
}

namespace {

/// A field that may stand behind a recipe's name.
struct Suffix {
  std::string_view key;
  std::string (*expected)();                       ///< what may follow
  bool (*set)(Recipe &, const std::string &value); ///< false: that may not
};

bool set_operand(OperandRecipe &operand, const std::string &value) {
  const auto format = find_enum<OperandFormat>(value);
  if (format) operand = {.format = *format, .convention = default_convention(*format)};
  return format.has_value();
}

constexpr Suffix kSuffixes[] = {
    {"+mixers=", [] { return std::string("+mixers=bf16 or +mixers=f32"); },
     [](Recipe &r, const std::string &value) {
       if (value == "bf16") r.mixers = FormatId::bf16;
       if (value == "f32") r.mixers = FormatId::f32;
       return value == "bf16" || value == "f32";
     }},
    {"+mixer_rules=", [] { return std::string("+mixer_rules= and the name of one of its linears"); },
     [](Recipe &r, const std::string &value) {
       r.mixer_rules.push_back({.use = value});
       return r.linears.contains(value);
     }},
    {"+kv_cache=", [] { return "+kv_cache= and one of " + name_list<OperandFormat>(); },
     [](Recipe &r, const std::string &value) { return set_operand(r.kv_cache, value); }},
    {"+gate_inputs=", [] { return "+gate_inputs= and one of " + name_list<OperandFormat>(); },
     [](Recipe &r, const std::string &value) { return set_operand(r.gate_inputs, value); }}};

} // namespace

Recipe load_recipe(const std::string &name_or_path) {
  if (name_or_path.starts_with('{')) return parse_recipe(name_or_path, "recipe");
  size_t at = std::string::npos;
  const Suffix *last = nullptr;
  for (const Suffix &suffix : kSuffixes)
    if (const size_t found = name_or_path.rfind(suffix.key);
        found != std::string::npos && (last == nullptr || found > at)) {
      at = found;
      last = &suffix;
    }
  // at the end only: a folder may have such a name
  if (last != nullptr && name_or_path.find('/', at) == std::string::npos) {
    Recipe recipe = load_recipe(name_or_path.substr(0, at));
    if (!last->set(recipe, name_or_path.substr(at + last->key.size())))
      throw Error("recipe " + io::in_quotes(name_or_path) + ": expected " + last->expected());
    recipe.name += name_or_path.substr(at);
    check_recipe(recipe, "recipe " + io::printable(name_or_path));
    return recipe;
  }
  const bool path = name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".json");
  for (const RecipeVariation &v : recipe_variations()) {
    if (path || v.name != name_or_path) continue;
    Json json = Json::parse(to_json(load_recipe(std::string(v.base))));
    json.merge_patch(Json::parse(v.change));
    json["name"] = v.name;
    json["description"] = v.description;
    return parse_recipe(json.dump(), "recipe " + name_or_path);
  }
  if (!path) return parse_recipe(builtin_recipe_json(name_or_path), "recipe " + name_or_path);
  const std::vector<std::byte> bytes = io::read_file(name_or_path);
  const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  const std::string where = io::printable(name_or_path);
  const Json json = io::parse_json(text, where + ": ");
  if (json.is_object() && json.contains("recipe") && json.contains("options"))
    return parse_recipe(json["recipe"].dump(), where + ": recipe");
  return parse_recipe(text, where);
}

std::string to_json(const Recipe &recipe) {
  Json linears = Json::object(), rules = Json::array(), mixer_rules = Json::array();
  for (const auto &[name, l] : recipe.linears) {
    Json &j = linears[name];
    j = {{"fprop", write_gemm(l.fprop)}, {"dgrad", write_gemm(l.dgrad)}, {"wgrad", write_gemm(l.wgrad)}};
    j.update(fields_to_json(kLinearFields, l, kOptional));
    if (l.hcp != HcpRecipe{}) j["hcp"] = write_hcp(l.hcp);
  }
  for (const RecipeRule &rule : recipe.rules) rules.push_back(fields_to_json(kRuleFields, rule, kOptional));
  for (const RecipeRule &rule : recipe.mixer_rules)
    mixer_rules.push_back(fields_to_json(kRuleFields, rule, kOptional));
  Json json = fields_to_json(kRecipeFields, recipe, kOptional);
  json.erase("default"); // behind the linears, as in every file so far
  json["units"] = recipe.units;
  json["linears"] = linears;
  json["default"] = recipe.default_linear;
  json["rules"] = rules;
  if (!mixer_rules.empty()) json["mixer_rules"] = mixer_rules; // younger than many a recipe on disk
  if (recipe.kv_cache.format != OperandFormat::f32) json["kv_cache"] = write_operand(recipe.kv_cache);
  if (recipe.gate_inputs.format != OperandFormat::f32)
    json["gate_inputs"] = write_operand(recipe.gate_inputs);
  if (recipe.optimizer != OptimizerRecipe{}) json["optimizer"] = fields_to_json(kOptimizerFields, recipe.optimizer, kOptional);
  return json.dump(2) + "\n";
}

} // namespace nvfp4::models
