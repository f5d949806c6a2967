// SPDX-License-Identifier: Apache-2.0
// Recipes from JSON and back. Reading is strict: an unknown key or value is an error that says where it
// stands.
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <array>
#include <nlohmann/json.hpp>
#include <set>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;

/// A value's name in JSON.
template <class E> using Names = std::span<const std::pair<std::string_view, E>>;
/// Those that stand beside the enumerators.
template <NamedEnum E> constexpr auto pairs() {
  constexpr auto all = enumerators<E>();
  std::array<std::pair<std::string_view, E>, all.size()> list;
  for (size_t i = 0; i < all.size(); ++i) list[i] = {to_string(all[i]), all[i]};
  return list;
}

constexpr std::pair<std::string_view, OperandFormat> kFormats[] = {{"f32", OperandFormat::f32},
                                                                   {"bf16", OperandFormat::bf16},
                                                                   {"nvfp4", OperandFormat::nvfp4},
                                                                   {"mxfp4", OperandFormat::mxfp4},
                                                                   {"mxfp8", OperandFormat::mxfp8}};
constexpr auto kRoundings = pairs<ElementRounding>();
constexpr std::pair<std::string_view, FormatId> kTypes[] = {{"bf16", FormatId::bf16}, {"f32", FormatId::f32}};
constexpr auto kAccumulations = pairs<Accumulation>();
constexpr std::pair<std::string_view, HcpRecipe::Kernel> kKernels[] = {{"single", HcpRecipe::Kernel::single},
                                                                       {"dual", HcpRecipe::Kernel::dual}};
constexpr std::pair<std::string_view, HcpRecipe::Side> kSides[] = {
    {"both", HcpRecipe::Side::both},
    {"activation", HcpRecipe::Side::activation},
    {"weight", HcpRecipe::Side::weight}};
constexpr std::pair<std::string_view, HcpRecipe::Residual> kResiduals[] = {
    {"nvfp4", HcpRecipe::Residual::nvfp4}, {"bf16", HcpRecipe::Residual::bf16}};
constexpr std::pair<std::string_view, HcpRecipe::Choice> kChoices[] = {
    {"score", HcpRecipe::Choice::score},
    {"magnitude", HcpRecipe::Choice::magnitude},
    {"blocks", HcpRecipe::Choice::blocks},
    {"random", HcpRecipe::Choice::random}};
constexpr std::pair<std::string_view, HcpRecipe::Reblock> kReblocks[] = {
    {"requantize", HcpRecipe::Reblock::requantize}, {"whole-blocks", HcpRecipe::Reblock::whole_blocks}};

template <class E> std::string name_of(Names<E> names, E value) {
  for (const auto &[name, v] : names)
    if (v == value) return std::string(name);
  return {};
}

std::string describe(const Json &j) {
  return io::printable(j.dump(-1, ' ', false, Json::error_handler_t::replace), 60);
}

/// One JSON object, its place in the file, and which of its keys were asked for.
class Reader {
public:
  Reader(const Json &json, std::string path) : json_(json), path_(std::move(path)) {
    if (!json.is_object()) throw Error(path_ + ": expected an object, got " + describe(json));
  }
  [[nodiscard]] const std::string &path() const { return path_; }
  [[nodiscard]] std::string at(std::string_view key) const { return path_ + "." + std::string(key); }

