// SPDX-License-Identifier: Apache-2.0
// Linear layers under a recipe: fprop, dgrad and wgrad, each with the operands that the recipe names, and the
// Hot-Channel Patch. Layers that read the same input form a group, so that the input is quantized once.
#pragma once
#include "nvfp4/reference_models/backend/finite_watch.hpp"
#include "nvfp4/reference_models/linear/hot_channels.hpp"
#include "nvfp4/reference_models/linear/operand_engine.hpp"
#include "nvfp4/reference_models/linear/random_key.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace nvfp4::models {

class DataCopies;

/// What a step's random words and HCP's refresh depend on.
struct StepContext {
  uint64_t seed = 0;       ///< of the run
  int64_t step = 0;        ///< optimizer steps done before this one
  int64_t micro_batch = 0; ///< within the step
  bool training = true;    ///< false: HCP's sets are used as they are, never refreshed
  /// Number of the part, where a layer's data come in parts with random words of their own (images/convolution.hpp):
  /// 2^40 times it is added to the seed of every key.
  uint64_t part = 0;
  /// Amaxes that a recipe holds between steps are taken anew where they fall due. false: only where there are none, as
  /// in a pass that chooses hot channels for a trained model.
  bool refreshes_amaxes = true;
};

/// One weight of the model: (out, in) row-major, y = x weight^T + bias.
template <class T> struct LinearWeight {
  std::string role;              ///< "attn.q_proj", "mlp.down_proj", "lm_head": what recipes speak of
  int64_t layer = 0, layers = 1; ///< which block of how many; lm_head: layer = layers
  int64_t in = 0, out = 0;
  const T *weight = nullptr;
  const T *bias = nullptr;  // (out) or null
  T *weight_grad = nullptr; // added to; null: not wanted
  T *bias_grad = nullptr;
  uint64_t id = 0; ///< number of the layer in the model: part of its random key
};

/// Linear layers that share an input. T = double takes the `fp32` recipe only (an Error otherwise).
template <class T> class LinearGroup {
public:
  /// `engine` may be null when every member's recipe is f32. Both must outlive the group. A recipe with rules
  /// for model families must have been bound to one (Recipe::for_family).
  LinearGroup(Backend<T> &backend, OperandEngine *engine, std::vector<LinearWeight<T>> members,
              const Recipe &recipe);
  ~LinearGroup();
  LinearGroup(LinearGroup &&) noexcept;

  /// y[i] (rows, out_i) from x (rows, in). Refreshes HCP's channels when training and due (first micro-batch
  /// only).
  void forward(const StepContext &step, const T *x, int64_t rows, std::span<T *const> y);
  /// dx (rows, in) = the members' dgrads added in order (overwrites; null: not wanted); weight and bias
  /// gradients are added to. x is forward's input.
  void backward(const StepContext &step, const T *x, int64_t rows, std::span<const T *const> dy, T *dx);
  /// The weights have changed: what was quantized from them is void.
  void weights_changed();
  /// From now on shows x, y and dy of each pass to `watch`, which must outlive the group: quantization would
  /// make numbers of NaN and Inf.
  void watch(FiniteWatch<T> *watch);
  /// From now on shows each member's dgrad (rows, in) while backward makes dx of them: as the recipe rounds
  /// it, before it is added to those of earlier members. Where it is f32 there is no such term: then the sum
  /// with theirs, which its chains go on with.
  void show_input_grads(std::function<void(const LinearWeight<T> &, const T *)> show);

  [[nodiscard]] std::span<const LinearWeight<T>> members() const;
  [[nodiscard]] const LinearRecipe &recipe(size_t member) const;
  /// From now on layers are what the recipe makes of them at this step, counted from 0 (at first: at 0). Hot channels and held
  /// amaxes stay where the product stays as it was. Error as the constructor's.
  void at_step(int64_t step);
  /// Amaxes that the operands of a member's products hold, by product, then a and b; state for checkpoints.
  using HeldAmaxes = std::array<std::array<std::optional<float>, 2>, 3>;
  [[nodiscard]] HeldAmaxes held_amaxes(size_t member) const;
  /// Takes those that the layer holds; the others are ignored.
  void set_held_amaxes(size_t member, const HeldAmaxes &held);
  /// State for checkpoints, of fprop or dgrad; empty for members without HCP there.
  [[nodiscard]] const HotChannels &hot_channels(size_t member, Product product = Product::fprop) const;
  /// Error when the state does not fit the layer.
  void set_hot_channels(size_t member, HotChannels state, Product product = Product::fprop);

  // For owners whose memory moves and whose data are spread over ranks (linear_layer.hpp):
  /// Takes weight, bias and gradients of `memory` for the member's; voids what was quantized from the old
  /// ones.
  void set_memory(size_t member, const LinearWeight<T> &memory);
  /// What each channel of a member's fprop or dgrad would score in a choice on `data`, which is x or its dy;
  /// Error where it has no patch.
  [[nodiscard]] std::vector<float> scores(size_t member, Product product, const StepContext &step,
                                          const T *data, int64_t rows);
  /// The channels that the member's recipe takes by these scores.
  [[nodiscard]] std::vector<int32_t> select(size_t member, Product product,
                                            std::span<const float> scores) const;
  /// From now on hands the global amaxes of x and dy, as they are quantized, to `reduce`, which overwrites
  /// them with those to quantize with. Called where the recipe has amax all-ranks, once a pass at the most.
  void reduce_amaxes(std::function<void(std::span<float>)> reduce);
  /// From now on quantizes what lies at `data`, x or dy or a weight, with this global amax instead of its own, where
  /// the convention has a global scale: of data that come in parts. Empty: no more.
  void set_amax(const T *data, std::optional<float> amax);
  /// From now on takes copies of x from there, and leaves them there; contents: x's number (data_copies.hpp),
  /// 0: x is nobody else's.
  void share_data(DataCopies &copies, uint64_t contents);

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace nvfp4::models
