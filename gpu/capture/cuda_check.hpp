// SPDX-License-Identifier: Apache-2.0
// CUDA status codes as exceptions, and a device buffer that frees itself.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace nvfp4::gpu {

struct NoDevice : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void cuda_check(cudaError_t status, const char *what) {
  if (status == cudaSuccess) return;
  throw CudaError(std::string(what) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

class DeviceBuffer {
public:
  explicit DeviceBuffer(int64_t bytes) {
    if (bytes > 0) cuda_check(cudaMalloc(&data_, size_t(bytes)), "cudaMalloc");
  }
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(const DeviceBuffer &) = delete;
  DeviceBuffer &operator=(const DeviceBuffer &) = delete;
  [[nodiscard]] void *data() const { return data_; }
  void upload(const void *from, int64_t bytes) const {
    if (bytes > 0)
      cuda_check(cudaMemcpy(data_, from, size_t(bytes), cudaMemcpyHostToDevice), "copy to device");
  }
  void download(void *to, int64_t bytes) const {
    if (bytes > 0)
      cuda_check(cudaMemcpy(to, data_, size_t(bytes), cudaMemcpyDeviceToHost), "copy from device");
  }

private:
  void *data_ = nullptr;
};

} // namespace nvfp4::gpu
