// SPDX-License-Identifier: Apache-2.0
// The operand engine on the CPU: batches over threads, the emulator's quantization and GEMM inside.
#include "nvfp4/emulator/cpu/multiversion.hpp"
#include "nvfp4/reference_models/kernels/hcp.hpp"
#include "nvfp4/reference_models/linear/cpu_operand.hpp"

#include <algorithm>
#include <omp.h>

namespace nvfp4::models {
namespace {

using cpu::CpuOperand;

/// From here on, the threads share one task instead of taking one each.
constexpr int64_t kLargeTensor = int64_t{1} << 21;  // elements
constexpr int64_t kLargeProduct = int64_t{1} << 28; // multiply-adds
/// A product is not cut into pieces of less than this.
constexpr int64_t kPiece = int64_t{1} << 20;

template <Epilogue::Into into, bool bf16>
NVFP4_INLINE void finish_rows(float alpha, int64_t rows, int64_t cols, const uint32_t *words, int64_t stride,
                              float *y, int64_t y_stride, const float *bias) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint32_t *const acc = words + r * stride;
    float *const to = y + r * y_stride;
    if (bias == nullptr && cols == 16) // the usual tile: a loop of known length
      for (int64_t j = 0; j < 16; ++j)
        to[j] = finish({into, bf16}, alpha, bit_cast<float>(acc[j]), to[j], nullptr);
    else if (bias != nullptr)
      for (int64_t j = 0; j < cols; ++j)
        to[j] = finish({into, bf16}, alpha, bit_cast<float>(acc[j]), to[j], bias + j);
    else
      for (int64_t j = 0; j < cols; ++j)
        to[j] = finish({into, bf16}, alpha, bit_cast<float>(acc[j]), to[j], nullptr);
  }
}

NVFP4_MULTIVERSION void finish_tile(const Epilogue &e, float alpha, int64_t rows, int64_t cols,
                                    const uint32_t *words, int64_t stride, float *y, int64_t y_stride,
                                    const float *bias) {
  using enum Epilogue::Into;
  switch (e.into) {
  case overwrite:
    if (e.bf16) return finish_rows<overwrite, true>(alpha, rows, cols, words, stride, y, y_stride, bias);
    return finish_rows<overwrite, false>(alpha, rows, cols, words, stride, y, y_stride, bias);
  case accumulate:
    if (e.bf16) return finish_rows<accumulate, true>(alpha, rows, cols, words, stride, y, y_stride, bias);
    return finish_rows<accumulate, false>(alpha, rows, cols, words, stride, y, y_stride, bias);
  case add_rounded:
    if (e.bf16) return finish_rows<add_rounded, true>(alpha, rows, cols, words, stride, y, y_stride, bias);
    return finish_rows<add_rounded, false>(alpha, rows, cols, words, stride, y, y_stride, bias);
  }
}

/// Where a product's outputs go.
struct Target {
  const GemmTask *task;
  float alpha;
  int64_t columns;

  static void store(const void *context, int64_t i, int64_t j, int64_t rows, int64_t cols,
                    const uint32_t *words, int64_t stride) {
    const Target &t = *static_cast<const Target *>(context);
    const float *const bias = t.task->bias == nullptr ? nullptr : t.task->bias + j;
    finish_tile(t.task->epilogue, t.alpha, rows, cols, words, stride, t.task->out + i * t.columns + j,
                t.columns, bias);
  }
};

const CpuOperand &operand(const Operand *o) { return static_cast<const CpuOperand &>(*o); }

void multiply_rows(const GemmTask &task, int64_t first, int64_t rows, int threads, std::optional<Isa> isa) {
  const CpuOperand &a = operand(task.a), &b = operand(task.b);
  const GemmPlan plan(*task.unit, {.accumulation = task.accumulation, .threads = threads, .isa = isa});
  const float alpha = global_alpha(a.packed.global, b.packed.global, 1.0f, AlphaRule::by_convention);
  const Target target{&task, alpha, b.packed.rows};
  plan.accumulate_rows(a.packed, b.packed, first, rows, {Target::store, &target});
}

class CpuOperandEngine final : public OperandEngine {
public:
  CpuOperandEngine(int threads, std::optional<Isa> isa)
      : threads_(threads > 0 ? threads : omp_get_max_threads()), isa_(isa), workspaces_(size_t(threads_)) {
    for (cpu::Workspace &w : workspaces_) w.isa = isa;
  }

  std::unique_ptr<Operand> make_operand() override { return std::make_unique<CpuOperand>(); }

  void quantize(std::span<const QuantizeTask> tasks) override {
    // tasks that read the same tensor go to the same thread, which rounds it to the source type once
    sets_.clear();
    for (size_t i = 0; i < tasks.size(); ++i) {
      const auto same = [&](const Set &s) { return tasks[s.first].x == tasks[i].x; };
      if (std::none_of(sets_.begin(), sets_.end(), same)) sets_.push_back({i, tasks[i].rows * tasks[i].cols});
    }
    std::stable_sort(sets_.begin(), sets_.end(),
                     [](const Set &x, const Set &y) { return x.elements > y.elements; });
    each(
        std::span<const Set>(sets_), [](const Set &s) { return s.elements >= kLargeTensor; },
        [&](const Set &s, int threads) {
          cpu::Workspace &mine = workspace();
          mine.rounded_from = nullptr;
          for (size_t i = s.first; i < tasks.size(); ++i)
            if (tasks[i].x == tasks[s.first].x) cpu::quantize(tasks[i], mine, threads);
          mine.rounded_from = nullptr;
        });
  }

