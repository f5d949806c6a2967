// SPDX-License-Identifier: Apache-2.0
// Memory and launches of the models' kernels, whose text is reference_models/kernels.
#include "nvfp4/gpu/models/backend.hpp"
#include "nvfp4/gpu/models/finite.hpp"
#include "nvfp4/gpu/models/mixers.hpp"
#include "nvfp4/gpu/models/team.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

class CudaBackend final : public models::Backend<float> {
public:
  explicit CudaBackend(Timeline *timeline) : timeline_(timeline), device_(device_shape()) {}

  void *allocate(size_t bytes) override {
    void *memory = nullptr;
    const size_t rounded = std::max<size_t>(bytes, 16);
    const cudaError_t status = cudaMalloc(&memory, rounded);
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError()); // not to be found by a later launch
      throw Error("out of device memory: expected room for " + std::to_string(bytes) +
                  " bytes; use a smaller model, batch or sequence");
    }
    check(status, "cudaMalloc");
    check(cudaMemset(memory, 0, rounded), "cudaMemset");
    return memory;
  }
  void release(void *memory) noexcept override { cudaFree(memory); }
  void upload(void *device, const void *host, size_t bytes) override {
    check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "copy to the device");
    mark("copies");
  }
  void download(void *host, const void *device, size_t bytes) override {
    check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "copy to the host");
    mark("copies");
  }
  void copy(void *to, const void *from, size_t bytes) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice), "copy on the device");
    mark("copies");
  }
  void zero(void *device, size_t bytes) override {
    check(cudaMemsetAsync(device, 0, bytes), "clear memory");
    mark("copies");
  }
  bool shares_memory() const override { return false; }

#define NVFP4_DEFINE(Kernel)                                                                                 \
  void run(const models::Kernel<float> &kernel) override { launch(kernel, #Kernel); }
  NVFP4_MODEL_KERNELS(NVFP4_DEFINE)
#undef NVFP4_DEFINE

  std::unique_ptr<models::Bf16Gla> make_bf16_gla(const models::bf16_gla::Shape &shape,
                                                 const Unit &unit) override {
    return make_cuda_bf16_gla(*this, shape, unit, timeline_);
  }
  std::unique_ptr<models::Bf16Attention> make_bf16_attention(const models::tensorcore::AttentionShape &shape,
                                                             const Unit &unit) override {
    return make_cuda_bf16_attention(*this, shape, unit, timeline_);
  }

private:
  template <class K> void launch(const K &kernel, const char *name) {
    launch_teams(device_, kernel, name, &scratch_);
    mark(name);
  }
  void launch(const models::NotFiniteChunks<float> &kernel, const char *name) {
    find_not_finite(kernel);
    mark(name);
  }
  void mark(const char *name) const {
    if (timeline_ != nullptr) timeline_->mark(name);
  }

  Timeline *timeline_;
  DeviceShape device_;
  DeviceBuffer scratch_;
};

} // namespace

void require_device() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
    throw models::NoDevice(
        "no CUDA device: expected a GPU of compute capability 8.0 or newer; use --device cpu");
  cudaDeviceProp device{};
  check(cudaGetDeviceProperties(&device, 0), "device properties");
  if (device.major < 8)
    throw models::NoDevice(std::string(device.name) + " has compute capability " +
                           std::to_string(device.major) + "." + std::to_string(device.minor) +
                           ": expected 8.0 or newer; use --device cpu");
}

std::unique_ptr<models::Backend<float>> make_cuda_backend(Timeline *timeline) {
  require_device();
  return std::make_unique<CudaBackend>(timeline);
}

} // namespace nvfp4::cuda
