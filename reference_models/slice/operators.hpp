// SPDX-License-Identifier: Apache-2.0
// What a recipe does to single operators: the three products of a linear layer, or of a head of an operator
// inside a mixer, on given operands, against BF16 and against exact arithmetic. Every operator gets the same
// operands under every recipe, so that errors are its own.
#pragma once
#include "nvfp4/reference_models/diagnostics/finite.hpp"
#include "nvfp4/reference_models/linear/linear.hpp"

#include <array>
#include <map>
#include <optional>

namespace nvfp4::models {

/// A linear layer with its operands on the device.
struct OperatorInput {
  LinearWeight<float> weight; ///< its gradients are not used
  int64_t rows = 0;
  const float *input = nullptr;       // (rows, in)
  const float *output_grad = nullptr; // (rows, out), or null: fprop alone
  std::optional<HotChannels>
      hot; ///< of fprop, known from training; otherwise a recipe with HCP chooses on `input`
  uint64_t stream = 0, weight_stream = 0; ///< of an operator inside a mixer
};

/// Sums of squares over the outputs of one product.
struct ErrorSums {
  double against_bf16 = 0, bf16 = 0; ///< |y - y_bf16|^2, |y_bf16|^2
  double against_exact = 0,
         exact = 0; ///< |y - y_exact|^2, |y_exact|^2; FP64 product of BF16-rounded operands
  int64_t outputs = 0;

  void add(const ErrorSums &other);
  /// Relative RMS errors: infinite where the reference is zero and the error is not, NaN of no outputs and of
  /// sums that are not finite.
  [[nodiscard]] double relative_to_bf16() const;
  [[nodiscard]] double relative_to_exact() const;
};
/// -20 log10 of a relative RMS error, in dB; infinite for 0, NaN for NaN.
[[nodiscard]] double signal_to_noise(double relative_error);

struct OperatorError {
  std::string role, format; ///< format: "nvfp4", "nvfp4+hcp", "bf16"; where layers differ "nvfp4 x3, bf16"
  int64_t layer = -1;       ///< -1: all layers together
  Product product = Product::fprop;
  ErrorSums sums;
  /// Layers whose operands, outputs or references hold NaN or Inf: not in the sums. With all left out nothing
  /// is known, and the errors are NaN.
  std::vector<int64_t> not_finite_layers = {};
  int64_t layers = 1; ///< measured
};

/// What a recipe makes of an operator's operands, by product; empty where the product was not made.
struct OperatorOutputs {
  std::array<std::vector<float>, 3> values; ///< fprop (rows, out), dgrad (rows, in), wgrad (out, in)
  std::array<std::string, 3> formats;       ///< "nvfp4", "nvfp4+hcp"
};
/// The three products of one operator under a recipe that is bound to its family. HCP chooses on `input` first, unless it
/// has the channels. step: of the data; it keys stochastic rounding.
[[nodiscard]] OperatorOutputs run_operator(Backend<float> &backend, OperandEngine &engine, const OperatorInput &input,
                                           const Recipe &recipe, const StepContext &step);
/// The same products in FP64, of operands rounded to BF16.
[[nodiscard]] std::array<std::vector<double>, 3> exact_products(Backend<float> &backend, const OperatorInput &input);

/// Measures operators, one after the other, under several recipes.
class OperatorMeter {
public:
  /// Recipes bound to a family; roles: the order in which errors() lists them, others follow. The device's
  /// parts must outlive the meter.
  OperatorMeter(Backend<float> &backend, OperandEngine &engine, std::vector<Recipe> recipes,
                std::vector<std::string> roles = {});
  /// step: that of the data; it keys stochastic rounding.
  void measure(const OperatorInput &input, const StepContext &step);

  /// Of recipe i: by role, then product; by_layer: each layer by itself.
  [[nodiscard]] std::vector<OperatorError> errors(size_t recipe, bool by_layer) const;
  /// Each operand and result with NaN or Inf once: the operands, then what recipe i or the BF16 reference
  /// made of operands that were finite.
  [[nodiscard]] std::vector<NotFinite> not_finite(size_t recipe) const;

private:
  /// By product, whether an operand of it is not finite.
  [[nodiscard]] std::array<bool, 3> note_operands(const OperatorInput &input, const std::string &module);

  Backend<float> &backend_;
  OperandEngine &engine_;
  std::vector<Recipe> recipes_;
  std::vector<std::string> roles_;
  struct Key {
    std::string role;
    int64_t layer;
    Product product;
    auto operator<=>(const Key &) const = default;
  };
  struct Cell {
    ErrorSums sums;
    std::string format;
    bool finite = true;
  };
  std::vector<std::map<Key, Cell>> cells_; ///< by recipe
  std::vector<NotFinite> operands_;
  std::vector<std::vector<NotFinite>> results_; ///< by recipe
};

} // namespace nvfp4::models
