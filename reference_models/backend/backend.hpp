// SPDX-License-Identifier: Apache-2.0
// Where a model runs: memory and kernels of one device. Models are written against this; the bits do not
// depend on which backend it is. T is float; double serves the gradient checks on the CPU.
#pragma once
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/reference_models/backend/bf16_mixers.hpp"
#include "nvfp4/reference_models/kernels/kernels.hpp"

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace nvfp4::models {

/// The device that was asked for is not there.
struct NoDevice : Error {
  using Error::Error;
};

template <class T> class Backend {
public:
  virtual ~Backend() = default;

  /// Zeroed memory of the device; Error when there is none left.
  [[nodiscard]] virtual void *allocate(size_t bytes) = 0;
  virtual void release(void *memory) noexcept = 0;
  virtual void upload(void *device, const void *host, size_t bytes) = 0;
  virtual void download(void *host, const void *device, size_t bytes) = 0;
  virtual void copy(void *to, const void *from, size_t bytes) = 0; ///< within the device
  virtual void zero(void *device, size_t bytes) = 0;
  /// Whether the host may read and write device memory directly.
  [[nodiscard]] virtual bool shares_memory() const = 0;

#define NVFP4_DECLARE(Kernel) virtual void run(const Kernel<T> &kernel) = 0;
  NVFP4_MODEL_KERNELS(NVFP4_DECLARE)
#undef NVFP4_DECLARE

  /// Mixers on tensor cores, FP32 models only. Error where this device has not the unit's bits.
  [[nodiscard]] virtual std::unique_ptr<Bf16Gla> make_bf16_gla(const bf16_gla::Shape &shape,
                                                               const Unit &unit) = 0;
  [[nodiscard]] virtual std::unique_ptr<Bf16Attention>
  make_bf16_attention(const tensorcore::AttentionShape &shape, const Unit &unit) = 0;
};

/// Device memory for n elements, freed with its owner.
template <class E> class Array {
public:
  Array() = default;
  template <class T> Array(Backend<T> &backend, int64_t n) { reset(backend, n); }
  template <class T> void reset(Backend<T> &backend, int64_t n) {
    memory_ = {static_cast<E *>(backend.allocate(size_t(n) * sizeof(E))),
               [&backend](E *p) { backend.release(p); }};
    size_ = n;
  }
  [[nodiscard]] E *data() const { return memory_.get(); }
  [[nodiscard]] int64_t size() const { return size_; }

private:
  std::shared_ptr<E> memory_;
  int64_t size_ = 0;
};

/// Copies a device array to the host.
template <class T, class E>
[[nodiscard]] std::vector<E> to_host(Backend<T> &backend, const E *data, int64_t n) {
  std::vector<E> out(static_cast<size_t>(n));
  backend.download(out.data(), data, out.size() * sizeof(E));
  return out;
}

/// The CPU; threads 0: all, isa: instead of the best that it has. Neither changes a bit.
[[nodiscard]] std::unique_ptr<Backend<float>> make_cpu_backend(int threads = 0, std::optional<Isa> isa = {});
/// Double precision on the CPU, for gradient checks; slow.
[[nodiscard]] std::unique_ptr<Backend<double>> make_double_backend(int threads = 0);

} // namespace nvfp4::models
