// SPDX-License-Identifier: Apache-2.0
// Any two tensors, dense or quantized, element by element: how many differ, where first, and by how much.
#pragma once
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/golden/diagnosis/compare.hpp"
#include "nvfp4/golden/io/tensor.hpp"

#include <functional>
#include <string>
#include <vector>

namespace nvfp4::golden {

/// One tensor, or one part of a quantized tensor, against another. Words are compared: equal words are equal,
/// NaN too, and `words.nan_same` says how many; NaN with other bits differ; so do +0 and -0.
struct PartComparison {
  std::string name;           ///< of the tensor; "codes", "block_scales", ... of a quantized one
  std::string a_type, b_type; ///< as a file names them ("F32"), or the format of codes ("e2m1")
  std::vector<int64_t> a_shape, b_shape;
  /// Why elements could not be compared, empty where they were.
  std::string unlike = {};
  /// The types differ: values were compared, in FP64, NaN with any NaN. The words then count as different.
  bool by_value = false;
  /// Distances in ULP mean something: not for bytes and complex numbers. Of integers they are differences.
  bool measured = true;
  diagnosis::Comparison words = {}; ///< a is `got`, b is `want`
  double first_a = 0, first_b = 0;  ///< values of the first difference where `measured`

  [[nodiscard]] bool equal() const { return unlike.empty() && !by_value && words.equal(); }
  /// Index of element `at` of a row-major order, one number an axis.
  [[nodiscard]] std::vector<int64_t> index(int64_t at) const;
};

/// Tensors of one shape; other shapes are told in `unlike`. `progress` gets the fraction done of
/// comparing elements; what it throws ends the work.
[[nodiscard]] PartComparison compare_tensors(const io::Tensor &a, const io::Tensor &b,
                                             const std::function<void(double)> &progress = {});

/// Codes (rows, padded k), block scales (rows, blocks) in whichever layout they lie, global scales, amaxes of
/// rows, and the values that both mean (F32, rotation undone). Throws Error for tensors whose sizes do not
/// fit. `progress` as above.
[[nodiscard]] std::vector<PartComparison> compare_quantized(const BlockScaled &a, const BlockScaled &b,
                                                            const std::function<void(double)> &progress = {});

} // namespace nvfp4::golden
