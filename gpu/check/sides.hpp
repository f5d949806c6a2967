// SPDX-License-Identifier: Apache-2.0
// The same work on the CPU and on the GPU: a side hands out random inputs, the same on both, and keeps what
// is written to compare it.
#pragma once
#include "nvfp4/gpu/check/check.hpp"
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/linear/operand_engine.hpp"

#include <functional>

namespace nvfp4::crosscheck {

class Side {
public:
  /// One written array, in host memory, named after the launch that it was made for.
  struct Written {
    std::string name;
    std::vector<uint8_t> bytes, before; ///< before: of floats; what stood there
    size_t width;
  };

  Side(models::Backend<float> &backend, models::OperandEngine &engine, uint64_t seed)
      : backend_(backend), engine_(engine), random_{seed} {}

  float *in(int64_t n, float spread = 1.0f) {
    return fill(n, [=](Random &r) { return r.normal() * spread; });
  }
  float *positive(int64_t n) {
    return fill(n, [](Random &r) { return float(r.below(1 << 20)) * 0x1p-19f; });
  }
  /// One in sixteen is NaN or infinite.
  float *special(int64_t n) {
    return fill(n, [](Random &r) {
      const float x = r.normal();
      return r.below(16) > 0 ? x : x / 0.0f * (r.below(2) == 0 ? 1.0f : 0.0f);
    });
  }
  /// Logs of decays: mostly near 0, some far below.
  float *gates(int64_t n) {
    return fill(n, [](Random &r) {
      const float x = r.normal();
      return -x * x * (r.below(8) == 0 ? 4.0f : 0.05f);
    });
  }
  std::vector<int32_t> integers(int64_t n, int below) {
    std::vector<int32_t> v(static_cast<size_t>(n));
    for (int32_t &x : v) x = random_.below(below);
    return v;
  }
  int32_t *put(const std::vector<int32_t> &values) {
    auto *const data = static_cast<int32_t *>(memory(int64_t(values.size()) * 4));
    if (!values.empty()) backend_.upload(data, values.data(), values.size() * 4);
    return data;
  }
  float *scratch(int64_t n) { return static_cast<float *>(memory(n * 4)); }
  /// Compared at the end. Floats start with values, since kernels may add to them.
  template <class E = float> E *out(int64_t n) {
    E *data;
    if constexpr (std::is_same_v<E, float>)
      data = in(n);
    else
      data = static_cast<E *>(memory(n * int64_t(sizeof(E))));
    outputs_.push_back({data, n * int64_t(sizeof(E)), sizeof(E) % 8 == 0 ? size_t{8} : size_t{4}, launches_.size(), {}});
    if constexpr (std::is_same_v<E, float>) outputs_.back().before = downloaded(data, n * 4);
    return data;
  }
  template <class K> void run(const K &kernel) {
    backend_.run(kernel);
    launches_.push_back(name_of(kernel));
  }
  [[nodiscard]] models::Backend<float> &backend() { return backend_; }
  [[nodiscard]] models::OperandEngine &engine() { return engine_; }

  [[nodiscard]] std::vector<Written> written() {
    std::vector<Written> all;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const Output &o = outputs_[i];
      const char *const kernel = o.launch < launches_.size() ? launches_[o.launch] : "none";
      all.push_back({"launch " + std::to_string(o.launch + 1) + " (" + kernel + "), array " + std::to_string(i + 1),
                     downloaded(o.data, o.bytes), o.before, o.width});
    }
    return all;
  }

private:
  struct Output {
    const void *data;
    int64_t bytes;
    size_t width, launch;
    std::vector<uint8_t> before;
  };

#define NVFP4_NAME(Kernel)                                                                                   \
  static const char *name_of(const models::Kernel<float> &) { return #Kernel; }
  NVFP4_MODEL_KERNELS(NVFP4_NAME)
#undef NVFP4_NAME

  [[nodiscard]] std::vector<uint8_t> downloaded(const void *data, int64_t bytes) {
    std::vector<uint8_t> to(static_cast<size_t>(bytes));
    if (bytes > 0) backend_.download(to.data(), data, to.size());
    return to;
  }
  void *memory(int64_t bytes) {
    models::Array<uint8_t> a(backend_, bytes);
    arrays_.push_back(a);
    return a.data();
  }
  template <class F> float *fill(int64_t n, F value) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float &x : v) x = value(random_);
    auto *const data = static_cast<float *>(memory(n * 4));
    if (n > 0) backend_.upload(data, v.data(), v.size() * 4);
    return data;
  }

  models::Backend<float> &backend_;
  models::OperandEngine &engine_;
  Random random_;
  std::vector<models::Array<uint8_t>> arrays_;
  std::vector<Output> outputs_;
  std::vector<const char *> launches_; ///< names of kernels
};

/// Runs the work on both and compares every written word.
[[nodiscard]] Tally both_sides(const std::function<void(Side &)> &work, uint64_t seed);

} // namespace nvfp4::crosscheck