  const Json *find(const char *key) {
    known_.insert(key);
    const auto it = json_.find(key);
    return it == json_.end() ? nullptr : &*it;
  }
  const Json &need(const char *key) {
    const Json *value = find(key);
    if (value == nullptr) throw Error(path_ + ": expected the key '" + key + "'");
    return *value;
  }
  void text(const char *key, std::string &out) {
    const Json *v = find(key);
    if (v == nullptr) return;
    if (!v->is_string()) throw Error(at(key) + ": expected a text, got " + describe(*v));
    out = v->get<std::string>();
  }
  void flag(const char *key, bool &out) {
    const Json *v = find(key);
    if (v == nullptr) return;
    if (!v->is_boolean()) throw Error(at(key) + ": expected true or false, got " + describe(*v));
    out = v->get<bool>();
  }
  void count(const char *key, int64_t low, int64_t &out) {
    const Json *v = find(key);
    if (v == nullptr) return;
    const bool fits =
        v->is_number_unsigned() ? v->get<uint64_t>() <= (uint64_t{1} << 40) : v->is_number_integer();
    if (!fits || v->get<int64_t>() < low)
      throw Error(at(key) + ": expected a whole number, at least " + std::to_string(low) + ", got " +
                  describe(*v));
    out = v->get<int64_t>();
  }
  void number(const char *key, double low, double high, double &out) {
    const Json *v = find(key);
    if (v == nullptr) return;
    if (!v->is_number() || !(v->get<double>() >= low && v->get<double>() <= high))
      throw Error(at(key) + ": expected a number from " + describe(low) + " to " + describe(high) + ", got " +
                  describe(*v));
    out = v->get<double>();
  }
  template <class E> void choice(const char *key, Names<E> names, E &out) {
    const Json *v = find(key);
    if (v == nullptr) return;
    std::string expected;
    for (const auto &[name, value] : names) {
      if (v->is_string() && v->get_ref<const std::string &>() == name) {
        out = value;
        return;
      }
      expected.append(expected.empty() ? "" : ", ").append(name);
    }
    throw Error(at(key) + ": expected one of " + expected + ", got " + describe(*v));
  }
  void texts(const char *key, std::vector<std::string> &out) {
    const Json *v = find(key);
    if (v == nullptr) return;
    if (!v->is_array() || v->empty())
      throw Error(at(key) + ": expected a list of texts, got " + describe(*v));
    out.clear();
    for (const Json &item : *v) {
      if (!item.is_string())
        throw Error(at(key) + ": expected a list of texts, got " + describe(item) + " in it");
      out.push_back(item.get<std::string>());
    }
  }
  /// To be called last: refuses what nobody asked for.
  void finish() const {
    std::string expected;
    for (const std::string &k : known_) expected += (expected.empty() ? "" : ", ") + k;
    for (const auto &[key, value] : json_.items())
      if (!known_.contains(key))
        throw Error(path_ + ": unknown key " + io::in_quotes(key) + "; expected " + expected);
  }

private:
  const Json &json_;
  std::string path_;
  std::set<std::string> known_;
};

std::string default_convention(OperandFormat f) {
  switch (f) {
  case OperandFormat::nvfp4: return "te";
  case OperandFormat::mxfp4: return "mxfp4";
  case OperandFormat::mxfp8: return "mxfp8-e4m3";
  case OperandFormat::f32:
  case OperandFormat::bf16: break;
  }
  return {};
}

/// A text stands for an object with that format.
OperandRecipe read_operand(const Json &json, const std::string &path) {
  const Json object = json.is_string() ? Json{{"format", json}} : json;
  Reader r(object, path);
  OperandRecipe o;
  (void)r.need("format");
  r.choice("format", Names<OperandFormat>(kFormats), o.format);
  o.convention = default_convention(o.format);
  if (!o.convention.empty()) {
    r.text("convention", o.convention);
    int64_t rows = 1;
    r.count("block_rows", 1, rows);
    if (rows != 1 && rows != 16)
      throw Error(r.at("block_rows") + ": expected 1 or 16, got " + std::to_string(rows));
    o.block_rows = int(rows);
    r.choice("rounding", Names<ElementRounding>(kRoundings), o.rounding);
    r.flag("hadamard", o.hadamard);
  }
  r.finish();
  return o;
}

GemmRecipe read_gemm(const Json &json, const std::string &path, FormatId output) {
  Reader r(json, path);
  GemmRecipe g{
      .a = read_operand(r.need("a"), r.at("a")), .b = read_operand(r.need("b"), r.at("b")), .output = output};
  r.text("unit", g.unit);
  r.choice("output", Names<FormatId>(kTypes), g.output);
  r.finish();
  return g;
}

HcpRecipe read_hcp(const Json &json, const std::string &path) {
  Reader r(json, path);
  HcpRecipe h{.enabled = true};
  r.flag("enabled", h.enabled);
  r.count("k", 0, h.k);
  r.number("fraction", 0, 1, h.fraction);
  if (json.contains("k") && json.contains("fraction"))
    throw Error(path + ": give 'k' or 'fraction', not both");
  r.count("period", 1, h.period);
  r.count("start", 0, h.start);
  r.choice("kernel", Names<HcpRecipe::Kernel>(kKernels), h.kernel);
  r.choice("side", Names<HcpRecipe::Side>(kSides), h.side);
  r.choice("residual", Names<HcpRecipe::Residual>(kResiduals), h.residual);
  r.choice("choice", Names<HcpRecipe::Choice>(kChoices), h.choice);
  r.choice("reblock", Names<HcpRecipe::Reblock>(kReblocks), h.reblock);
  r.flag("dgrad", h.dgrad);
  r.finish();
  return h;
}

