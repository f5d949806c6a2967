// SPDX-License-Identifier: Apache-2.0
// The CPU backend for one instruction set: teams are iterations of an OpenMP loop. Included by one file per
// instruction set, which defines Multiply<Tag, T> first. Internal.
#pragma once
#include "nvfp4/reference_models/backend/backend.hpp"

#include <cstdlib>
#include <cstring>
#include <omp.h>

namespace nvfp4::models {

/// Memory of the CPU; not inline, so that no instruction set's build defines it.
void *allocate_host(size_t bytes);
void release_host(void *memory) noexcept;

template <class Tag, class T> class CpuBackend final : public Backend<T> {
public:
  CpuBackend(int threads, Isa isa) : threads_(threads), isa_(isa) {}
  ~CpuBackend() override { release_host(scratch_); }
  CpuBackend(const CpuBackend &) = delete;
  CpuBackend &operator=(const CpuBackend &) = delete;

  void *allocate(size_t bytes) override { return allocate_host(bytes); }
  void release(void *memory) noexcept override { release_host(memory); }
  void upload(void *device, const void *host, size_t bytes) override {
    __builtin_memcpy(device, host, bytes);
  }
  void download(void *host, const void *device, size_t bytes) override {
    __builtin_memcpy(host, device, bytes);
  }
  void copy(void *to, const void *from, size_t bytes) override { __builtin_memmove(to, from, bytes); }
  void zero(void *device, size_t bytes) override { __builtin_memset(device, 0, bytes); }
  bool shares_memory() const override { return true; }

#define NVFP4_DEFINE(Kernel)                                                                                 \
  void run(const Kernel<T> &kernel) override { launch(kernel); }
  NVFP4_MODEL_KERNELS(NVFP4_DEFINE)
#undef NVFP4_DEFINE

  std::unique_ptr<Bf16Gla> make_bf16_gla(const bf16_gla::Shape &shape, const Unit &unit) override {
    return make_cpu_bf16_gla(shape, unit, threads_, isa_);
  }
  std::unique_ptr<Bf16Attention> make_bf16_attention(const tensorcore::AttentionShape &shape,
                                                     const Unit &unit) override {
    return make_cpu_bf16_attention(shape, unit, threads_, isa_);
  }

private:
  /// Everything inlined: a lambda that stayed a call would keep its loop from being vectorised.
  template <class K> __attribute__((flatten)) static void run_team(const K &kernel, int64_t i, T *scratch) {
    const CpuTeam<Tag, T> team{scratch};
    kernel(team, i);
  }
  template <class K> void launch(const K &kernel) {
    const int64_t n = kernel.teams();
    int64_t own = 0; // elements of scratch a thread
    if constexpr (requires { kernel.scratch(); }) {
      constexpr int64_t kLine = 64 / int64_t(sizeof(T));
      own = (kernel.scratch() + kLine - 1) / kLine * kLine;
      reserve(own * threads_);
    }
    if (n <= 1 || threads_ == 1) {
      for (int64_t i = 0; i < n; ++i) run_team(kernel, i, scratch_);
      return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_)
    for (int64_t i = 0; i < n; ++i) run_team(kernel, i, scratch_ + omp_get_thread_num() * own);
  }
  /// Kernels that run one after the other share the memory; it grows to what the largest asks for.
  void reserve(int64_t elements) {
    if (elements <= reserved_) return;
    T *const larger = static_cast<T *>(allocate_host(size_t(elements) * sizeof(T)));
    release_host(scratch_);
    scratch_ = larger;
    reserved_ = elements;
  }

  int threads_;
  Isa isa_;
  T *scratch_ = nullptr;
  int64_t reserved_ = 0;
};

} // namespace nvfp4::models
