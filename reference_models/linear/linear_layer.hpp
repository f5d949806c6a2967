// SPDX-License-Identifier: Apache-2.0
// One linear layer for callers that own its tensors, such as a PyTorch module: memory comes with each call,
// nothing is kept between calls, and data may be spread over ranks. The arithmetic is linear.hpp's.
#pragma once
#include "nvfp4/reference_models/linear/data_copies.hpp"
#include "nvfp4/reference_models/linear/linear.hpp"

#include <mutex>

namespace nvfp4::models {

/// Where layers run. Layers of one device take turns, for they share the engine's temporary operands.
struct LayerDevice {
  std::unique_ptr<Backend<float>> backend;
  std::unique_ptr<OperandEngine> engine;
  std::mutex turn = {};
  std::optional<DataCopies> copies = {}; ///< made by the first layer
};

/// What a recipe and a random key speak of. `id` is the layer's number in its model: 16 block + position.
struct LayerPlace {
  std::string role = {};
  int64_t layer = 0, layers = 1;
  uint64_t id = 0;
  int64_t in = 0, out = 0;
};

/// Device memory of a call: FP32, dense, row-major.
struct LayerInput {
  const float *x = nullptr; // (rows, in)
  int64_t rows = 0;
  const float *weight = nullptr;          // (out, in)
  const float *bias = nullptr;            // (out), or null
  std::span<const int32_t> channels = {}; ///< the hot ones of this product, in host memory; empty: no patch
  /// A number of what x holds: calls on one device with equal ones have the same words in x, and what one
  /// quantized the next takes, but where `reduce` is given. 0: not known.
  uint64_t contents = 0;
};
/// null: not wanted. Weight and bias gradients are added to, as micro-batches add to theirs.
struct LayerGradients {
  float *x = nullptr;      // (rows, in)
  float *weight = nullptr; // (out, in)
  float *bias = nullptr;   // (out)
};

/// Overwrites values of this rank with those of all ranks.
using Reduce = std::function<void(std::span<float>)>;

class LinearLayer {
public:
  /// The recipe is bound to a family where it has rules for families. Error as LinearGroup's, for a recipe that holds
  /// amaxes between steps, and for one whose hcp changes with the step (`from`).
  LinearLayer(std::shared_ptr<LayerDevice> device, const LayerPlace &place, const Recipe &recipe);

  /// Of the step that was called last, 0 before.
  [[nodiscard]] const LinearRecipe &recipe() const { return group_.recipe(0); }
  /// Hot channels of fprop or dgrad once they are chosen; 0 where the recipe has no patch there.
  [[nodiscard]] int64_t channels(Product product) const;
  /// Whether a step's first micro-batch chooses them.
  [[nodiscard]] bool choice_is_due(int64_t step) const;

  // reduce: for recipes with amax all-ranks; called once or not at all, on all ranks alike. Without it a rank
  // is by itself.

  /// Scores of fprop's channels (data is x) or dgrad's (dy), which ranks may reduce, and the channels they
  /// choose.
  [[nodiscard]] std::vector<float> scores(Product product, const StepContext &step, const float *data,
                                          int64_t rows, const float *weight, const Reduce &reduce = {});
  [[nodiscard]] std::vector<int32_t> select(Product product, std::span<const float> scores) const;

  /// y (rows, out).
  void forward(const StepContext &step, const LayerInput &input, float *y, const Reduce &reduce = {});
  /// From dy (rows, out).
  void backward(const StepContext &step, const LayerInput &input, const float *dy,
                const LayerGradients &gradients, const Reduce &reduce = {});

private:
  class Call;

  std::shared_ptr<LayerDevice> device_;
  LayerPlace place_;
  LinearGroup<float> group_;
  HcpRecipe hcp_; ///< at every step
};

} // namespace nvfp4::models
