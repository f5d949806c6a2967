// SPDX-License-Identifier: Apache-2.0
// alpha of every output: constant where neither A's nor B's global scale changes. Internal.
#pragma once
#include "nvfp4/emulator/gemm/operand.hpp"

#include <algorithm>

namespace nvfp4 {

class AlphaGrid {
public:
  AlphaGrid(const GemmOperand &a, const GemmOperand &b, float alpha, AlphaRule rule)
      : rows_(ends(a)), columns_(ends(b)), alphas_(rows_.size() * columns_.size()) {
    for (size_t i = 0; i < rows_.size(); ++i)
      for (size_t j = 0; j < columns_.size(); ++j)
        alphas_[i * columns_.size() + j] = global_alpha(factor(a, i), factor(b, j), alpha, rule);
  }

  struct Entry {
    float alpha;
    int64_t end; ///< rows of B up to here have it too
  };
  /// Whether all outputs have one alpha.
  [[nodiscard]] bool single() const { return alphas_.size() == 1; }
  /// Of A's row i and B's row j.
  [[nodiscard]] Entry at(int64_t i, int64_t j) const {
    const size_t c = find(columns_, j);
    return {alphas_[find(rows_, i) * columns_.size() + c], columns_[c]};
  }

private:
  static std::vector<int64_t> ends(const GemmOperand &o) {
    std::vector<int64_t> e;
    for (const RowsFactor &p : o.parts) e.push_back(p.last);
    if (e.empty()) e.push_back(o.rows);
    return e;
  }
  static const GlobalFactor &factor(const GemmOperand &o, size_t part) {
    return o.parts.empty() ? o.global : o.parts[part].factor;
  }
  static size_t find(const std::vector<int64_t> &e, int64_t at) {
    return e.size() == 1 ? 0 : size_t(std::upper_bound(e.begin(), e.end(), at) - e.begin());
  }

  std::vector<int64_t> rows_, columns_; // where each part ends
  std::vector<float> alphas_;           // (parts of A, parts of B)
};

} // namespace nvfp4
