// SPDX-License-Identifier: Apache-2.0
// Products of E4M3 weights with dense scales: how inputs are quantized, as rows of data, and where scales
// meet the accumulators. Not block-scaled formats: those are emulator/quantize and emulator/gemm alone.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/golden/checkpoint/weight.hpp"

#include <optional>

namespace nvfp4::models::pretrained {

/// Over which inputs a scale is taken.
enum class InputScope : uint8_t {
  stored, ///< the checkpoint's input scale
  tensor, ///< all tokens of a pass
  token,
  group, ///< `group` elements of a token
};

/// s = max(amax, least_amax) / 448, at least least_scale; code = e4m3(x / s) or, by_reciprocal,
/// e4m3(x * (1 / s)), nearest even, saturating. amax is that of the numbers; NaN stays NaN (the sources make
/// it 448). A scale of 0 gives codes of 0.
struct Fp8Inputs {
  std::string_view name;
  InputScope scope = InputScope::stored;
  int group = 0;
  float least_amax = 0, least_scale = 0;
  bool by_reciprocal = false;
  std::string_view source = {};
};
[[nodiscard]] std::span<const Fp8Inputs> fp8_inputs();
/// The row of a name, or null.
[[nodiscard]] const Fp8Inputs *find_fp8_inputs(std::string_view name);
/// "fp8-static, ...", for messages.
[[nodiscard]] std::string fp8_inputs_names();

struct Fp8Quantized {
  std::vector<uint8_t> codes; // (rows, k)
  std::vector<float> scales;  // (rows, groups), or one a row
  int64_t groups = 1;
};
/// `word`: the input scale of InputScope::stored.
[[nodiscard]] Fp8Quantized quantize_fp8(const Fp8Inputs &how, std::span<const float> x, int64_t rows,
                                        int64_t k, float word);

/// One weight, ready to be multiplied on Hopper's unit.
class Fp8Product {
public:
  /// Rows [first, first + count) of w. Error, which names the weight, where its scales and these inputs do
  /// not make a product.
  Fp8Product(const checkpoint::Weight &w, const Fp8Inputs &how, int64_t first, int64_t count);

  /// y (rows, out) = x (rows, in) w^T + bias, one rounding to `output` (bf16 or f32). Per output, in FP32:
  /// scales of a tensor or a row: s_x * (s_w * acc), with a bias fma(s_x, s_w * acc, bias), as vLLM's CUTLASS
  /// epilogues (scaled_mm_epilogues_c3x.hpp: ScaledEpilogue, ScaledEpilogueBias); scales of tiles:
  /// sum = fma(s_x * s_w, acc, sum) over the groups of K in their order, from +0, then + bias, as
  /// deepseek-ai/DeepGEMM impls/sm90_fp8_gemm_1d2d.cuh. acc is a chain from zero.
  void run(std::span<const float> x, int64_t rows, std::span<const float> bias, FormatId output, int threads,
           float *y) const;

  /// Error as the constructor's, without reading the weight.
  static void check(const checkpoint::Weight &w, const Fp8Inputs &how);
  static constexpr std::string_view kUnit = "sm_90:wgmma.k32.f32.e4m3";

private:
  const Fp8Inputs *how_;
  int64_t out_, k_, group_; ///< group_: K of one chain
  float word_ = 1;
  std::vector<GemmOperand> parts_; ///< a chain's columns each
  std::vector<float> scales_;      // (out, parts)
};

} // namespace nvfp4::models::pretrained
