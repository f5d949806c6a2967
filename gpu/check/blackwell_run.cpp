// SPDX-License-Identifier: Apache-2.0
// nvfp4-blackwell: compares the Blackwell kernels with the emulator, asks the open questions, and records
// golden files. On other GPUs `simulate` runs the same kernels with the instruction in software. Exit codes:
// 0 equal, 1 mismatch, 2 bad call, 3 no suitable device.
#include "nvfp4/gpu/check/blackwell.hpp"
#include "nvfp4/gpu/capture/cuda_check.hpp"
#include "nvfp4/golden/cases/mma_kinds.hpp"

#include <charconv>
#include <cstdio>
#include <string_view>

namespace {

using namespace nvfp4;
using namespace nvfp4::cuda::blackwell;

constexpr const char *kUsage =
    "usage: nvfp4-blackwell [check [LARGEST] | directed | rbits | capture DIRECTORY | "
    "simulate [LARGEST]]\n";

int simulate(int64_t largest) {
  int64_t wrong = 0;
  for (const KernelId kernel : {KernelId::sm120, KernelId::sm100}) {
    wrong += check_gemm(kernel, Engine::simulated, largest);
    wrong += check_directed(kernel, Engine::simulated);
  }
  return wrong == 0 ? 0 : 1;
}

int run(std::string_view mode, std::string_view directory, int64_t largest) {
  if (mode == "simulate") {
    (void)gpu::device_arch(); // NoDevice without one
    return simulate(largest);
  }
  const std::optional<KernelId> kernel = native_kernel();
  if (!kernel) {
    std::fprintf(
        stderr,
        "nvfp4-blackwell: no suitable device: needs compute capability 10.x, 11.0 or 12.x and a build "
        "for its `a` architecture; this is %s\n",
        gpu::device_arch());
    return 3;
  }
  if (mode == "capture") return capture_golden(*kernel, std::string(directory));
  if (mode == "rbits") return check_rbits() == 0 ? 0 : 1;
  if (mode == "directed") return check_directed(*kernel, Engine::hardware) == 0 ? 0 : 1;
  int64_t wrong = check_directed(*kernel, Engine::hardware);
  wrong += check_rbits();
  wrong += check_quantize();
  wrong += check_gemm(*kernel, Engine::hardware, largest);
  std::printf("total mismatches: %lld\n", (long long)wrong);
  return wrong == 0 ? 0 : 1;
}

} // namespace

int main(int argc, char **argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "check", argument = argc > 2 ? argv[2] : "";
  const bool known =
      mode == "check" || mode == "directed" || mode == "rbits" || mode == "capture" || mode == "simulate";
  const bool sized = mode == "check" || mode == "simulate";
  int64_t largest = mode == "simulate" ? 512 : 4096;
  bool good =
      known && argc <= (sized || mode == "capture" ? 3 : 2) && (mode != "capture" || !argument.empty());
  if (good && sized && argc == 3) {
    const auto [end, error] = std::from_chars(argument.data(), argument.data() + argument.size(), largest);
    good = error == std::errc{} && end == argument.data() + argument.size() && largest > 0;
  }
  if (!good) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  try {
    return run(mode, argument, largest);
  } catch (const gpu::NoDevice &error) {
    std::fprintf(stderr, "nvfp4-blackwell: no suitable device: %s\n", error.what());
    return 3;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "nvfp4-blackwell: %s\n", error.what());
    return 1;
  }
}
