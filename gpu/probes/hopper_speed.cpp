// SPDX-License-Identifier: Apache-2.0
// Speed of the exact Hopper GEMMs beside cuBLASLt's first heuristic choice, same operands, same run: median
// of five rounds of ten products each.
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/gpu/check/hopper.hpp"
#include "nvfp4/gpu/check/timing.hpp"
#include "nvfp4/gpu/hopper/gemm_bf16.hpp"
#include "nvfp4/gpu/hopper/gemm_fp8.hpp"
#include "nvfp4/gpu/probes/cublaslt.hpp"
#include "nvfp4/gpu/probes/cublaslt_run.hpp"

#include <random>

namespace nvfp4::probe {
namespace {

template <class F> double tflops(int64_t m, int64_t n, int64_t k, F &&product) {
  const double seconds = crosscheck::median_seconds(product, {.warm_up = 3, .rounds = 5, .each = 10});
  return 2.0 * double(m) * double(n) * double(k) / seconds * 1e-12;
}

std::vector<uint8_t> operand(FormatId f, int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> pool(1 << 16);
  for (uint16_t &x : pool) x = uint16_t(encode(f, normal(random)));
  const size_t width = f == FormatId::bf16 ? 2 : 1;
  std::vector<uint8_t> codes(size_t(count) * width);
  for (size_t i = 0; i < size_t(count); ++i)
    memcpy(codes.data() + i * width, &pool[(i * 0x9E3779B1u >> 7) & 0xFFFF], width);
  return codes;
}

void measure(FormatId f, int64_t m, int64_t n, int64_t k) {
  cuda::DeviceBuffer a, b, d(m * n * 4);
  a.upload(operand(f, m * k, 1));
  b.upload(operand(f, n * k, 2));
  const bool bf16 = f == FormatId::bf16;
  const auto ours = [&] {
    if (bf16)
      cuda::gemm_bf16(a.as<uint16_t>(), b.as<uint16_t>(), m, n, k, k, k, 1, nullptr, {}, d.as<float>(),
                      nullptr);
    else
      cuda::gemm_fp8(f, f, a.as<uint8_t>(), b.as<uint8_t>(), m, n, k, k, k, 1, nullptr, {}, d.as<float>(),
                     nullptr);
  };
  const auto by_mma = [&] {
    cuda::gemm_bf16_mma(a.as<uint16_t>(), b.as<uint16_t>(), m, n, k, k, k, 1, nullptr, {}, d.as<float>(),
                        nullptr);
  };
  Matmul library({bf16 ? CUDA_R_16BF : CUDA_R_8F_E4M3, true, m, n, k});
  const auto algos = library.heuristics();
  if (algos.empty()) throw Error("hopper_speed: cuBLASLt offers no algorithm");
  const auto theirs = [&] {
    if (!library.run(algos[0], a.as<void>(), b.as<void>(), d.as<float>()))
      throw Error("hopper_speed: cublasLtMatmul failed");
  };
  const double own = tflops(m, n, k, ours), library_speed = tflops(m, n, k, theirs);
  std::printf("%s %5lld x %5lld x %5lld wgmma %6.1f TFLOP/s cuBLASLt %6.1f ratio %.2f", format(f).name,
              (long long)m, (long long)n, (long long)k, own, library_speed, own / library_speed);
  if (bf16) {
    const double mma = tflops(m, n, k, by_mma);
    std::printf(" mma.sync %6.1f ratio %.2f", mma, mma / library_speed);
  }
  std::printf("\n");
  std::fflush(stdout);
}

} // namespace

void hopper_speed() {
  crosscheck::require_hopper();
  for (const FormatId f : {FormatId::bf16, FormatId::e4m3}) {
    measure(f, 8192, 8192, 8192);
    measure(f, 4096, 4096, 4096);
    measure(f, 2048, 2048, 2048);
    measure(f, 8192, 1024, 1024);
    measure(f, 1024, 1024, 8192);
  }
}

} // namespace nvfp4::probe
