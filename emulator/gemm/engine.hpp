// SPDX-License-Identifier: Apache-2.0
// What the GEMM engines share: the job, where finished outputs go, and the entry of each engine. Internal.
#pragma once
#include "nvfp4/emulator/cpu/float_state.hpp"
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/cpu/loop_progress.hpp"
#include "nvfp4/emulator/gemm/gemm.hpp"

#include <atomic>
#include <memory>
#include <omp.h>
#include <string>

namespace nvfp4::gemm {

using Sink = AccumulatorSink;

/// "[2, 3]", for messages.
[[nodiscard]] inline std::string shape_text(int64_t rows, int64_t cols) {
  return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

/// One product: D(i, j) = the chain of instructions over a's row i and b's row j, for `rows` rows of a from
/// `first` on and `cols` rows of b from `first_col` on.
struct Job {
  const UnitRule *rule;
  Accumulation accumulation;
  const GemmOperand *a, *b;
  int threads;
  const std::function<void(double)> *progress; ///< may be null; called from one thread
  int64_t first, rows;
  int64_t first_col, cols;
  CodeView start = {};                           ///< (rows of a, cols) accumulator words, or no data: from +0
  std::atomic<int64_t> *by_definition = nullptr; ///< counts reference_output() where given

  /// The word that output (i, j)'s chain continues.
  [[nodiscard]] uint64_t start_word(int64_t i, int64_t j) const {
    return start.data == nullptr ? 0 : start[i * cols + j - first_col];
  }
};

/// Memory that is not cleared; what it held is lost when it grows.
template <class T> class Buffer {
public:
  T *reserve(size_t n) {
    if (n > size_) memory_ = std::make_unique_for_overwrite<T[]>(size_ = n);
    return memory_.get();
  }
  [[nodiscard]] T *data() const { return memory_.get(); }

private:
  std::unique_ptr<T[]> memory_;
  size_t size_ = 0;
};

/// A rectangle of outputs for one thread.
struct Task {
  int64_t row, rows, col, cols;
};

/// Cuts a job's outputs into rectangles of at most rows x cols; with few rectangles, rows are cut further so
/// that its threads have work. Row cuts fall on multiples of `row_step`.
[[nodiscard]] std::vector<Task> cut(const Job &job, int64_t rows, int64_t cols, int64_t row_step);
/// Those of run_fdpa(): 256 columns wide, or 128 where the job would have fewer tasks than threads.
[[nodiscard]] std::vector<Task> fdpa_tasks(const Job &job, int64_t row_step);

/// The definition: dot() of one output. For what the vector kernels cannot prove.
[[nodiscard]] uint32_t reference_output(const Job &job, int64_t i, int64_t j);

/// FP4 units (gst_fdpa); false when the unit, the instruction set or a start is not covered: the kernels
/// start at +0.
[[nodiscard]] bool run_fp4(const Job &job, Isa isa, Sink sink);

/// Units with FP32 words as accumulator and F at most 25 (fdpa, st_fdpa); false when not covered.
[[nodiscard]] bool run_fdpa(const Job &job, Isa isa, Sink sink);

/// Exact units of 4-bit elements under UE4M3 scales; false when not covered.
[[nodiscard]] bool run_exact(const Job &job, Sink sink);

/// Runs all tasks on job.threads threads. Each thread has its own Block(job, kernels, sink) and float state.
template <class Block, class Kernels>
void run_tasks(const Job &job, const Kernels &kernels, const Sink &sink, const std::vector<Task> &tasks) {
  LoopProgress progress(job.progress, int64_t(tasks.size()));
#pragma omp parallel num_threads(job.threads)
  {
    const FloatState state;
    Block block(job, kernels, sink);
#pragma omp for schedule(dynamic, 1)
    for (size_t t = 0; t < tasks.size(); ++t) {
      if (progress.stopped()) continue;
      block.run(tasks[t]);
      progress.finished(omp_get_thread_num());
    }
  }
  progress.finish();
}

} // namespace nvfp4::gemm
