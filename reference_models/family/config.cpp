// SPDX-License-Identifier: Apache-2.0
// Configurations from presets, from JSON and from the command line, and what they must be.
#include "nvfp4/reference_models/family/config.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/emulator/nearest.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"

#include <algorithm>
#include <sstream>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;

/// The number of parameters, exact up to 2^53, from two small lists: the sizes may be absurd.
double estimated_parameters(ModelConfig c) {
  const auto of = [&c](int64_t layers) {
    c.layers = layers;
    double sum = 0;
    for (const ParameterSpec &p : parameter_list(c)) {
      double n = 1;
      for (const int64_t each : p.shape) n *= double(each);
      sum += n;
    }
    return sum;
  };
  const auto layers = double(c.layers);
  const double one = of(1), two = of(2);
  return one + (layers - 1) * (two - one);
}

/// For messages: what a field takes, and what it must be to the others.
std::string objection(const ModelConfig &c) {
  std::string wrong;
  each_field(kModelFields, [&](const auto &f) {
    using T = std::remove_cvref_t<decltype(c.*f.member)>;
    if constexpr (!std::is_same_v<T, bool>)
      if (wrong.empty() && !f.bounds.has(double(c.*f.member)))
        wrong =
            std::string(f.name) + " to be " + type_text<T>(f.bounds) + ", got " + Json(c.*f.member).dump();
  });
  if (!wrong.empty()) return wrong;
  if (const double count = estimated_parameters(c); count > kMostParameters)
    return "at most 2^40 parameters, got " + Json(count).dump();
  for (const auto &[name, width] : {std::pair("key_dim", c.key_dim), std::pair("value_dim", c.value_dim)})
    if (width % c.heads != 0)
      return std::string(name) + " = " + std::to_string(width) +
             " to be a multiple of heads = " + std::to_string(c.heads);
  return c.family->expected != nullptr ? c.family->expected(c) : std::string();
}

} // namespace

ModelConfig preset(const ModelFamily &family, std::string_view size) {
  std::string known;
  for (const Preset &p : family.presets) {
    known += (known.empty() ? "" : ", ") + std::string(p.size);
    if (p.size != size) continue;
    ModelConfig c;
    c.family = &family;
    c.name = size;
    c.vocabulary = p.vocabulary;
    c.hidden = p.hidden;
    c.layers = p.layers;
    c.heads = p.heads;
    c.kv_heads = p.kv_heads;
    c.key_dim = p.key_dim;
    c.value_dim = p.value_dim;
    c.intermediate = p.intermediate;
    c.tie = p.tie;
    c.gate_normalizer = p.gate_normalizer;
    c.norm_epsilon = p.norm_epsilon;
    c.slots = p.slots;
    c.state = p.state;
    c.qk_norm = family.qk_norm;
    c.qkv_bias = family.qkv_bias;
    return c;
  }
  throw Error("size " + io::in_quotes(size) + " of " + std::string(family.name) + " is unknown" +
              suggestion_among(size, family.presets, [](const Preset &p) { return p.size; }) + "; expected " + known + ", or a JSON file as --model");
}

ModelConfig find_model(const std::string &model, const std::string &size, const std::string &changes) {
  ModelConfig config;
  if (model.size() > 5 && model.ends_with(".json")) {
    const std::vector<std::byte> bytes = io::read_file(model);
    const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
    const Json json = io::parse_json(text, io::printable(model) + ": ");
    const bool run = json.is_object() && json.contains("model") && json.contains("options");
    config = run ? config_from_json(json["model"].dump(), model + ": model") : config_from_json(text, model);
  } else {
    config = preset(find_family(model), size);
  }
  if (changes.empty()) return config;
  std::stringstream list(changes);
  for (std::string item; std::getline(list, item, ',');) {
    const size_t equal = item.find('=');
    const auto value = equal == std::string::npos ? std::nullopt : io::find_json(item.substr(equal + 1));
    if (!value || !set_field(kModelFields, config, item.substr(0, equal), *value, "--set: "))
      throw Error("--set " + io::in_quotes(item) + ": expected FIELD=VALUE with one of " +
                  field_names(kModelFields, kEveryField));
  }
  config.name += "," + changes;
  check(config);
  return config;
}

void check(const ModelConfig &config) {
  const std::string wrong = objection(config);
  if (!wrong.empty()) throw Error("model '" + config.name + "': expected " + wrong);
}

std::string to_json(const ModelConfig &config) {
  Json json = {{"family", config.family->name}, {"name", config.name}};
  json.update(fields_to_json(kModelFields, config));
  return json.dump();
}

ModelConfig config_from_json(std::string_view text, std::string_view source) {
  const std::string where = io::printable(source) + ": ";
  const Json json = io::parse_json(text, where);
  if (!json.is_object()) throw Error(where + "expected a JSON object with a model's sizes");
  const auto family = json.find("family");
  if (family == json.end() || !family->is_string())
    throw Error(where + "expected \"family\": one of " + family_names());
  ModelConfig config = preset(find_family(family->get<std::string>()), "tiny");
  config.name = "custom";
  for (const auto &[key, value] : json.items()) {
    if (key == "family") continue;
    if (key == "name") {
      if (!take_value(config.name, value)) throw Error(where + "'name' takes a text, got " + shown(value));
    } else if (!set_field(kModelFields, config, key, value, where)) {
      throw Error(where + "unknown key " + io::in_quotes(key) + "; expected family, name, " +
                  field_names(kModelFields, kEveryField));
    }
  }
  check(config);
  return config;
}

} // namespace nvfp4::models
