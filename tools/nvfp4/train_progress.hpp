// SPDX-License-Identifier: Apache-2.0
// What a person sees of a training run.
#pragma once
#include "nvfp4/reference_models/train/trainer.hpp"
#include "tools/nvfp4/terminal.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <unistd.h>

namespace nvfp4::tool {

/// How a run goes: on a terminal a bar with the loss and the time left, elsewhere a line now and then.
class TrainProgress {
public:
  /// unit: of what a step reads.
  explicit TrainProgress(const char *unit = "tokens") : unit_(unit) {}
  void show(const models::StepReport &r) {
    if (first_ == 0) first_ = r.step;
    const auto done = double(r.step - first_ + 1), left = double(r.steps - r.step);
    if (!terminal_) return line_.show(done / (done + left));
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
    constexpr int kWidth = 24;
    fmt::print(stderr, "\r[{:<{}}] {}/{}  loss {:.4f}  {:.0f} {}/s{}\033[K",
               std::string(size_t(r.step * kWidth / r.steps), '='), kWidth, r.step, r.steps, r.loss,
               r.tokens_per_second, unit_,
               left > 0 ? "  " + duration_text(elapsed.count() / done * left) + " left" : "");
    std::fflush(stderr);
  }
  void done() {
    line_.done();
    if (terminal_) fmt::print(stderr, "\r\033[K");
  }

private:
  const char *unit_;
  bool terminal_ = isatty(STDERR_FILENO) != 0;
  Progress line_{"train"};
  int64_t first_ = 0; ///< step of this process
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

} // namespace nvfp4::tool
