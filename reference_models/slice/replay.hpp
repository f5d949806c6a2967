// SPDX-License-Identifier: Apache-2.0
// Repeats a training slice: under its own recipe word by word, under others operator by operator.
#pragma once
#include "nvfp4/reference_models/slice/operator_run.hpp"
#include "nvfp4/reference_models/slice/operators.hpp"
#include "nvfp4/reference_models/slice/step.hpp"
#include "nvfp4/reference_models/train/session.hpp"

#include <functional>

namespace nvfp4::models {

struct Place {
  std::string device = "cpu";
  int threads = 0;                           ///< 0: all; changes no bit
  std::optional<Isa> isa = {};               ///< for the CPU, likewise
  std::function<void(double)> progress = {}; ///< gets the fraction done, 1 last; what it throws ends the work
};

/// A tensor or number that came out otherwise than recorded.
struct Mismatch {
  std::string name;
  std::vector<int64_t> index;       ///< of the first difference; empty for numbers
  std::string recorded, replayed;   ///< words there, in hexadecimal
  int64_t differing = 1, count = 1; ///< elements
};

struct Identity {
  std::vector<Mismatch> mismatches; ///< in the order in which the step makes them
  int64_t tensors = 0, values = 0;  ///< compared
  StepResult replayed;
};

/// The step again, from the slice alone. Throws Error for taps and gradients that the model does not have.
[[nodiscard]] Identity replay_identically(const Slice &slice, const Place &place);

/// Operators again, each from its own operands, under the recipe that they ran under. On the CPU.
[[nodiscard]] Identity replay_identically(const OperatorRuns &runs, const Place &place);

/// A recipe on the slice's step.
struct RecipeOutcome {
  std::string name;
  float loss = 0;
  double gradient_norm = 0;
  bool same_bits = false;              ///< loss, gradients and state after the step are the recorded ones
  std::optional<NotFinite> not_finite; ///< the step's first tensor with NaN or Inf
};

struct Comparison {
  std::vector<RecipeOutcome> outcomes; ///< of whole steps, by recipe; empty for operators of another program
  float bf16_loss = 0;
  int64_t operators = 0;                          ///< linear layers measured
  std::vector<std::vector<OperatorError>> errors; ///< by recipe
  std::vector<std::vector<NotFinite>> not_finite; ///< by recipe, of the operators
};

struct ComparedRecipe {
  Recipe recipe;
  /// HCP's channels where the slice has none that fit: chosen on the slice's data; else such layers stay
  /// without the patch in the whole step.
  bool choose_channels = true;
};

/// Operators on the operands of one BF16 pass over the slice's step, and whole steps.
[[nodiscard]] Comparison compare_recipes(const Slice &slice, const std::vector<ComparedRecipe> &recipes,
                                         bool by_layer, const Place &place);
/// Operators alone.
[[nodiscard]] Comparison compare_recipes(const OperatorFile &file, const std::vector<ComparedRecipe> &recipes,
                                         bool by_layer, const Place &place);

/// The recipe with every product of the formats that `unit` takes on that unit. Error where none is.
[[nodiscard]] Recipe with_unit(Recipe recipe, const std::string &unit);

} // namespace nvfp4::models
