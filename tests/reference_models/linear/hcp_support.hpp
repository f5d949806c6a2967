// SPDX-License-Identifier: Apache-2.0
// What the tests of the Hot-Channel Patch share: recipes with it, and operands taken apart by public
// functions.
#pragma once
#include "tests/reference_models/linear/support.hpp"

#include <numeric>

namespace nvfp4::test {

using HcpSide = HcpRecipe::Side;

inline Recipe with_hcp(const HcpRecipe &hcp, const std::string &convention = "te") {
  Recipe r = uniform_recipe("hcp", "nvfp4");
  LinearRecipe &l = r.linears["nvfp4"];
  l.hcp = hcp;
  l.hcp.enabled = true;
  l.fprop.a.convention = l.fprop.b.convention = convention;
  check_recipe(r, "test");
  return r;
}

/// (rows, channels) of x (rows, cols).
inline Floats columns_of(const Floats &x, int64_t cols, const std::vector<int32_t> &channels) {
  Floats out;
  for (size_t r = 0; r < x.size() / size_t(cols); ++r)
    for (const int32_t c : channels) out.push_back(x[r * size_t(cols) + size_t(c)]);
  return out;
}

inline Floats minus(const Floats &a, const Floats &b) {
  Floats out = a;
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] - b[i];
  return out;
}

/// An operand taken apart: quantized, its values, its residual.
struct Parts {
  BlockScaled q;
  Floats value, residual;

  Parts(const OperandRecipe &recipe, const Floats &x, int64_t rows)
      : q(quantize_by_hand(recipe, x, rows, Axis::row, {})), value(dequantize(q)), residual(minus(x, value)) {
  }

  /// Channels of x in blocks of their own under the operand's global scale.
  [[nodiscard]] BlockScaled segment(const Floats &x, const std::vector<int32_t> &channels) const {
    const Floats gathered = columns_of(x, q.k, channels);
    return quantize({gathered.data(), q.rows, int64_t(channels.size())}, find_convention(q.convention),
                    {.global_amax = q.global_amax});
  }
  /// Whole blocks with their codes and scales.
  [[nodiscard]] BlockScaled blocks(const std::vector<int32_t> &channels) const {
    BlockScaled out = segment(value, channels);
    for (int64_t r = 0; r < q.rows; ++r)
      for (size_t i = 0; i < channels.size(); i += 16) {
        const int64_t from = channels[i] / 16, to = int64_t(i) / 16;
        std::memcpy(out.codes.data() + r * out.row_bytes() + 8 * to,
                    q.codes.data() + r * q.row_bytes() + 8 * from, 8);
        out.scales[size_t(r * out.scale_cols() + to)] = q.scales[size_t(r * q.scale_cols() + from)];
      }
    return out;
  }
};

/// Operands side by side along their contraction.
inline GemmOperand concatenate(const Unit &unit, Side side, const std::vector<BlockScaled> &parts) {
  std::vector<uint8_t> codes, scales;
  int64_t k = 0;
  for (const BlockScaled &p : parts) k += p.padded_k;
  for (int64_t r = 0; r < parts[0].rows; ++r)
    for (const BlockScaled &p : parts) {
      codes.insert(codes.end(), p.codes.begin() + r * p.row_bytes(),
                   p.codes.begin() + (r + 1) * p.row_bytes());
      scales.insert(scales.end(), p.scales.begin() + r * p.scale_cols(),
                    p.scales.begin() + (r + 1) * p.scale_cols());
    }
  return make_operand(unit, side, RawCodes{parts[0].rows, k, codes}, RawScales(scales, ScaleLayout::linear));
}

} // namespace nvfp4::test
