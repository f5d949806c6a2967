// SPDX-License-Identifier: Apache-2.0
// Learning-rate schedules in FP64, rounded to FP32 at the end.
#include "nvfp4/reference_models/train/schedule.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <limits>
#include <numbers>
#include <string>

namespace nvfp4::models {
namespace {

std::string text(double x) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", x);
  return buffer;
}

/// Part of the way from `from` to `to` that `step` has gone, at most 1.
double progress(int64_t from, int64_t to, int64_t step) {
  return step >= to ? 1.0 : double(step - from) / double(to - from);
}

} // namespace

float learning_rate(Schedule schedule, double peak, double final_fraction, int64_t warmup, int64_t steps,
                    int64_t step) {
  if (steps < 1) throw Error("expected at least 1 training step, got " + std::to_string(steps));
  if (step < 1) throw Error("expected a step from 1 on, got " + std::to_string(step));
  if (!(peak >= 0 && peak <= double(std::numeric_limits<float>::max())))
    throw Error("expected a finite learning rate of at least 0, got " + text(peak));
  if (!(final_fraction >= 0 && final_fraction <= 1))
    throw Error("expected a final learning rate of 0 to 1 times the highest, got " + text(final_fraction));

  if (warmup < 0) warmup = steps / 20;
  step = std::min(step, steps);
  if (step <= warmup) return float(peak * (double(step) / double(warmup)));
  double left = 1; // of the way from the final rate to the peak
  if (schedule == Schedule::cosine)
    left = (1 + portable_cosine(std::numbers::pi * progress(warmup, steps, step))) / 2;
  if (schedule == Schedule::wsd) {
    const int64_t start = std::max(warmup, steps - std::max<int64_t>(steps / 5, 1));
    if (step > start) left = 1 - progress(start, steps, step);
  }
  return float(peak * (final_fraction + (1 - final_fraction) * left));
}

double portable_cosine(double x) {
  assert(x >= 0 && x <= std::numbers::pi);
  if (x > std::numbers::pi / 2) return -portable_cosine(std::numbers::pi - x);
  // Taylor's series up to x^20 / 20!; the next term is below 2e-17 at pi / 2. Innermost bracket first.
  const double square = x * x;
  double sum = 1;
  for (int k = 20; k >= 2; k -= 2) sum = 1 - square / double(k * (k - 1)) * sum;
  return sum;
}

} // namespace nvfp4::models
