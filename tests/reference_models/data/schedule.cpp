// SPDX-License-Identifier: Apache-2.0
// Learning-rate schedules: their shape, their ends, the portable cosine against libm, and refusals.
#include "tests/golden/io/support.hpp"

#include "nvfp4/reference_models/train/schedule.hpp"

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {
constexpr double peak = 1e-3;
float rate(Schedule schedule, int64_t step, int64_t warmup = 100, int64_t steps = 1000,
           double final_fraction = 0.1) {
  return learning_rate(schedule, peak, final_fraction, warmup, steps, step);
}
constexpr Schedule all[] = {Schedule::cosine, Schedule::wsd, Schedule::constant};
} // namespace

TEST_CASE("the portable cosine is a cosine", "[data]") {
  double worst = 0;
  constexpr int points = 1 << 20;
  for (int i = 0; i <= points; ++i) {
    const double x = std::numbers::pi * (double(i) / points);
    worst = std::max(worst, std::abs(portable_cosine(x) - std::cos(x)));
  }
  INFO("largest difference " << worst);
  CHECK(worst <= 4e-16);
  CHECK(portable_cosine(0) == 1);
  CHECK(portable_cosine(std::numbers::pi) == -1);
  // Computed by a separate implementation in Python.
  CHECK(std::bit_cast<uint64_t>(portable_cosine(1.5625)) == 0x3f80fd9d5c093e00);
  CHECK(std::bit_cast<uint64_t>(portable_cosine(0.5)) == 0x3fec1528065b7d50);
  CHECK(std::bit_cast<uint64_t>(portable_cosine(2.5)) == 0xbfe9a2f7ef858b7e);
}

TEST_CASE("every schedule climbs a straight line first", "[data]") {
  for (const Schedule schedule : all) {
    CHECK(rate(schedule, 1) == float(peak * 0.01));
    CHECK(rate(schedule, 50) == float(peak * 0.5));
    CHECK(rate(schedule, 100) == float(peak));
    CHECK(rate(schedule, 25, -1) == float(peak * 0.5)); // 5 % of 1000 steps
    CHECK(rate(schedule, 50, -1) == float(peak));
    CHECK(rate(schedule, 500, 2000) == float(peak * 0.25)); // nothing but warm-up
    CHECK(rate(schedule, 1000, 1000) == float(peak));
  }
}

TEST_CASE("cosine: down half a wave", "[data]") {
  for (int64_t step = 101; step <= 1000; ++step) {
    const double exact = peak * (0.1 + 0.9 * (1 + std::cos(std::numbers::pi * double(step - 100) / 900)) / 2);
    const float found = rate(Schedule::cosine, step);
    CHECK(std::abs(double(found) - exact) <= exact * 6.1e-8); // half an ulp of FP32
    CHECK(found < rate(Schedule::cosine, step - 1));
  }
  CHECK(rate(Schedule::cosine, 550) == float(peak * 0.55));
  CHECK(rate(Schedule::cosine, 1000) == float(peak * 0.1));
  CHECK(rate(Schedule::cosine, 1000, 100, 1000, 0) == 0.0f);
  CHECK(rate(Schedule::cosine, 1000, 100, 1000, 1) == float(peak));
}

TEST_CASE("wsd: stable, then a straight line down over the last fifth", "[data]") {
  for (int64_t step = 100; step <= 800; ++step) CHECK(rate(Schedule::wsd, step) == float(peak));
  CHECK(rate(Schedule::wsd, 801) < float(peak));
  CHECK(rate(Schedule::wsd, 900) == float(peak * 0.55));
  CHECK(rate(Schedule::wsd, 1000) == float(peak * 0.1));
  CHECK(rate(Schedule::wsd, 950, 900) == float(peak * 0.55)); // the descent waits for the warm-up
  CHECK(rate(Schedule::wsd, 2, 0, 3) == float(peak));         // a descent of one step
  CHECK(rate(Schedule::wsd, 3, 0, 3) == float(peak * 0.1));
}

TEST_CASE("steps after the last keep its rate; constant stays", "[data]") {
  for (const Schedule schedule : all) {
    CHECK(rate(schedule, 1001) == rate(schedule, 1000));
    CHECK(rate(schedule, std::numeric_limits<int64_t>::max()) == rate(schedule, 1000));
    CHECK(rate(schedule, 1, 0, 1) == float(schedule == Schedule::constant ? peak : peak * 0.1));
  }
  CHECK(rate(Schedule::constant, 101) == float(peak));
  CHECK(rate(Schedule::constant, 1000) == float(peak));
}

TEST_CASE("bad schedules are refused with one line", "[data]") {
  CHECK(parse_enum<Schedule>("cosine") == Schedule::cosine);
  CHECK(parse_enum<Schedule>("wsd") == Schedule::wsd);
  CHECK(parse_enum<Schedule>("constant") == Schedule::constant);
  for (const char *name : {"", "Cosine", "linear"})
    io::check_message(io::error_of([&] { (void)parse_enum<Schedule>(name); }),
                      {"unknown schedule '" + std::string(name) + "'; choose cosine, wsd or constant"});
  const auto refusal = [](double p, double f, int64_t steps, int64_t step) {
    return io::error_of([&] { (void)learning_rate(Schedule::cosine, p, f, 0, steps, step); });
  };
  CHECK(refusal(0, 0, 1, 1) == "no error");
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  for (const double p : {-1e-9, nan, infinity, 1e39})
    io::check_message(refusal(p, 0.1, 10, 1), {"expected a finite learning rate of at least 0, got"});
  for (const double f : {-0.1, 1.1, nan})
    io::check_message(refusal(1, f, 10, 1),
                      {"expected a final learning rate of 0 to 1 times the highest, got"});
  io::check_message(refusal(1, 0.1, 0, 1), {"expected at least 1 training step, got 0"});
  io::check_message(refusal(1, 0.1, 10, 0), {"expected a step from 1 on, got 0"});
}
