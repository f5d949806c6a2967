// SPDX-License-Identifier: Apache-2.0
// What is asked of a Blackwell GPU in one call, and the same kernels with the instruction in software on
// others.
#include "nvfp4/gpu/capture/run_tiles.hpp"
#include "nvfp4/gpu/check/blackwell.hpp"
#include "nvfp4/reference_models/backend/backend.hpp"

namespace nvfp4::cuda::blackwell {

KernelId require_native_kernel() {
  const std::optional<KernelId> kernel = native_kernel();
  if (!kernel)
    throw models::NoDevice(
        std::string("no suitable device: needs compute capability 10.x, 11.0 or 12.x and a "
                    "build for its `a` architecture; this is ") +
        gpu::device_arch());
  return *kernel;
}

int64_t check_all(int64_t largest) {
  const KernelId kernel = require_native_kernel();
  int64_t wrong = check_directed(kernel, Engine::hardware);
  wrong += check_rbits();
  wrong += check_quantize();
  return wrong + check_gemm(kernel, Engine::hardware, largest);
}

int64_t simulate(int64_t largest) {
  (void)gpu::device_arch(); // NoDevice without one
  int64_t wrong = 0;
  for (const KernelId kernel : {KernelId::sm120, KernelId::sm100}) {
    wrong += check_gemm(kernel, Engine::simulated, largest);
    wrong += check_directed(kernel, Engine::simulated);
  }
  return wrong;
}

} // namespace nvfp4::cuda::blackwell
