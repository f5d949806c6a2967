// SPDX-License-Identifier: Apache-2.0
// Presets and parameters of convolutional networks.
#include "nvfp4/reference_models/images/config.hpp"

#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"

namespace nvfp4::models {
namespace {

constexpr const char *kImageFamily = "cnn";

} // namespace

int64_t ImageConfig::features() const {
  const auto pools = int64_t(widths.size());
  return (height >> pools) * (width >> pools) * widths.back();
}

ImageConfig image_preset(std::string_view size) {
  ImageConfig c;
  c.name = size;
  if (size == "tiny") return c;
  c.convolutions = 2;
  if (size == "small") {
    c.widths = {32, 64, 128}, c.hidden = 256;
    return c;
  }
  if (size == "cifar") {
    c.widths = {64, 128, 256}, c.hidden = 512;
    return c;
  }
  throw Error("--size " + io::in_quotes(size) + " is unknown: expected tiny, small or cifar");
}

void check(const ImageConfig &c) {
  check_bounds(kImageFields, c);
  if (c.widths.empty() || c.widths.size() > 16)
    throw Error("expected 1 to 16 blocks of convolutions, got " + std::to_string(c.widths.size()));
  for (const int64_t w : c.widths)
    if (w < 1 || w > 65536) throw Error("expected widths of 1 to 65536 channels, got " + std::to_string(w));
  if (c.features() < 1)
    throw Error("images of " + std::to_string(c.height) + " x " + std::to_string(c.width) + " are too small for " +
                std::to_string(c.widths.size()) + " blocks, each of which halves them");
  double parameters = 0, inputs = double(c.channels);
  for (const int64_t w : c.widths) {
    parameters += 9 * double(w) * (inputs + double(c.convolutions - 1) * double(w));
    inputs = double(w);
  }
  parameters += double(c.features()) * double(c.hidden > 0 ? c.hidden : c.classes);
  if (parameters > 0x1p32) throw Error("a network of more than 2^32 parameters: give smaller widths");
}

std::string to_json(const ImageConfig &config) {
  nlohmann::ordered_json j = {{"family", kImageFamily}}; // what reports group by
  j.update(fields_to_json(kImageFields, config));
  return j.dump();
}

ImageConfig image_config_from_json(std::string_view json, const std::string &source) {
  ImageConfig c;
  const nlohmann::ordered_json all = io::parse_json(json, source + ": ");
  read_fields(kImageFields, c, all, source + ": ", {}, {"family"});
  if (all.contains("family") && all["family"] != kImageFamily)
    throw Error(source + ": expected \"family\": \"" + kImageFamily + "\", got " + shown(all["family"]));
  check(c);
  return c;
}

std::string convolution_path(int64_t block, int64_t convolution) {
  return "features." + std::to_string(block) + "." + std::to_string(convolution);
}

std::vector<ParameterSpec> parameter_list(const ImageConfig &c) {
  std::vector<ParameterSpec> out;
  const auto norm = [&](const std::string &path, int64_t width) {
    out.push_back({path + ".norm.weight", {width}, Init::ones, false});
    out.push_back({path + ".norm.bias", {width}, Init::zeros, false});
    out.push_back({path + ".norm.running_mean", {width}, Init::zeros, false});
    out.push_back({path + ".norm.running_var", {width}, Init::ones, false});
  };
  int64_t inputs = c.channels;
  for (size_t b = 0; b < c.widths.size(); ++b)
    for (int64_t i = 0; i < c.convolutions; ++i) {
      const std::string path = convolution_path(int64_t(b), i);
      out.push_back({path + ".conv.weight", {c.widths[b], 3, 3, inputs}, Init::normal, true});
      norm(path, c.widths[b]);
      inputs = c.widths[b];
    }
  if (c.hidden > 0) {
    out.push_back({"fc.weight", {c.hidden, c.features()}, Init::normal, true});
    norm("fc", c.hidden);
  }
  out.push_back({"head.weight", {c.classes, c.hidden > 0 ? c.hidden : c.features()}, Init::normal, true});
  out.push_back({"head.bias", {c.classes}, Init::zeros, false});
  return out;
}

int64_t parameter_count(const ImageConfig &config) {
  int64_t n = 0;
  for (const ParameterSpec &p : parameter_list(config))
    if (p.name.find(".running_") == std::string::npos) n += p.count();
  return n;
}

} // namespace nvfp4::models
