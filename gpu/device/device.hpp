// SPDX-License-Identifier: Apache-2.0
// Device memory and streams that free themselves, and CUDA status codes as nvfp4::Error.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace nvfp4::cuda {

/// Throws Error naming the call that failed.
inline void check(cudaError_t status, const char *what) {
  if (status == cudaSuccess) return;
  throw Error(std::string("CUDA: ") + what + ": " + cudaGetErrorName(status) + ": " +
              cudaGetErrorString(status));
}

/// After a kernel launch.
inline void check_launch(const char *kernel) { check(cudaGetLastError(), kernel); }

/// Device memory. Grows on demand and never shrinks, so that a buffer that lives over many calls is allocated
/// once. reserve() loses the contents when it grows. One that borrows another's memory cannot grow.
class DeviceBuffer {
public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(int64_t bytes) { reserve(bytes); }
  ~DeviceBuffer() {
    if (!borrowed_) cudaFree(data_);
  }
  DeviceBuffer(const DeviceBuffer &) = delete;
  DeviceBuffer &operator=(const DeviceBuffer &) = delete;
  DeviceBuffer(DeviceBuffer &&o) noexcept
      : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)),
        borrowed_(std::exchange(o.borrowed_, false)) {}
  DeviceBuffer &operator=(DeviceBuffer &&o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    std::swap(borrowed_, o.borrowed_);
    return *this;
  }

  void reserve(int64_t bytes) {
    if (bytes <= size_) return;
    if (borrowed_)
      throw Error("CUDA: " + std::to_string(bytes) + " bytes do not fit the " + std::to_string(size_) +
                  " that were given");
    check(cudaFree(data_), "cudaFree");
    data_ = nullptr;
    size_ = 0;
    check(cudaMalloc(&data_, size_t(bytes)), "cudaMalloc");
    size_ = bytes;
  }
  /// Memory that somebody else keeps, in place of what the buffer had.
  void borrow(void *data, int64_t bytes) {
    if (!borrowed_) check(cudaFree(data_), "cudaFree");
    data_ = data;
    size_ = bytes;
    borrowed_ = true;
  }
  [[nodiscard]] int64_t size() const { return size_; }
  template <class T> [[nodiscard]] T *as() const { return static_cast<T *>(data_); }

  /// Grows to hold the values and copies them in.
  template <class T> void upload(const std::vector<T> &from, cudaStream_t stream = nullptr) {
    const int64_t bytes = int64_t(from.size() * sizeof(T));
    reserve(bytes);
    if (bytes > 0)
      check(cudaMemcpyAsync(data_, from.data(), size_t(bytes), cudaMemcpyHostToDevice, stream),
            "copy to device");
  }
  /// Copies `count` values out and waits for them.
  template <class T>
  [[nodiscard]] std::vector<T> download(int64_t count, cudaStream_t stream = nullptr) const {
    std::vector<T> to(static_cast<size_t>(count));
    if (count > 0)
      check(cudaMemcpyAsync(to.data(), data_, to.size() * sizeof(T), cudaMemcpyDeviceToHost, stream),
            "copy from device");
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    return to;
  }

private:
  void *data_ = nullptr;
  int64_t size_ = 0;
  bool borrowed_ = false;
};

/// Memory that is free again for later work of the stream once its owner is gone; nothing waits. It comes
/// from a pool of the library's own, which keeps what it has: the driver's default pool gives memory back at
/// every synchronisation and maps it anew afterwards.
class StreamBuffer {
public:
  StreamBuffer(int64_t bytes, cudaStream_t stream) : stream_(stream) {
    if (bytes > 0)
      check(cudaMallocFromPoolAsync(&data_, size_t(bytes), pool(), stream), "cudaMallocFromPoolAsync");
  }
  ~StreamBuffer() {
    if (data_ != nullptr) cudaFreeAsync(data_, stream_);
  }
  StreamBuffer(const StreamBuffer &) = delete;
  StreamBuffer &operator=(const StreamBuffer &) = delete;
  template <class T> [[nodiscard]] T *as() const { return static_cast<T *>(data_); }

private:
  /// Of the current device, made at its first use.
  static cudaMemPool_t pool() {
    static std::mutex mutex;
    static std::map<int, cudaMemPool_t> pools;
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    const std::lock_guard lock(mutex);
    cudaMemPool_t &found = pools[device];
    if (found != nullptr) return found;
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location = {cudaMemLocationTypeDevice, device};
    check(cudaMemPoolCreate(&found, &properties), "cudaMemPoolCreate");
    uint64_t keep = UINT64_MAX;
    check(cudaMemPoolSetAttribute(found, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
    return found;
  }

  void *data_ = nullptr;
  cudaStream_t stream_;
};

/// A stream that is destroyed with its owner.
class Stream {
public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream &) = delete;
  Stream &operator=(const Stream &) = delete;
  [[nodiscard]] cudaStream_t get() const { return stream_; }
  void wait() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

private:
  cudaStream_t stream_ = nullptr;
};

/// Blocks of `size` that cover n.
[[nodiscard]] inline unsigned blocks_for(int64_t n, int64_t size) { return unsigned((n + size - 1) / size); }

} // namespace nvfp4::cuda
