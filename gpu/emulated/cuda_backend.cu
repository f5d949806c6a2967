// SPDX-License-Identifier: Apache-2.0
// Memory and launches. One block a team; the kernels' text is reference_models/kernels.
#include "gpu/emulated/cuda_backend.hpp"
#include "gpu/emulated/cuda_team.cuh"

#include <algorithm>
#include <string>

namespace nvfp4::cuda {
namespace {

void check(cudaError_t status, const char *what) {
  if (status != cudaSuccess) throw Error(std::string("cuda: ") + what + ": " + cudaGetErrorString(status));
}

template <class K> __global__ void __launch_bounds__(kTeamThreads) run_teams(const K kernel, int64_t teams) {
  const CudaTeam<float> team;
  for (int64_t i = blockIdx.x; i < teams; i += gridDim.x) kernel(team, i);
}

class CudaBackend final : public models::Backend<float> {
public:
  void *allocate(size_t bytes) override {
    void *memory = nullptr;
    const size_t rounded = std::max<size_t>(bytes, 16);
    const cudaError_t status = cudaMalloc(&memory, rounded);
    if (status == cudaErrorMemoryAllocation)
      throw Error("out of device memory: expected room for " + std::to_string(bytes) +
                  " bytes; use a smaller model, batch or sequence");
    check(status, "cudaMalloc");
    check(cudaMemset(memory, 0, rounded), "cudaMemset");
    return memory;
  }
  void release(void *memory) noexcept override { cudaFree(memory); }
  void upload(void *device, const void *host, size_t bytes) override {
    check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "copy to the device");
  }
  void download(void *host, const void *device, size_t bytes) override {
    check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "copy to the host");
  }
  void copy(void *to, const void *from, size_t bytes) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice), "copy on the device");
  }
  void zero(void *device, size_t bytes) override { check(cudaMemsetAsync(device, 0, bytes), "clear memory"); }
  bool shares_memory() const override { return false; }

#define NVFP4_DEFINE(Kernel)                                                                                 \
  void run(const models::Kernel<float> &kernel) override { launch(kernel); }
  NVFP4_MODEL_KERNELS(NVFP4_DEFINE)
#undef NVFP4_DEFINE

private:
  template <class K> void launch(const K &kernel) const {
    const int64_t teams = kernel.teams();
    if (teams <= 0) return;
    run_teams<<<unsigned(std::min<int64_t>(teams, int64_t{1} << 30)), kTeamThreads>>>(kernel, teams);
    check(cudaGetLastError(), "launch");
  }
};

} // namespace

std::unique_ptr<models::Backend<float>> make_cuda_backend() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
    throw models::NoDevice(
        "no CUDA device: expected a GPU of compute capability 8.0 or later; use --device cpu");
  cudaDeviceProp device{};
  check(cudaGetDeviceProperties(&device, 0), "device properties");
  if (device.major < 8)
    throw models::NoDevice(std::string(device.name) + " has compute capability " +
                           std::to_string(device.major) + "." + std::to_string(device.minor) +
                           ": expected 8.0 or later; use --device cpu");
  return std::make_unique<CudaBackend>();
}

} // namespace nvfp4::cuda
