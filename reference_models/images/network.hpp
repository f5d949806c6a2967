// SPDX-License-Identifier: Apache-2.0
// A convolutional network under a recipe: forward, cross-entropy, backward. Products are those of its layers; batch
// normalization, ReLU, pooling and the loss are FP32 in the order of kernels/images.hpp. T = double takes `fp32` only.
#pragma once
#include "nvfp4/reference_models/diagnostics/finite.hpp"
#include "nvfp4/reference_models/images/config.hpp"
#include "nvfp4/reference_models/images/convolution.hpp"
#include "nvfp4/reference_models/model/parameters.hpp"

#include <map>

namespace nvfp4::models {

struct ImageOutcome {
  double loss = 0;     ///< nats, sum over the images
  int64_t correct = 0; ///< images whose label has the largest logit, of equal ones the first
};

/// Roles: "conv", "fc" and "lm_head", as recipes call the last layer; layer counts convolutions, then the hidden layer.
/// Ids of random keys: 16 layer, and of the head 16 layers + 15.
template <class T> class ImageNetwork {
public:
  /// For up to `batch` images at a time. Error for a recipe that does not fit; `engine` as LinearGroup's.
  ImageNetwork(Backend<T> &backend, OperandEngine *engine, const ImageConfig &config, const Recipe &recipe, int64_t batch,
               bool training);
  ~ImageNetwork();

  [[nodiscard]] Parameters<T> &parameters() { return parameters_; }
  /// He's N(0, 2 / inputs) for weights of convolutions and the hidden layer, N(0, 1 / inputs) for the head's; ones and zeros.
  void initialise(uint64_t seed);
  /// What was made of the parameters is void.
  void parameters_changed();

  /// pixels (n, height, width, channels), labels (n) in host memory, 1 <= n <= batch.
  void set_images(std::span<const float> pixels, std::span<const int32_t> labels);
  /// Logits and losses of the images. step.training: with the images' own mean and variance, and running ones follow.
  ImageOutcome forward(const StepContext &step);
  /// Gradients of the mean loss of the images, added to.
  void backward(const StepContext &step);

  /// Logits (n, classes).
  [[nodiscard]] std::vector<T> logits() const;
  /// Whether all that was shown since the last call was finite: images, what layers made, gradients that came back to them.
  [[nodiscard]] bool finite() { return watch_.finite(); }
  /// The first of parameters, images and what the last forward made that is not finite.
  [[nodiscard]] std::optional<NotFinite> first_not_finite() const;

  /// By layer: "features.0.0.conv", "fc", "head".
  [[nodiscard]] std::map<std::string, HotChannels> hot_channels() const;
  /// Error for a layer that is not there or does not fit.
  void set_hot_channels(const std::map<std::string, HotChannels> &state);
  [[nodiscard]] const ImageConfig &config() const { return config_; }

private:
  struct Norm;
  struct Block;
  struct Dense;
  void norm_forward(Norm &norm, bool training, int64_t rows, const T *x);
  void norm_backward(Norm &norm, int64_t rows, const T *x, T *dy);

  Backend<T> *backend_;
  ImageConfig config_;
  int64_t batch_, count_ = 0;
  Parameters<T> parameters_;
  FiniteWatch<T> watch_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::unique_ptr<Dense> hidden_, head_;
  Array<T> images_, logits_, losses_, ones_, gradients_[2];
  Array<int32_t> labels_;
  std::vector<int32_t> host_labels_;
};

} // namespace nvfp4::models
