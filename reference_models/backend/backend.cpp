// SPDX-License-Identifier: Apache-2.0
// Chooses the CPU backend and holds what all of them share.
#include "nvfp4/emulator/cpu/choose_isa.hpp"
#include "nvfp4/reference_models/backend/cpu_backend.hpp"
#include "nvfp4/reference_models/backend/cpu_backends.hpp"

#include <algorithm>
#include <omp.h>

namespace nvfp4::models {
namespace {

int thread_count(int threads) {
  constexpr int kMost = 1024;
  if (threads < 0 || threads > kMost)
    throw Error("expected --threads of 0 (all) to " + std::to_string(kMost) + ", got " +
                std::to_string(threads));
  return threads > 0 ? threads : std::clamp(omp_get_max_threads(), 1, kMost);
}

} // namespace

void *allocate_host(size_t bytes) {
  const size_t rounded = (std::max<size_t>(bytes, 1) + 63) / 64 * 64;
  void *memory = std::aligned_alloc(64, rounded);
  if (memory == nullptr)
    throw Error("out of memory: expected room for " + std::to_string(bytes) +
                " bytes; use a smaller model, batch or sequence");
  std::memset(memory, 0, rounded);
  return memory;
}

void release_host(void *memory) noexcept { std::free(memory); }

std::unique_ptr<Backend<float>> make_cpu_backend(int threads, std::optional<Isa> asked) {
  const int n = thread_count(threads);
  const Isa isa = choose_isa(asked);
#if defined(__x86_64__)
  if (isa == Isa::avx512) return std::unique_ptr<Backend<float>>(new_avx512_backend(n));
  if (isa == Isa::avx2) return std::unique_ptr<Backend<float>>(new_avx2_backend(n));
#endif
  return make_baseline_backend(n, isa);
}

std::unique_ptr<Backend<double>> make_double_backend(int threads) {
  return make_baseline_double_backend(thread_count(threads));
}

} // namespace nvfp4::models
