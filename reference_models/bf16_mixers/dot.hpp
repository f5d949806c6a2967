// SPDX-License-Identifier: Apache-2.0
// The primitive of kernels on tensor cores: D += A B^T over BF16 matrices, where every output continues its
// chain of `sm_90:wgmma.k16.f32.bf16` instructions (mma.sync m16n8k16 has the same bits) in increasing K.
// Here the chain starts from any accumulator, which a GEMM's cannot.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/gemm/row_range.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace nvfp4::gemm {
struct FdpaKernels;
class FdpaPacker;
} // namespace nvfp4::gemm

namespace nvfp4::models::tensorcore {

/// Whether a unit's chains of BF16 products are these.
[[nodiscard]] bool has_dot_bits(const UnitRule &unit);

/// BF16 words, element (r, k) at data[r * row_stride + k * k_stride]. Transposed operands swap the strides.
struct Bf16View {
  const uint16_t *data;
  int64_t row_stride, k_stride = 1;

  [[nodiscard]] uint16_t operator()(int64_t r, int64_t k) const {
    return data[r * row_stride + k * k_stride];
  }
  [[nodiscard]] Bf16View at(int64_t r, int64_t k) const {
    return {data + r * row_stride + k * k_stride, row_stride, k_stride};
  }
};

/// One operand prepared for products: rows padded to K of a multiple of 16 with zeros. What `left` prepared
/// is the A of a product, what `right` prepared the B. Meant to be kept and filled again.
class DotOperand {
public:
  /// isa: of both operands of a product, instead of the best that the CPU has.
  explicit DotOperand(std::optional<Isa> isa = {});
  DotOperand(const DotOperand &);
  DotOperand(DotOperand &&) noexcept;
  DotOperand &operator=(const DotOperand &);
  DotOperand &operator=(DotOperand &&) noexcept;
  ~DotOperand();
  void left(const Bf16View &from, int64_t rows, int64_t k) { fill(from, rows, k, true); }
  void right(const Bf16View &from, int64_t rows, int64_t k) { fill(from, rows, k, false); }

private:
  friend void accumulate(const DotOperand &a, const DotOperand &b, float *d, int64_t stride);
  void fill(const Bf16View &from, int64_t rows, int64_t k, bool is_left);

  const gemm::FdpaKernels *kernels_; ///< null: the definition alone
  int64_t rows_ = 0, k_ = 0;         ///< k_ is padded
  int lines_ = 0;                    ///< rows of a panel; 0: codes only, for the definition
  std::vector<uint16_t> codes_;      // (rows, k)
  std::vector<gemm::FdpaPacker> panels_;
  std::vector<RowRange> ranges_;   // (rows)
  std::vector<float> values_;      // (k), one row on its way
  std::vector<int16_t> exponents_; // (k)
};

/// d (a.rows, b.rows), rows `stride` apart, continues each output's chain by K of a and b. The definition is
/// dot() of emulator/tensorcore/execute.hpp; Isa::scalar runs nothing else.
void accumulate(const DotOperand &a, const DotOperand &b, float *d, int64_t stride);

} // namespace nvfp4::models::tensorcore
