// SPDX-License-Identifier: Apache-2.0
// Notes on the device whether the arrays it is shown are finite; the host asks once for all of them.
#pragma once
#include "nvfp4/reference_models/backend/backend.hpp"

#include <algorithm>

namespace nvfp4::models {

template <class T> class FiniteWatch {
public:
  explicit FiniteWatch(Backend<T> &backend) : backend_(&backend) {}

  /// x (n); it is looked at with the next flush(), and must be there until then.
  void add(const T *x, int64_t n) {
    if (kernel_.count == NotFiniteChunks<T>::kArrays) flush();
    kernel_.arrays[kernel_.count++] = {x, n};
  }
  void flush() {
    if (kernel_.count == 0) return;
    if (partial_.size() < kernel_.teams()) {
      before_ = before_ || sick();
      partial_.reset(*backend_, kernel_.teams());
    }
    kernel_.partial = partial_.data();
    backend_->run(kernel_);
    kernel_.count = 0;
  }
  /// Whether all were finite since the last call.
  [[nodiscard]] bool finite() {
    flush();
    const bool none = !before_ && !sick();
    before_ = false;
    if (!none && partial_.size() > 0)
      backend_->zero(partial_.data(), size_t(partial_.size()) * sizeof(uint64_t));
    return none;
  }

private:
  [[nodiscard]] bool sick() const {
    if (partial_.size() == 0) return false;
    const std::vector<uint64_t> parts = to_host(*backend_, partial_.data(), partial_.size());
    return std::any_of(parts.begin(), parts.end(), [](uint64_t part) { return part != 0; });
  }

  Backend<T> *backend_;
  NotFiniteChunks<T> kernel_{};
  Array<uint64_t> partial_;
  bool before_ = false; ///< something was not, in a call that had too few chunks
};

} // namespace nvfp4::models
