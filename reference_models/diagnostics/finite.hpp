// SPDX-License-Identifier: Apache-2.0
// What is not finite: how many elements of a tensor are NaN or infinite, which is the first, and which tensor
// of a training step or of a product it is. A number over a tensor with such elements is said with this
// beside it.
#pragma once
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/reference_models/fields/field.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace nvfp4::models {

/// What a tensor of a step is to its module.
enum class StepTensor : uint8_t {
  weight,       ///< a parameter before the step
  input,        ///< what a linear layer reads
  output,       ///< of a module or an elementwise step; of a linear layer its fprop
  loss,         ///< of single targets
  output_grad,  ///< what comes back to a linear layer
  weight_grad,  ///< the sum so far; of a linear layer after its wgrad
  input_grad,   ///< what a module gives back; of linear layers their dgrad
  first_moment, ///< of AdamW, after the update
  second_moment,
  updated_weight,
};
[[nodiscard]] constexpr auto names_of(StepTensor) {
  return enum_names("tensor of a step", "weight", "input", "output", "loss", "output_grad", "weight_grad",
                    "input_grad", "first_moment", "second_moment", "updated_weight");
}
static_assert(names_of(StepTensor{}).end_with(StepTensor::updated_weight));

struct FiniteScan {
  int64_t nan = 0, inf = 0;
  int64_t first = -1; ///< element; -1: all are finite

  [[nodiscard]] bool finite() const { return first < 0; }
};
[[nodiscard]] FiniteScan scan_finite(std::span<const float> values);

/// One tensor that holds NaN or Inf.
struct NotFinite {
  std::string tensor = {}; ///< module or parameter: "model.layers.1.attn.q_proj"
  StepTensor what = StepTensor::output;
  int64_t layer = -1; ///< -1: outside the blocks
  std::string op = {},
              product = {}; ///< of a linear layer: "attn.q_proj" and "fprop", "dgrad" or "wgrad"; else empty
  int64_t step = -1, micro_batch = -1;         ///< from 1, from 0; -1: not of a step
  std::vector<int64_t> first = {}, shape = {}; ///< index of the first such element in row-major order
  int64_t nan = 0, inf = 0;

  [[nodiscard]] int64_t elements() const;
  /// "step 3: weight_grad of model.layers.1.attn.q_proj (wgrad): 7 NaN and 1 Inf of 8192, first at [0, 5]".
  [[nodiscard]] std::string text() const;
  bool operator==(const NotFinite &) const = default;
};

inline constexpr auto kNotFiniteFields =
    std::tuple{field("tensor", &NotFinite::tensor, "Module or parameter"),
               field("what", &NotFinite::what, ": what it is to that"),
               field("layer", &NotFinite::layer, "Block; -1: outside the blocks"),
               field("operator", &NotFinite::op, "Linear layer"),
               field("product", &NotFinite::product, "fprop, dgrad or wgrad"),
               field("step", &NotFinite::step, "From 1; -1: of no step"),
               field("micro_batch", &NotFinite::micro_batch, "From 0"),
               field("first", &NotFinite::first, "Index of the first element that is not finite"),
               field("shape", &NotFinite::shape, "Of the tensor"),
               field("nan", &NotFinite::nan, "Elements that are NaN"),
               field("inf", &NotFinite::inf, "Elements that are infinite")};

/// Nothing if all is finite. Layer, operator and product follow from the names: `tensor` is a module's path
/// or a parameter's name.
[[nodiscard]] std::optional<NotFinite> find_not_finite(std::span<const float> values,
                                                       const std::string &tensor, StepTensor what,
                                                       std::vector<int64_t> shape);

/// "7 NaN and 1 Inf of 8192, first at [0, 5]".
[[nodiscard]] std::string count_text(const NotFinite &n);

/// A module's place: "model.layers.3.self_attn.q_proj" is layer 3 and role "attn.q_proj". Layer -1 and the
/// whole name for what is outside the blocks.
struct ModulePlace {
  int64_t layer = -1;
  std::string role;
};
[[nodiscard]] ModulePlace module_place(std::string_view name);

} // namespace nvfp4::models
