// SPDX-License-Identifier: Apache-2.0
// The shape of a convolutional network in the manner of VGG: blocks of 3 x 3 convolutions, each followed by batch
// normalization and ReLU, a 2 x 2 max-pool after each block, a hidden layer if wanted, a linear head.
#pragma once
#include "nvfp4/reference_models/family/config.hpp"

namespace nvfp4::models {

struct ImageConfig {
  std::string name = "tiny";
  int64_t height = 32, width = 32, channels = 3, classes = 10;
  std::vector<int64_t> widths = {16, 32, 64}; ///< channels of each block
  int64_t convolutions = 1;                   ///< of each block
  int64_t hidden = 0;                         ///< outputs of the hidden layer; 0: none
  double norm_epsilon = 1e-5, momentum = 0.1; ///< of batch normalization

  /// Blocks in the sense of a recipe's first and last: convolutions, and the hidden layer.
  [[nodiscard]] int64_t layers() const { return int64_t(widths.size()) * convolutions + (hidden > 0); }
  /// Inputs of the hidden layer, or of the head where there is none.
  [[nodiscard]] int64_t features() const;
  bool operator==(const ImageConfig &) const = default;
};

inline constexpr auto kImageFields = std::tuple{
    field("name", &ImageConfig::name, "For people"),
    field("height", &ImageConfig::height, "Of an image", from_to(1, 4096)),
    field("width", &ImageConfig::width, "Of an image", from_to(1, 4096)),
    field("channels", &ImageConfig::channels, "Of an image", from_to(1, 4096)),
    field("classes", &ImageConfig::classes, "Of images", from_to(2, 65536)),
    field("widths", &ImageConfig::widths, "Channels of each block"),
    field("convolutions", &ImageConfig::convolutions, "Of each block", from_to(1, 16)),
    field("hidden", &ImageConfig::hidden, "Outputs of the hidden layer; 0: none", from_to(0, 65536)),
    field("norm_epsilon", &ImageConfig::norm_epsilon, "Of batch normalization", between(0, 1)),
    field("momentum", &ImageConfig::momentum, "Of running mean and variance", from_to(0, 1))};

/// tiny: 16, 32, 64 with one convolution each, 33,946 parameters; small: 32, 64, 128 with two each and 256 hidden; cifar:
/// 64, 128, 256 with two each and 512 hidden, the network of arXiv 2603.13931. Error listing them for another.
[[nodiscard]] ImageConfig image_preset(std::string_view size);
/// Throws Error unless the sizes make a network.
void check(const ImageConfig &config);

[[nodiscard]] std::string to_json(const ImageConfig &config);
[[nodiscard]] ImageConfig image_config_from_json(std::string_view json, const std::string &source);

/// "features.1.0": convolution 0 of block 1.
[[nodiscard]] std::string convolution_path(int64_t block, int64_t convolution);

/// Every parameter once, in the order of the network. Running means and variances are among them, with gradients of 0, which
/// no optimizer step changes. Filters are (outputs, kernel, kernel, channels), the other order of PyTorch's (outputs,
/// channels, kernel, kernel).
[[nodiscard]] std::vector<ParameterSpec> parameter_list(const ImageConfig &config);
[[nodiscard]] int64_t parameter_count(const ImageConfig &config); ///< without running means and variances

} // namespace nvfp4::models
