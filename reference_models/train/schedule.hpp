// SPDX-License-Identifier: Apache-2.0
// The learning rate as a function of the step. It decides bits of the run, so its cosine uses + - * / alone.
#pragma once
#include "nvfp4/emulator/names.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace nvfp4::models {

/// What follows the warm-up.
enum class Schedule {
  cosine, ///< half a cosine from the peak down to final_fraction of it at the last step
  wsd, ///< the peak, then a straight line to final_fraction of it over the last fifth of the steps (at least
       ///< 1)
  constant, ///< the peak
};
[[nodiscard]] constexpr auto names_of(Schedule) {
  return enum_names("schedule", "cosine", "wsd", "constant");
}
static_assert(names_of(Schedule{}).end_with(Schedule::constant));

/// The learning rate of step 1, 2, ..., `steps`; later steps get that of the last one. Steps 1 to `warmup`
/// climb a straight line to `peak`; a negative warmup means steps / 20. WSD's descent never starts before the
/// warm-up ends; a warm-up of `steps` or more leaves nothing else. An Error if steps or step is below 1, peak
/// is negative or not finite, or final_fraction is not in [0, 1].
[[nodiscard]] float learning_rate(Schedule schedule, double peak, double final_fraction, int64_t warmup,
                                  int64_t steps, int64_t step);

/// cos(x) for x in [0, pi], within 4e-16 (tested), in the four operations that every machine rounds alike.
[[nodiscard]] double portable_cosine(double x);

} // namespace nvfp4::models
