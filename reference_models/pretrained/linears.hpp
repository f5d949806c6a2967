// SPDX-License-Identifier: Apache-2.0
// The linear layers of a pretrained model that share an input, from weights as they are stored: numbers go
// through a recipe (reference_models/linear), codes and scales of block formats into the product untouched.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/reference_models/diagnostics/finite.hpp"
#include "nvfp4/reference_models/linear/linear.hpp"
#include "nvfp4/reference_models/pretrained/model_files.hpp"

namespace nvfp4::models::pretrained {

/// How a model is run. The recipe must be bound to the architecture's family.
struct ServingOptions {
  Recipe recipe;
  /// How inputs of layers with stored codes are quantized: a convention's name, for E4M3 weights with dense
  /// scales one of fp8_inputs(); "none": not at all, the weights' values then go through BF16 products;
  /// empty: as the folder says, by the container's own convention.
  std::string activations = {};
  int threads = 0;
};

/// Where a model's products run, and what they go by.
struct Engines {
  Backend<float> &backend;
  OperandEngine &engine;
  const ModelFiles &files;
  const ServingOptions &options;
  Recipe bf16; ///< of layers whose weights alone are quantized
};

/// How a layer's product is computed, for people.
struct LayerPlan {
  std::string weights; ///< "F32", "modelopt-nvfp4", ...
  std::string inputs;  ///< "recipe", "bf16", "modelopt, static"
  std::string unit;
};

class Linears {
public:
  /// layer = layers for the head. Rows [first, first + count) of each weight's outputs alone, or all of them
  /// with count < 0.
  Linears(const Engines &engines, int64_t layer, std::span<const LinearName> names, int64_t first = 0,
          int64_t count = -1);

  /// y[i] (rows, out_i) from x (rows, in), as LinearGroup::forward.
  void forward(const StepContext &step, const float *x, int64_t rows, std::span<float *const> y);
  /// Frees the numbers that products no longer need once they ran.
  void forget_numbers();

  [[nodiscard]] int64_t out(size_t member) const { return members_[member].out; }
  /// Hot channels of each member's fprop, in its order; empty where there are none.
  [[nodiscard]] std::vector<HotChannels> hot_channels() const;
  void set_hot_channels(const std::vector<HotChannels> &state);
  /// The first weight or bias with NaN or Inf among its numbers.
  [[nodiscard]] const std::optional<NotFinite> &not_finite() const { return not_finite_; }
  /// Without reading a weight: how a layer would be computed. Error where it cannot be.
  [[nodiscard]] static LayerPlan plan(const Engines &engines, int64_t layer, const LinearName &name);

private:
  enum class Way : uint8_t { recipe, weights_alone, stored, fp8 };
  struct Stored {
    const Unit *unit = nullptr;
    const Convention *convention = nullptr; ///< of the inputs
    std::optional<float> word;              ///< of the inputs' global scale; nothing: dynamic
    Accumulation accumulation = Accumulation::mmasim;
    GemmOperand weight;
  };
  struct Member {
    LinearName name;
    Way way = Way::recipe;
    int64_t in = 0, out = 0, place = 0; ///< place: within its group
    std::vector<float> weight, bias;
    Stored stored;
    const Fp8Inputs *fp8_inputs = nullptr;
    std::optional<Fp8Product> fp8 = {};
    FormatId output = FormatId::bf16;
  };
  static void choose(const Engines &e, int64_t layer, const LinearName &name, Member &m);
  [[nodiscard]] LinearGroup<float> *group_of(Way way);
  /// x, rounded to BF16 where the recipe's source is.
  [[nodiscard]] std::vector<float> source_of(const Member &m, const float *x, int64_t rows) const;
  void run_stored(Member &m, const float *x, int64_t rows, float *y);

  const Engines &e_;
  std::vector<Member> members_;
  std::optional<LinearGroup<float>> by_recipe_, weights_alone_;
  std::optional<NotFinite> not_finite_;
};

} // namespace nvfp4::models::pretrained
