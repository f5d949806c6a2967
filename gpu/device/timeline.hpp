// SPDX-License-Identifier: Apache-2.0
// Where a stream's time goes, by name: an event after each operation. The work of a stream is in order, so an
// operation lasts from the event before it to its own; waits for the host count with what follows them.
#pragma once
#include "nvfp4/gpu/device/device.hpp"

#include <map>
#include <string>

namespace nvfp4::cuda {

class Timeline {
public:
  struct Entry {
    double milliseconds = 0;
    int64_t count = 0;
  };

  Timeline() = default;
  Timeline(const Timeline &) = delete;
  Timeline &operator=(const Timeline &) = delete;
  ~Timeline() {
    for (const cudaEvent_t e : events_) cudaEventDestroy(e);
  }
  /// Starts anew; what lies in the stream so far is not counted.
  void start() {
    names_.clear();
    mark("");
  }
  /// Whether marks count; they do at first. Each costs the host an event.
  void listen(bool on) { listens_ = on; }
  /// Called with the name of each operation when the host has given it; null: nobody.
  void observe(void (*observer)(const char *)) { observer_ = observer; }
  /// The operation that ends here, on the default stream. `name` must live as long.
  void mark(const char *name) {
    if (observer_ != nullptr) observer_(name);
    if (!listens_) return;
    if (names_.size() == events_.size()) {
      events_.emplace_back();
      check(cudaEventCreate(&events_.back()), "cudaEventCreate");
    }
    check(cudaEventRecord(events_[names_.size()], nullptr), "cudaEventRecord");
    names_.push_back(name);
  }
  /// Waits for the device. By name, since start().
  [[nodiscard]] std::map<std::string, Entry> read() const {
    std::map<std::string, Entry> out;
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    for (size_t i = 1; i < names_.size(); ++i) {
      float ms = 0;
      check(cudaEventElapsedTime(&ms, events_[i - 1], events_[i]), "cudaEventElapsedTime");
      Entry &e = out[names_[i]];
      e.milliseconds += double(ms);
      ++e.count;
    }
    return out;
  }

private:
  std::vector<cudaEvent_t> events_;
  std::vector<const char *> names_;
  bool listens_ = true;
  void (*observer_)(const char *) = nullptr;
};

} // namespace nvfp4::cuda