LinearRecipe read_linear(const Json &json, const std::string &path) {
  Reader r(json, path);
  LinearRecipe l;
  l.fprop = read_gemm(r.need("fprop"), r.at("fprop"), FormatId::bf16);
  l.dgrad = read_gemm(r.need("dgrad"), r.at("dgrad"), FormatId::bf16);
  l.wgrad = read_gemm(r.need("wgrad"), r.at("wgrad"), FormatId::f32);
  if (const Json *hcp = r.find("hcp")) l.hcp = read_hcp(*hcp, r.at("hcp"));
  r.finish();
  return l;
}

RecipeRule read_rule(const Json &json, const std::string &path) {
  Reader r(json, path);
  RecipeRule rule;
  r.texts("roles", rule.roles);
  r.texts("families", rule.families);
  for (const auto &[key, out] : {std::pair("first", &rule.first), std::pair("last", &rule.last)}) {
    r.number(key, 0, 1e6, *out);
    if (*out > 1 && *out != double(int64_t(*out)))
      throw Error(r.at(key) + ": expected a number of blocks, or a fraction below 1, got " + describe(*out));
  }
  (void)r.need("use");
  r.text("use", rule.use);
  r.finish();
  return rule;
}

Json write_operand(const OperandRecipe &o) {
  Json j = {{"format", to_string(o.format)}};
  if (o.convention.empty()) return j;
  j["convention"] = o.convention;
  j["block_rows"] = o.block_rows;
  j["rounding"] = name_of(Names<ElementRounding>(kRoundings), o.rounding);
  j["hadamard"] = o.hadamard;
  return j;
}

Json write_gemm(const GemmRecipe &g) {
  Json j = {{"a", write_operand(g.a)}, {"b", write_operand(g.b)}};
  if (!g.unit.empty()) j["unit"] = g.unit;
  j["output"] = name_of(Names<FormatId>(kTypes), g.output);
  return j;
}

Json write_hcp(const HcpRecipe &h) {
  Json j = {{"enabled", h.enabled}};
  if (h.k >= 0)
    j["k"] = h.k;
  else
    j["fraction"] = h.fraction;
  j["period"] = h.period;
  j["start"] = h.start;
  j["kernel"] = name_of(Names<HcpRecipe::Kernel>(kKernels), h.kernel);
  j["side"] = name_of(Names<HcpRecipe::Side>(kSides), h.side);
  j["residual"] = name_of(Names<HcpRecipe::Residual>(kResiduals), h.residual);
  j["choice"] = name_of(Names<HcpRecipe::Choice>(kChoices), h.choice);
  j["reblock"] = name_of(Names<HcpRecipe::Reblock>(kReblocks), h.reblock);
  j["dgrad"] = h.dgrad;
  return j;
}

/// nlohmann keeps the last of equal keys; here they are an error.
Json parse_without_repetitions(std::string_view text, const std::string &where) {
  std::vector<std::set<std::string>> open;
  std::string twice;
  const auto watch = [&](int, Json::parse_event_t event, Json &value) {
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key && !open.back().insert(value.get<std::string>()).second)
      twice = value.get<std::string>();
    return true;
  };
  try {
    Json json = Json::parse(text, watch);
    if (!twice.empty())
      throw Error(where + ": the key " + io::in_quotes(twice) + " stands twice in an object");
    return json;
  } catch (const Json::parse_error &e) {
    throw Error(where + ": expected JSON, it breaks off or goes wrong at byte " + std::to_string(e.byte));
  }
}

} // namespace

