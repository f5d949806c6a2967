// SPDX-License-Identifier: Apache-2.0
// Linear layers with real operands, and what a recipe does to their operands and their three products.
#pragma once
#include "nvfp4/reference_models/lab/measures.hpp"
#include "nvfp4/reference_models/lab/spread.hpp"
#include "nvfp4/reference_models/slice/operators.hpp"
#include "nvfp4/reference_models/train/session.hpp"
#include "nvfp4/reference_models/train/training_step.hpp"

#include <string>
#include <vector>

namespace nvfp4::models {

/// A linear layer and what it met in one step, in host memory.
struct LabOperator {
  std::string role;
  int64_t layer = 0, layers = 1;
  uint64_t id = 0;
  int64_t rows = 0, in = 0, out = 0;
  std::vector<float> x, weight, dy; // (rows, in), (out, in), (rows, out)
};

/// A trained model at some step, with the tokens of steps after it.
struct TrainedModel {
  std::string checkpoint = {}; ///< path
  ModelConfig config = {};
  std::vector<StepInput> batches = {}; ///< one a draw
};

/// The operands of every linear layer of the blocks in a forward and backward pass under bf16 of batch `batch`.
[[nodiscard]] std::vector<LabOperator> record_operators(const TrainedModel &model, size_t batch, const std::string &device,
                                                        int threads);

/// Made-up operators: x, weight and dy are N(0, 1) in BF16. In the first of 100 blocks, so that rules for a model's last
/// blocks do not speak of it.
[[nodiscard]] LabOperator gaussian_operator(int64_t rows, int64_t in, int64_t out, uint64_t seed);

/// NVIDIA's recipe and variations of it on made-up operators of 1024 tokens and 2048 x 1408 weights: figure/VARIATION/PRODUCT/... as ProductMeter
/// names them, figure/VARIATION/OPERAND/... as measure_operands. Their relative errors under TransformerEngine's arithmetic are published.
[[nodiscard]] Measures gaussian_figures(int seeds, int draws, const std::string &device, int threads,
                                        const std::function<void(double)> &progress);

/// Where the products are measured.
struct LabDevice {
  std::unique_ptr<Backend<float>> backend;
  std::unique_ptr<OperandEngine> engine;
};
[[nodiscard]] LabDevice make_lab_device(const std::string &device, int threads);

/// Exact products of operators, made once for all recipes, and draws of them under each.
class ProductMeter {
public:
  ProductMeter(LabDevice &device, const std::vector<LabOperator> &operators);
  /// Appends one value each to NAME/PRODUCT/{error,bias,deviation,gain} over all operators, to NAME/PRODUCT/mean64, the error
  /// of the mean of 64 draws as these say, and to NAME/PRODUCT/ROLE/error and .../bias by role, from `draws` draws of what is
  /// stochastic.
  void measure(Measures &to, const std::string &name, const Recipe &recipe, int draws);

private:
  LabDevice &device_;
  const std::vector<LabOperator> &operators_;
  std::vector<std::array<std::vector<double>, 3>> exact_;
};

/// Appends NAME/{fprop.x,fprop.w,dgrad.dy,dgrad.w,wgrad.dy,wgrad.x}/... over all operators.
void measure_operands(Measures &to, const std::string &name, const Recipe &recipe, const std::vector<LabOperator> &operators,
                      int threads);
/// Appends preset/CONVENTION/{activation,weight,gradient}/... for every convention, and rotated likewise with +hadamard:
/// blocks of one row along the row, to nearest. Of each tensor its first kPresetRows rows; one input of several layers counts
/// once.
inline constexpr int64_t kPresetRows = 32;
void measure_presets(Measures &to, const std::vector<LabOperator> &operators, int threads);

/// Appends gradient/LABEL/{error,bias,deviation,cosine} of the whole model's gradient on a batch, against that of fp32.
void measure_gradient(Measures &to, const std::string &label, const Recipe &recipe, const TrainedModel &model, size_t batch,
                      int draws, const std::string &device, int threads);

} // namespace nvfp4::models
