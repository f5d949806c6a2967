// SPDX-License-Identifier: Apache-2.0
// JSON of quantizer options, both ways.
#include "nvfp4/golden/quantize_case.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/golden/text.hpp"

#include <array>
#include <nlohmann/json.hpp>

namespace nvfp4::golden {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::array<const char *, 4> kRoundings = {"rne", "sr-carry8", "sr-te", "sr-exact"};

} // namespace

std::string to_json(const QuantizeOptions &o) {
  Json j = {{"axis", o.axis == Axis::row ? "row" : "col"},
            {"block_rows", o.block_rows},
            {"rounding", kRoundings[size_t(o.rounding)]},
            {"hadamard", o.hadamard},
            {"sign_mask", o.sign_mask},
            {"scale_layout", o.layout == ScaleLayout::linear ? "linear" : "128x4"},
            {"source_dtype", format(o.source).name}};
  if (o.rounding != ElementRounding::nearest) {
    j["seed"] = o.key.seed;
    j["offset"] = o.key.offset;
  }
  // as a hex word: JSON has no way to say which FP32 value is meant, nor Inf
  if (o.global_scale) j["global_scale"] = hex_word(bit_cast<uint32_t>(*o.global_scale), 32);
  return j.dump();
}

QuantizeOptions options_from_json(const std::string &text, const std::string &where) {
  try {
    const Json j = Json::parse(text);
    QuantizeOptions o;
    o.axis = j.at("axis") == "row" ? Axis::row : Axis::col;
    o.block_rows = j.at("block_rows");
    const std::string rounding = j.at("rounding");
    size_t r = 0;
    while (r < kRoundings.size() && rounding != kRoundings[r]) ++r;
    if (r == kRoundings.size()) throw Error(where + ": unknown rounding '" + rounding + "'");
    o.rounding = ElementRounding(r);
    o.hadamard = j.at("hadamard");
    o.sign_mask = j.at("sign_mask");
    o.layout = j.at("scale_layout") == "linear" ? ScaleLayout::linear : ScaleLayout::tiled_128x4;
    const auto source = find_format(j.at("source_dtype").get<std::string>());
    if (!source) throw Error(where + ": unknown source_dtype");
    o.source = *source;
    if (j.contains("seed")) o.key = {j.at("seed"), j.at("offset")};
    if (j.contains("global_scale"))
      o.global_scale = bit_cast<float>(uint32_t(parse_hex_words(j.at("global_scale").get<std::string>(), 32, where).front()));
    return o;
  } catch (const nlohmann::json::exception &error) {
    throw Error(where + ": not the options of a quantizer case: " + error.what());
  }
}

} // namespace nvfp4::golden
