// SPDX-License-Identifier: Apache-2.0
// The chained dot product over operands that stay packed: the GEMM's panels, kernels and conditions
// (emulator/gemm/README.md) on tiles of small matrices, where planning and packing each product would cost
// more than the product. The definition does what the kernels cannot prove.
#include "nvfp4/reference_models/bf16_mixers/dot.hpp"

#include "nvfp4/emulator/cpu/choose_isa.hpp"
#include "nvfp4/emulator/cpu/float_state.hpp"
#include "nvfp4/emulator/gemm/element_reader.hpp"
#include "nvfp4/emulator/gemm/fdpa_conditions.hpp"
#include "nvfp4/emulator/gemm/fdpa_panel.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"

#include <algorithm>

namespace nvfp4::models::tensorcore {
namespace {

using gemm::merge, gemm::vouched, gemm::start_vouched;

constexpr int kLink = 16; ///< K of the instruction, one fused step

const UnitRule &rule() {
  static const UnitRule &found = find_unit("sm_90:wgmma.k16.f32.bf16").rule;
  return found;
}

gemm::FdpaStep step() { return {kLink, rule().fraction_bits, false}; }

} // namespace

bool has_dot_bits(const UnitRule &u) { return step_of(u) == step_of(rule()); }

DotOperand::DotOperand(std::optional<Isa> isa) : kernels_(gemm::fdpa_kernels(choose_isa(isa))) {}

DotOperand::DotOperand(const DotOperand &) = default;
DotOperand::DotOperand(DotOperand &&) noexcept = default;
DotOperand &DotOperand::operator=(const DotOperand &) = default;
DotOperand &DotOperand::operator=(DotOperand &&) noexcept = default;
DotOperand::~DotOperand() = default;

void DotOperand::fill(const Bf16View &from, int64_t rows, int64_t k, bool is_left) {
  const gemm::FdpaKernels *const with = kernels_;
  rows_ = rows;
  k_ = (k + kLink - 1) / kLink * kLink;
  lines_ = with == nullptr ? 0 : is_left ? with->mr : with->nr;
  codes_.resize(size_t(rows * k_));
  for (int64_t r = 0; r < rows; ++r) {
    uint16_t *const row = codes_.data() + r * k_;
    for (int64_t i = 0; i < k; ++i) row[i] = from(r, i);
    std::fill(row + k, row + k_, uint16_t{0});
  }
  if (lines_ == 0) return;
  ranges_.resize(size_t(rows));
  values_.resize(size_t(k_));
  exponents_.resize(size_t(k_));
  const int64_t panels = (rows + lines_ - 1) / lines_;
  panels_.resize(std::max(panels_.size(), size_t(panels)));
  for (int64_t p = 0; p < panels; ++p) {
    if (is_left)
      panels_[size_t(p)].shape_rows(*with, step(), k_ / kLink);
    else
      panels_[size_t(p)].shape_columns(*with, step(), k_ / kLink);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const uint16_t *const row = codes_.data() + r * k_;
    gemm::read_elements(FormatId::bf16, {reinterpret_cast<const uint8_t *>(row), 16}, 0, k_, values_.data(),
                        exponents_.data());
    RowRange range;
    for (int64_t i = 0; i < k_; ++i) {
      range.special = range.special || (row[i] & 0x7F80) == 0x7F80;
      if (exponents_[size_t(i)] == gemm::kZeroExponent) continue;
      range.min = std::min(range.min, exponents_[size_t(i)]);
      range.max = std::max(range.max, exponents_[size_t(i)]);
    }
    ranges_[size_t(r)] = range;
    panels_[size_t(r / lines_)].pack(int(r % lines_),
                                     {values_.data(), exponents_.data(), nullptr, k_, range.max});
  }
}

void accumulate(const DotOperand &a, const DotOperand &b, float *d, int64_t stride) {
  const auto define = [&](int64_t i, int64_t j, float start) {
    const DotOperands op{{reinterpret_cast<const uint8_t *>(a.codes_.data() + i * a.k_), 16},
                         {reinterpret_cast<const uint8_t *>(b.codes_.data() + j * b.k_), 16}};
    return bit_cast<float>(uint32_t(dot(rule(), op, a.k_, bit_cast<uint32_t>(start))));
  };
  const gemm::FdpaKernels *const with = a.kernels_;
  if (with == nullptr || a.lines_ != with->mr || b.lines_ != with->nr) {
    for (int64_t i = 0; i < a.rows_; ++i)
      for (int64_t j = 0; j < b.rows_; ++j) d[i * stride + j] = define(i, j, d[i * stride + j]);
    return;
  }
  const FloatState state;
  const gemm::FdpaStep step = tensorcore::step();
  const int mr = with->mr, nr = with->nr;
  const int64_t steps = a.k_ / kLink;
  std::vector<float> in(size_t(mr * nr)), out(in.size());
  for (int64_t i = 0; i < a.rows_; i += mr)
    for (int64_t j = 0; j < b.rows_; j += nr) {
      const int64_t rows = std::min<int64_t>(mr, a.rows_ - i), cols = std::min<int64_t>(nr, b.rows_ - j);
      RowRange x, y;
      for (int64_t r = 0; r < rows; ++r) merge(x, a.ranges_[size_t(i + r)]);
      for (int64_t c = 0; c < cols; ++c) merge(y, b.ranges_[size_t(j + c)]);
      bool sure = vouched(x, y);
      std::fill(in.begin(), in.end(), 0.0f);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) {
          const float start = d[(i + r) * stride + j + c];
          sure = sure && start_vouched(bit_cast<uint32_t>(start));
          in[size_t(r * nr + c)] = start;
        }
      with->tile(a.panels_[size_t(i / mr)].panel(), b.panels_[size_t(j / nr)].panel(), steps, step, int(cols),
                 in.data(), out.data());
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) {
          const float start = in[size_t(r * nr + c)];
          const bool fast = sure || (vouched(a.ranges_[size_t(i + r)], b.ranges_[size_t(j + c)]) &&
                                     start_vouched(bit_cast<uint32_t>(start)));
          d[(i + r) * stride + j + c] = fast ? out[size_t(r * nr + c)] : define(i + r, j + c, start);
        }
    }
}

} // namespace nvfp4::models::tensorcore
