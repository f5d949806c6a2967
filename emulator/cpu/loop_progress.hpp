// SPDX-License-Identifier: Apache-2.0
// Progress of a parallel loop, told to a caller's function that may end the work by throwing. Internal.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>

namespace nvfp4 {

/// Counts finished pieces of work and reports from the team's first thread how far the loop came, as a
/// fraction between `from` and `to`, at most about a thousand times. What the report throws stops the work:
/// the pieces that are left are to be passed over, and finish(), behind the parallel region, throws it.
class LoopProgress {
public:
  /// `report` may be null or empty.
  LoopProgress(const std::function<void(double)> *report, int64_t total, double from = 0.0, double to = 1.0)
      : report_(report != nullptr && *report ? report : nullptr), total_(total), step_(total / 1000),
        from_(from), to_(to) {}

  void finished(int thread) {
    if (report_ == nullptr) return;
    const int64_t n = done_.fetch_add(1, std::memory_order_relaxed) + 1;
    if (thread != 0 || (n < next_ && n != total_)) return;
    next_ = n + step_;
    try {
      (*report_)(from_ + (to_ - from_) * double(n) / double(total_));
    } catch (...) {
      error_ = std::current_exception();
      stopped_.store(true, std::memory_order_relaxed);
    }
  }
  [[nodiscard]] bool stopped() const { return stopped_.load(std::memory_order_relaxed); }
  void finish() const {
    if (error_) std::rethrow_exception(error_);
  }

private:
  const std::function<void(double)> *report_;
  int64_t total_, step_, next_ = 0; // next_ is the first thread's
  double from_, to_;
  std::atomic<int64_t> done_{0};
  std::atomic<bool> stopped_{false};
  std::exception_ptr error_;
};

} // namespace nvfp4
