// SPDX-License-Identifier: Apache-2.0
// An engine that passes everything on to the CPU's, for tests that watch what is asked of one.
#pragma once
#include "nvfp4/reference_models/linear/operand_engine.hpp"

namespace nvfp4::test {

class ForwardingEngine : public models::OperandEngine {
public:
  std::unique_ptr<models::Operand> make_operand() override { return inner_->make_operand(); }
  void quantize(std::span<const models::QuantizeTask> tasks) override { inner_->quantize(tasks); }
  void patch(std::span<const models::PatchTask> tasks) override { inner_->patch(tasks); }
  void multiply(std::span<const models::GemmTask> tasks) override { inner_->multiply(tasks); }
  [[nodiscard]] float global_amax(const models::Operand &q) const override { return inner_->global_amax(q); }
  void column_errors(const models::Operand &q, FormatId source, const float *x, int64_t rows, int64_t cols, Axis axis,
                     float *means) override {
    inner_->column_errors(q, source, x, rows, cols, axis, means);
  }
  void column_maxima(FormatId source, const float *x, int64_t rows, int64_t cols, Axis axis, float *maxima) override {
    inner_->column_maxima(source, x, rows, cols, axis, maxima);
  }

private:
  std::unique_ptr<models::OperandEngine> inner_ = models::make_cpu_operand_engine(1);
};

} // namespace nvfp4::test
