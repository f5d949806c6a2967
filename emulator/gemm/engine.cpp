// SPDX-License-Identifier: Apache-2.0
// Cutting a product into tasks, and the definition of one output.
#include "nvfp4/emulator/gemm/engine.hpp"

#include "nvfp4/emulator/tensorcore/execute.hpp"

#include <algorithm>

namespace nvfp4::gemm {

std::vector<Task> cut(const Job &job, int64_t rows, int64_t cols, int64_t row_step) {
  const int64_t m = job.rows, n = job.cols;
  const int threads = job.threads;
  const auto up = [](int64_t x, int64_t to) { return (x + to - 1) / to; };
  const int64_t across = std::max<int64_t>(up(n, cols), 1);
  const int64_t wanted =
      across >= 4 * threads ? 1 : up(4 * threads, across); // a few tasks per thread even the load
  const int64_t even = up(up(m, wanted), row_step) * row_step;
  // not below 128 rows for balance alone: a task packs its columns anew
  rows = std::min(rows, threads == 1 ? rows : std::max<int64_t>(even, 128));
  std::vector<Task> tasks;
  for (int64_t j = 0; j < n; j += cols)
    for (int64_t i = 0; i < m; i += rows)
      tasks.push_back({job.first + i, std::min(rows, m - i), job.first_col + j, std::min(cols, n - j)});
  return tasks;
}

uint32_t reference_output(const Job &job, int64_t i, int64_t j) {
  const DotOperands op{job.a->row(i), job.b->row(j), job.a->row_scales(i), job.b->row_scales(j)};
  if (job.by_definition != nullptr) job.by_definition->fetch_add(1, std::memory_order_relaxed);
  return uint32_t(dot(*job.rule, op, job.a->padded_k, job.start_word(i, j), job.accumulation));
}

} // namespace nvfp4::gemm
