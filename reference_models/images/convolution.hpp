// SPDX-License-Identifier: Apache-2.0
// A convolution of images under a recipe, as three products of a linear layer whose input are patches (implicit
// GEMM): they are gathered part by part when a product needs them, and the matrix of all of them is never there.
// In memory images are (images, height, width, channels) and filters (outputs, kernel, kernel, channels).
//
//   fprop  y  (pixels out, outputs)  = patches of x (pixels out, K)  filters^T,        K = kernel^2 channels
//   dgrad  dx (pixels, channels)     = patches of dy (pixels, K')    turned filters,   K' = kernel^2 outputs
//   wgrad  dW (outputs, K)          += dy^T                          patches of x
//
// with columns of patches in the order (tap's row, tap's column, channel). The words are those of
// linear/linear.hpp on the whole matrices: of a layer (outputs, K) for fprop and wgrad, and for dgrad of a layer
// (K', channels) whose dy are the patches of dy. Two things are decided here:
//   - A global amax is that of the whole matrix of patches.
//   - Stochastic rounding: rows of patches come in parts of kPartRows; part p adds 2^40 p to the seed of its keys
//     (StepContext::part), and an element's index counts from the part's first row.
#pragma once
#include "nvfp4/reference_models/images/weight_levels.hpp"
#include "nvfp4/reference_models/linear/linear.hpp"

#include <map>

namespace nvfp4::models {

/// Of one image. Every pixel is in some patch: kernel >= stride, padding < kernel, and no row or column is left over at
/// the end.
struct ConvolutionShape {
  int64_t height = 0, width = 0, channels = 0;
  int64_t outputs = 0, kernel = 3, stride = 1, padding = 1;

  [[nodiscard]] int64_t out_height() const { return (height + 2 * padding - kernel) / stride + 1; }
  [[nodiscard]] int64_t out_width() const { return (width + 2 * padding - kernel) / stride + 1; }
  [[nodiscard]] int64_t pixels() const { return height * width; }
  [[nodiscard]] int64_t out_pixels() const { return out_height() * out_width(); }
  [[nodiscard]] int64_t taps() const { return kernel * kernel; }
  [[nodiscard]] int64_t patch() const { return taps() * channels; }      ///< K
  [[nodiscard]] int64_t turned_patch() const { return taps() * outputs; } ///< K'
  /// What fprop and wgrad gather from x, and dgrad from dy.
  [[nodiscard]] Taps taps_of_input() const;
  [[nodiscard]] Taps taps_of_output() const;
  /// Throws Error unless it is one.
  void check() const;
};

/// T = double takes the `fp32` recipe only (an Error otherwise).
template <class T> class Convolution {
public:
  static constexpr int64_t kPartRows = 1024; ///< rows of patches that are gathered at a time
  static constexpr int64_t kPartColumns = 64; ///< columns, for wgrad and for the choice of hot channels

  /// `weight`: role, layer, memory and id of the filters as a layer (outputs, K); in and out are set here. Throws Error
  /// for a shape that is none, a recipe that patches dgrad (hcp.dgrad) and one that rounds x of wgrad stochastically.
  Convolution(Backend<T> &backend, OperandEngine *engine, const ConvolutionShape &shape, LinearWeight<T> weight,
              const Recipe &recipe);
  ~Convolution();
  Convolution(Convolution &&) noexcept;

  /// y (images, out_height, out_width, outputs) from x. Refreshes hot channels when training and due.
  void forward(const StepContext &step, const T *x, int64_t images, T *y);
  /// dx as x (overwritten; null: not wanted); weight and bias gradients are added to. x is forward's.
  void backward(const StepContext &step, const T *x, int64_t images, const T *dy, T *dx);
  void weights_changed();

  [[nodiscard]] const ConvolutionShape &shape() const;
  [[nodiscard]] const LinearRecipe &recipe() const;
  [[nodiscard]] const HotChannels &hot_channels() const; ///< columns of patches, of fprop
  void set_hot_channels(HotChannels state);

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace nvfp4::models