  void patch(std::span<const PatchTask> tasks) override {
    each(
        tasks, [](const PatchTask &) { return false; },
        [this](const PatchTask &t, int) { cpu::patch(t, workspace()); });
  }

  void multiply(std::span<const GemmTask> tasks) override {
    pieces_.clear();
    for (const GemmTask &t : tasks) {
      const int64_t m = operand(t.a).packed.rows,
                    row = operand(t.b).packed.rows * operand(t.a).packed.padded_k;
      if (m * row >= kLargeProduct) {
        multiply_rows(t, 0, m, threads_, isa_);
        continue;
      }
      // a piece packs all of b anew, so products are cut only where the threads would not share them evenly
      const int64_t most = std::max<int64_t>(1, m * row / kPiece);
      const bool even = int64_t(tasks.size()) % threads_ == 0 || int64_t(tasks.size()) >= 4 * threads_;
      const int64_t count = even ? 1 : std::min<int64_t>(most, threads_);
      const int64_t rows = ((m + count - 1) / count + 31) / 32 * 32;
      for (int64_t first = 0; first < m; first += rows)
        pieces_.push_back({&t, first, std::min(rows, m - first), std::min(rows, m - first) * row});
    }
    std::stable_sort(pieces_.begin(), pieces_.end(),
                     [](const Piece &x, const Piece &y) { return x.work > y.work; });
    each(
        std::span<const Piece>(pieces_), [](const Piece &) { return false; },
        [this](const Piece &p, int) { multiply_rows(*p.task, p.first, p.rows, 1, isa_); });
  }

  float global_amax(const Operand &q) const override { return operand(&q).quantized.global_amax; }

  void column_errors(const Operand &q, FormatId source, const float *x, int64_t rows, int64_t cols, Axis axis,
                     float *means) override {
    const CpuOperand &o = static_cast<const CpuOperand &>(q);
    const int64_t lines = o.packed.rows, width = axis == Axis::row ? cols : rows;
    cpu::read_values(o, width, values_);
    const View<const float> original = view(source, x, rows, cols, axis);
    run(ColumnErrors<float>{lines, width, original, {values_.data(), width, 1}, means});
  }

  void column_maxima(FormatId source, const float *x, int64_t rows, int64_t cols, Axis axis,
                     float *maxima) override {
    const bool along = axis == Axis::row;
    run(ColumnMaxima<float>{along ? rows : cols, along ? cols : rows, view(source, x, rows, cols, axis),
                            maxima});
  }

private:
  /// Tasks that quantize one tensor, by the first of them.
  struct Set {
    size_t first;
    int64_t elements;
  };
  struct Piece {
    const GemmTask *task;
    int64_t first, rows, work;
  };

  cpu::Workspace &workspace() { return workspaces_[size_t(omp_get_thread_num())]; }

  /// x in the source type with an operand's rows as rows.
  View<const float> view(FormatId source, const float *x, int64_t rows, int64_t cols, Axis axis) {
    workspaces_[0].rounded_from = nullptr;
    const float *const data = cpu::rounded(source, x, rows * cols, workspaces_[0]);
    workspaces_[0].rounded_from = nullptr;
    return axis == Axis::row ? View<const float>{data, cols, 1} : View<const float>{data, 1, cols};
  }

  template <class Kernel> void run(const Kernel &kernel) const {
    const int64_t teams = kernel.teams();
#pragma omp parallel for num_threads(threads_)
    for (int64_t i = 0; i < teams; ++i) kernel(CpuTeam<Baseline, float>{}, i);
  }

  /// Large tasks one after the other on all threads, then the others side by side.
  template <class Task, class Large, class Run>
  void each(std::span<const Task> tasks, Large large, Run run_one) {
    int64_t small = 0;
    for (const Task &t : tasks) {
      if (!large(t))
        ++small;
      else
        run_one(t, threads_);
    }
    if (small == 0) return;
    const auto n = int64_t(tasks.size());
    const int threads = int(std::min<int64_t>(threads_, small));
    if (threads == 1) {
      for (const Task &t : tasks)
        if (!large(t)) run_one(t, 1);
      return;
    }
    std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t i = 0; i < n; ++i) {
      if (large(tasks[size_t(i)])) continue;
      try {
        run_one(tasks[size_t(i)], 1);
      } catch (...) {
#pragma omp critical(nvfp4_operand_engine)
        failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
  }

  int threads_;
  std::optional<Isa> isa_;
  std::vector<cpu::Workspace> workspaces_;
  std::vector<Set> sets_;
  std::vector<Piece> pieces_;
  std::vector<float> values_;
};

} // namespace

std::unique_ptr<OperandEngine> make_cpu_operand_engine(int threads, std::optional<Isa> isa) {
  return std::make_unique<CpuOperandEngine>(threads, isa);
}

} // namespace nvfp4::models
