// SPDX-License-Identifier: Apache-2.0
// What ran on the GPU between two moments, as CUPTI tells it. The library is looked for when asked: nothing
// links it.
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace nvfp4::crosscheck {

struct Activity {
  /// A kernel, a copy or a clear of memory, in ns, and the operation that gave it; "" where that is not
  /// known. `name` is a kernel's, without arguments, and stays until the next start.
  struct Span {
    uint64_t start, end;
    bool kernel;
    std::string_view operation, name;
  };
  bool known = false; ///< false: no libcupti, or one that another profiler has
  std::vector<Span> spans = {};

  [[nodiscard]] int64_t kernels() const;
  /// Sum of the kernels' times in seconds; those side by side count each.
  [[nodiscard]] double kernel_seconds() const;
  /// Seconds in which something ran that an operation gave that counts.
  [[nodiscard]] double busy(const std::function<bool(std::string_view)> &counts) const;
};

/// Starts to note; false where nobody can.
[[nodiscard]] bool start_activity();
/// The host has given an operation: what it has given since the last is this one's. `name` must live as long.
void end_operation(const char *name);
/// Waits for the GPU, and stops.
[[nodiscard]] Activity stop_activity();

} // namespace nvfp4::crosscheck
