// SPDX-License-Identifier: Apache-2.0
// One of the three products of a linear layer on an operand engine, with the Hot-Channel Patch where its
// recipe has it. A group of layers collects the tasks of all its products into stages, so that the engine
// gets them in batches. Internal to the linear layers.
#pragma once
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/linear/hot_channels.hpp"
#include "nvfp4/reference_models/linear/operand_engine.hpp"
#include "nvfp4/reference_models/linear/random_key.hpp"

#include <array>
#include <optional>

namespace nvfp4::models {

struct StepContext;

/// Tasks of one call, by the order in which they must run.
struct Stages {
  std::vector<QuantizeTask> quantize;
  std::vector<PatchTask> patch;
  std::array<std::vector<GemmTask>, 4>
      multiply; ///< one after the other: later ones add to the results of earlier ones

  void clear();
  void multiply_all(OperandEngine &engine);
};

/// A matrix in device memory and the axis along which it is contracted.
struct Source {
  const float *data = nullptr;
  int64_t rows = 0, cols = 0;
  Axis axis = Axis::row;
};

class PatchedProduct {
public:
  PatchedProduct(Backend<float> &backend, OperandEngine &engine, const LinearRecipe &recipe, Product product,
                 uint64_t layer_id);

  /// Opens a call: what the operands are made from.
  void begin(const StepContext &step, const Source &a, const Source &b);
  /// `into` becomes operand a; fill: by a task in stages, otherwise another product's task fills it.
  void quantize_a(Stages &stages, Operand &into, bool fill);
  /// The tasks that fill operand a, and operand b where it is shared, but for their `out`.
  [[nodiscard]] QuantizeTask task_of_a() const;
  [[nodiscard]] QuantizeTask task_of_shared_b() const { return task_of_b(true); }
  /// Operand b from the weight, kept until weights_changed().
  void quantize_b(Stages &stages);
  void quantize_shared_b(Stages &stages, Operand &into, bool fill);
  /// Beside operand a, or a shared operand b, its mean, where the recipe quantizes it by itself; owner: the product whose
  /// operand this one takes, or this one. `temporaries` counts the engine's temporary operands in use.
  void quantize_mean_of_a(Stages &stages, const PatchedProduct &owner, size_t &temporaries);
  void quantize_mean_of_b(Stages &stages, const PatchedProduct &owner, size_t &temporaries);
  /// After quantization: chooses hot channels when due, and adds the tasks that make the patches.
  /// `temporaries` counts the engine's temporary operands in use.
  void choose_and_patch(Stages &stages, size_t &temporaries);
  void multiply(Stages &stages, float *out, const float *bias, Epilogue::Into into) const;

  [[nodiscard]] Operand &a() const { return *a_; }
  [[nodiscard]] Operand &b() const { return *b_; }
  void weights_changed();

  /// After quantization: of every channel of the contraction, on the operands as they are. Error without a
  /// patch.
  [[nodiscard]] std::vector<float> scores() const;
  /// Those that the recipe takes by these scores, in its order.
  [[nodiscard]] std::vector<int32_t> select(std::span<const float> scores) const;

  [[nodiscard]] const HotChannels &hot_channels() const { return hot_; }
  void set_hot_channels(HotChannels state);

  /// Amaxes that operands a and b keep between steps (LinearRecipe::amax_period).
  using HeldAmaxes = std::array<std::optional<float>, 2>;
  /// After quantization: keeps those of this step where they fall due.
  void hold_amaxes();
  [[nodiscard]] const HeldAmaxes &held_amaxes() const { return held_; }
  /// Takes those that this product keeps; the others are ignored.
  void set_held_amaxes(const HeldAmaxes &held);
  /// Hot channels and amaxes of a product that was in this one's place, as far as it was made alike.
  void take_state(const PatchedProduct &before);
  /// Channels of the contraction, known at construction for weights.
  int64_t contraction = 0;

private:
  [[nodiscard]] bool patching() const { return hcp_on_ && !hot_.indices.empty(); }
  void quantize_into_b(Stages &stages, Operand &into, bool fill, bool of_data);
  [[nodiscard]] QuantizeTask task_of_b(bool of_data) const;
  void multiply_means(Stages &stages, float *out, const float *bias, Epilogue::Into into) const;
  void adopt();
  [[nodiscard]] RandomKey key(RandomUse use, int64_t micro_batch) const;
  [[nodiscard]] SignWords signs(const OperandRecipe &operand) const;
  [[nodiscard]] bool holds(const OperandRecipe &operand) const;
  [[nodiscard]] bool amax_is_due(size_t side) const;
  PatchTask patch_task(Operand &out, const Operand &main, const Source &from,
                       std::vector<Segment> segments) const;

  Backend<float> *backend_;
  OperandEngine *engine_;
  LinearRecipe linear_;
  GemmRecipe gemm_;
  HcpRecipe hcp_;
  bool hcp_on_;
  Product product_;
  uint64_t layer_;
  const Unit *unit_ = nullptr, *bf16_unit_ = nullptr;

  uint64_t seed_ = 0, part_ = 0;
  int64_t step_ = 0, micro_batch_ = 0;
  bool training_ = true, refreshes_amaxes_ = true;
  Source from_a_, from_b_;
  Operand *a_ = nullptr, *b_ = nullptr;
  Operand *mean_a_ = nullptr, *mean_b_ = nullptr; ///< where the recipe quantizes means by themselves
  std::unique_ptr<Operand> weight_; ///< operand b where it is the layer's own: all but wgrad
  bool weight_valid_ = false;

  HeldAmaxes held_;
  HotChannels hot_;
  Array<int32_t> device_channels_;
  std::vector<int32_t> on_device_; ///< what is there
  /// The patched operands, where there is a patch: for `single` one, for `dual` one a side.
  std::array<Operand *, 2> patch_a_{};
  std::array<std::unique_ptr<Operand>, 2> patch_b_;
  bool patch_b_valid_ = false;
};

struct WeightShape {
  int64_t in, out;
  uint64_t id;
};

/// The three products of one layer.
struct MemberProducts {
  PatchedProduct fprop, dgrad, wgrad;

  MemberProducts(Backend<float> &backend, OperandEngine &engine, const LinearRecipe &recipe,
                 const WeightShape &shape);
  void weights_changed();
  /// The hot channels and held amaxes of `before`, of products that it has made as these do.
  void take_state(const MemberProducts &before);
};

} // namespace nvfp4::models
