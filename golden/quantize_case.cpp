// SPDX-License-Identifier: Apache-2.0
// JSON of quantizer options, both ways.
#include "nvfp4/golden/quantize_case.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/known_keys.hpp"
#include "nvfp4/golden/text.hpp"

#include <nlohmann/json.hpp>

namespace nvfp4::golden {
namespace {

using Json = nlohmann::ordered_json;

template <NamedEnum E> E choice(const Json &j, const char *key, const std::string &where) {
  const std::string name = j.at(key);
  if (const std::optional<E> e = find_enum<E>(name)) return *e;
  throw Error(where + ": unknown " + key + " '" + name + "'; choose " + name_list<E>());
}

} // namespace

std::string to_json(const QuantizeOptions &o) {
  Json j = {{"axis", to_string(o.axis)},
            {"block_rows", o.block_rows},
            {"rounding", to_string(o.rounding)},
            {"hadamard", o.hadamard},
            {"sign_mask", o.sign_mask},
            {"scale_layout", to_string(o.layout)},
            {"source_dtype", format(o.source).name}};
  if (o.rounding != ElementRounding::nearest) {
    j["seed"] = o.key.seed;
    j["offset"] = o.key.offset;
  }
  // as hex words: JSON has no way to say which FP32 value is meant, nor Inf
  if (o.global_amax) j["global_amax"] = hex_word(bit_cast<uint32_t>(*o.global_amax), 32);
  if (o.global_scale) j["global_scale"] = hex_word(bit_cast<uint32_t>(*o.global_scale), 32);
  return j.dump();
}

QuantizeOptions options_from_json(const std::string &text, const std::string &where) {
  try {
    const Json j = io::parse_json(text, where + ": ");
    check_known_keys(j,
                     {"axis", "block_rows", "rounding", "hadamard", "sign_mask", "scale_layout", "source_dtype", "seed",
                      "offset", "global_amax", "global_scale"},
                     where);
    const auto word = [&](const char *key) -> std::optional<float> {
      if (!j.contains(key)) return std::nullopt;
      return bit_cast<float>(uint32_t(parse_hex_words(j.at(key).get<std::string>(), 32, where).front()));
    };
    QuantizeOptions o;
    o.axis = choice<Axis>(j, "axis", where);
    o.block_rows = j.at("block_rows");
    o.rounding = choice<ElementRounding>(j, "rounding", where);
    o.hadamard = j.at("hadamard");
    o.sign_mask = j.at("sign_mask");
    o.layout = choice<ScaleLayout>(j, "scale_layout", where);
    const auto source = find_format(j.at("source_dtype").get<std::string>());
    if (!source) throw Error(where + ": unknown source_dtype");
    o.source = *source;
    if (j.contains("seed")) o.key = {j.at("seed"), j.at("offset")};
    o.global_amax = word("global_amax");
    o.global_scale = word("global_scale");
    return o;
  } catch (const nlohmann::json::exception &error) {
    throw Error(where + ": not the options of a quantizer case: " + error.what());
  }
}

} // namespace nvfp4::golden
