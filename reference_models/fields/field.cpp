// SPDX-License-Identifier: Apache-2.0
// Ranges and values in words.
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"

#include <cmath>

namespace nvfp4::models {
namespace {

/// Powers of two from 2^16 as such, so that they can be read.
std::string bound(double x) {
  int exponent = 0;
  if (x >= 65536 && std::frexp(x, &exponent) == 0.5) return "2^" + std::to_string(exponent - 1);
  const nlohmann::ordered_json whole = int64_t(x), real = x;
  return (double(int64_t(x)) == x ? whole : real).dump();
}

} // namespace

std::string Bounds::text() const {
  const bool below = std::isfinite(low), above_it = std::isfinite(high);
  if (!below && !above_it) return {};
  if (!above_it) return (open_low ? " above " : " of at least ") + bound(low);
  if (!below) return (open_high ? " below " : " of at most ") + bound(high);
  if (open_low && open_high) return " between " + bound(low) + " and " + bound(high);
  return " from " + bound(low) + (open_high ? " to below " : " to ") + bound(high);
}

std::string shown(const nlohmann::ordered_json &value) {
  return io::printable(value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace), 60);
}

} // namespace nvfp4::models