Recipe parse_recipe(std::string_view text, const std::string &where) {
  const Json json = parse_without_repetitions(text, where);
  Reader r(json, where);
  Recipe recipe{.units = {{"bf16", "sm_90:wgmma.k16.f32.bf16"},
                          {"nvfp4", "sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16"},
                          {"mxfp4", "sm_100:tcgen05.k64.f32.mxf4.ue8m0.block32"},
                          {"mxfp8", "sm_100:tcgen05.k32.f32.mxf8f6f4.{a}.{b}.ue8m0.block32"}}};
  (void)r.need("name");
  r.text("name", recipe.name);
  r.text("description", recipe.description);
  r.choice("source", Names<FormatId>(kTypes), recipe.source);
  r.choice("accumulation", Names<Accumulation>(kAccumulations), recipe.accumulation);
  r.choice("mixers", Names<FormatId>(kTypes), recipe.mixers);
  if (const Json *units = r.find("units")) {
    Reader u(*units, r.at("units"));
    for (auto &[format, unit] : recipe.units) u.text(format.c_str(), unit);
    u.finish();
  }
  const Json &linears = r.need("linears");
  if (!linears.is_object() || linears.empty())
    throw Error(r.at("linears") + ": expected an object with at least one linear recipe, got " +
                describe(linears));
  for (const auto &[name, linear] : linears.items())
    recipe.linears[name] = read_linear(linear, r.at("linears") + "." + io::printable(name, 60));
  (void)r.need("default");
  r.text("default", recipe.default_linear);
  if (const Json *rules = r.find("rules")) {
    if (!rules->is_array()) throw Error(r.at("rules") + ": expected a list, got " + describe(*rules));
    for (size_t i = 0; i < rules->size(); ++i)
      recipe.rules.push_back(read_rule((*rules)[i], r.at("rules") + "[" + std::to_string(i) + "]"));
  }
  r.finish();
  check_recipe(recipe, where);
  return recipe;
}

Recipe load_recipe(const std::string &name_or_path) {
  constexpr std::string_view kMixers = "+mixers=";
  // at the end only: a folder may have such a name
  if (const size_t at = name_or_path.rfind(kMixers);
      at != std::string::npos && name_or_path.find('/', at) == std::string::npos) {
    Recipe recipe = load_recipe(name_or_path.substr(0, at));
    const std::string value = name_or_path.substr(at + kMixers.size());
    if (value != "bf16" && value != "f32")
      throw Error("recipe " + io::in_quotes(name_or_path) + ": expected +mixers=bf16 or +mixers=f32");
    recipe.mixers = value == "bf16" ? FormatId::bf16 : FormatId::f32;
    recipe.name += name_or_path.substr(at);
    check_recipe(recipe, "recipe " + io::printable(name_or_path));
    return recipe;
  }
  const bool path = name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".json");
  if (!path) return parse_recipe(builtin_recipe_json(name_or_path), "recipe " + name_or_path);
  const std::vector<std::byte> bytes = io::read_file(name_or_path);
  return parse_recipe({reinterpret_cast<const char *>(bytes.data()), bytes.size()},
                      io::printable(name_or_path));
}

std::string to_json(const Recipe &recipe) {
  Json linears = Json::object(), rules = Json::array();
  for (const auto &[name, l] : recipe.linears) {
    Json &j = linears[name];
    j = {{"fprop", write_gemm(l.fprop)}, {"dgrad", write_gemm(l.dgrad)}, {"wgrad", write_gemm(l.wgrad)}};
    if (l.hcp != HcpRecipe{}) j["hcp"] = write_hcp(l.hcp);
  }
  for (const RecipeRule &rule : recipe.rules) {
    Json j = {{"roles", rule.roles}};
    if (!rule.families.empty()) j["families"] = rule.families;
    if (rule.first > 0) j["first"] = rule.first;
    if (rule.last > 0) j["last"] = rule.last;
    j["use"] = rule.use;
    rules.push_back(j);
  }
  const Json json = {{"name", recipe.name},
                     {"description", recipe.description},
                     {"source", name_of(Names<FormatId>(kTypes), recipe.source)},
                     {"accumulation", name_of(Names<Accumulation>(kAccumulations), recipe.accumulation)},
                     {"mixers", name_of(Names<FormatId>(kTypes), recipe.mixers)},
                     {"units", recipe.units},
                     {"linears", linears},
                     {"default", recipe.default_linear},
                     {"rules", rules}};
  return json.dump(2) + "\n";
}

} // namespace nvfp4::models
