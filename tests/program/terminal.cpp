// SPDX-License-Identifier: Apache-2.0
// When progress is shown, and how long the rest takes.
#include "tests/catch.hpp"
#include "tools/nvfp4/terminal.hpp"

#include <algorithm>

namespace nvfp4::tool {
namespace {

TEST_CASE("durations") {
  CHECK(duration_text(0.2) == "1 s");
  CHECK(duration_text(59) == "59 s");
  CHECK(duration_text(60) == "1 min");
  CHECK(duration_text(200) == "3 min 20 s");
  CHECK(duration_text(3600) == "1 h");
  CHECK(duration_text(7500) == "2 h 5 min");
  CHECK(duration_text(3e6) == "34 days");
}

TEST_CASE("a terminal is drawn after two seconds and four times a second") {
  ProgressPace pace("gemm", true);
  CHECK(!pace.at(1.9, 0.1));
  CHECK(pace.at(2.0, 0.25) == "gemm: 25 %, about 6 s left");
  CHECK(!pace.at(2.2, 0.3));
  CHECK(pace.at(2.25, 0.5) == "gemm: 50 %, about 3 s left");
  CHECK(!pace.at(30, 1.0));
}

TEST_CASE("elsewhere a line comes less and less often, at least every minute") {
  ProgressPace pace("check", false);
  int lines = 0;
  double last = 0, longest = 0;
  for (double t = 0; t < 600; t += 0.5)
    if (pace.at(t, t / 1000)) {
      ++lines;
      longest = std::max(longest, t - last);
      last = t;
    }
  CHECK(lines == 14); // 2, 4, 8, 16, 32, 64, then each minute
  CHECK(longest == 60);
  CHECK(pace.at(700, 0) == "check: 0 %"); // nothing is known yet of what is left
}

} // namespace
} // namespace nvfp4::tool
