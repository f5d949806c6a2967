// SPDX-License-Identifier: Apache-2.0
// nvfp4-check-hopper-attention: every output word of the attention kernels against their definition on the
// CPU; with `time`, their speed. Exit codes: 0 equal, 1 mismatch or failure, 2 bad call, 3 no suitable GPU.
// Usage: nvfp4-check-hopper-attention [check [largest length] | time [forward | backward]]
#include "nvfp4/gpu/emulated/device.hpp"
#include "nvfp4/gpu/hopper/attention.hpp"
#include "nvfp4/reference_models/bf16_mixers/attention_case.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>

namespace {

using namespace nvfp4;
using namespace nvfp4::models::tensorcore;

struct Buffers {
  cuda::DeviceBuffer q, k, v, grad_o, o, o32, lse2, grad_q, grad_k, grad_v;

  Buffers(const AttentionShape &s, const AttentionOperands &x) {
    q.upload(x.q), k.upload(x.k), v.upload(x.v), grad_o.upload(x.grad_o);
    o.reserve(2 * s.q_elements()), o32.reserve(4 * s.q_elements()), lse2.reserve(4 * s.rows());
    grad_q.reserve(4 * s.q_elements()), grad_k.reserve(4 * s.kv_elements());
    grad_v.reserve(4 * s.kv_elements());
  }
  void forward(const AttentionShape &s, bool wide) const {
    cuda::attention_forward(s, q.as<uint16_t>(), k.as<uint16_t>(), v.as<uint16_t>(), o.as<uint16_t>(),
                            wide ? o32.as<float>() : nullptr, lse2.as<float>(), nullptr);
  }
  void backward(const AttentionShape &s) const {
    cuda::attention_backward(s, q.as<uint16_t>(), k.as<uint16_t>(), v.as<uint16_t>(), o.as<uint16_t>(),
                             lse2.as<float>(), grad_o.as<uint16_t>(), grad_q.as<float>(), grad_k.as<float>(),
                             grad_v.as<float>(), nullptr);
  }
};

struct Count {
  int64_t words = 0, wrong = 0;
};

/// Compares words; says where the first difference is.
template <class T>
void compare(const char *name, const std::vector<T> &got, const std::vector<T> &want, Count &count) {
  int64_t wrong = 0;
  size_t first = 0;
  for (size_t i = 0; i < want.size(); ++i)
    if (std::memcmp(&got[i], &want[i], sizeof(T)) != 0 && wrong++ == 0) first = i;
  count.words += int64_t(want.size());
  count.wrong += wrong;
  std::printf(" %s %lld", name, (long long)wrong);
  if (wrong == 0) return;
  uint32_t a = 0, b = 0;
  std::memcpy(&a, &got[first], sizeof(T)), std::memcpy(&b, &want[first], sizeof(T));
  std::printf(" (at %zu GPU %0*x CPU %0*x)", first, int(2 * sizeof(T)), a, int(2 * sizeof(T)), b);
}

std::string name_of(const AttentionCase &x) {
  char text[96];
  const AttentionShape &s = x.shape;
  std::snprintf(text, sizeof text, "%lldx%-5lld heads %2lld/%-2lld dim %-3lld %s %s", (long long)s.batch,
                (long long)s.length, (long long)s.heads, (long long)s.kv_heads, (long long)s.dim,
                s.causal ? "causal" : "full  ", kValueNames[int(x.values)]);
  return text;
}

Count run(const AttentionCase &x) {
  const auto begin = std::chrono::steady_clock::now();
  const AttentionShape &s = x.shape;
  const AttentionOperands operands = make_operands(x);
  const Buffers device(s, operands);
  device.forward(s, true);
  const auto o = device.o.download<uint16_t>(s.q_elements());
  const auto o32 = device.o32.download<float>(s.q_elements());
  const auto lse2 = device.lse2.download<float>(s.rows());
  const AttentionOutput want = attention_forward(s, operands.q, operands.k, operands.v);
  Count count;
  std::printf("%s  wrong:", name_of(x).c_str());
  compare("o", o, want.o, count);
  compare("o32", o32, want.o32, count);
  compare("lse", lse2, want.lse2, count);
  uint64_t digest = digest_of(o) ^ digest_of(lse2);
  if (x.values != Values::special) {
    cudaMemcpy(device.o.as<void>(), want.o.data(), 2 * want.o.size(), cudaMemcpyHostToDevice);
    cudaMemcpy(device.lse2.as<void>(), want.lse2.data(), 4 * want.lse2.size(), cudaMemcpyHostToDevice);
    device.backward(s);
    const auto dq = device.grad_q.download<float>(s.q_elements());
    const auto dk = device.grad_k.download<float>(s.kv_elements()),
               dv = device.grad_v.download<float>(s.kv_elements());
    const AttentionGradients gradients =
        attention_backward(s, operands.q, operands.k, operands.v, want.o, want.lse2, operands.grad_o);
    compare("dq", dq, gradients.q, count);
    compare("dk", dk, gradients.k, count);
    compare("dv", dv, gradients.v, count);
    digest ^= digest_of(dq) ^ digest_of(dk) ^ digest_of(dv);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf(" of %lld, GPU digest %016llx [%.1f s]\n", (long long)count.words, (unsigned long long)digest,
              seconds.count());
  std::fflush(stdout);
  return count;
}

std::vector<AttentionCase> cases(int64_t largest) {
  std::vector<AttentionCase> all;
  for (const int64_t dim : {64, 128}) {
    const auto add = [&](int64_t batch, int64_t length, int64_t heads, int64_t kv_heads, bool causal,
                         Values values = Values::normal, float scale = 0) {
      if (length <= largest) all.push_back({{batch, length, heads, kv_heads, dim, causal, scale}, values});
    };
    add(1, 1, 1, 1, true);
    add(1, 64, 1, 1, false);
    add(1, 128, 1, 1, true);
    add(2, 129, 2, 1, true);
    add(1, 200, 3, 3, false, Values::peaked);
    add(3, 77, 4, 2, true, Values::peaked);
    add(1, 513, 8, 2, true, Values::normal, 0.3f);
    add(2, 1000, 4, 4, true, Values::special);
    add(2, 1000, 4, 4, false, Values::normal);
    add(1, 2048, 8, 8, true, Values::normal, 0.3f);
    add(2, 4096, 8, 2, true);
  }
  return all;
}

int check(int64_t largest) {
  Count total;
  for (const AttentionCase &x : cases(largest)) {
    const Count count = run(x);
    total.words += count.words;
    total.wrong += count.wrong;
  }
  std::printf("total: %lld words, %lld mismatches\n", (long long)total.words, (long long)total.wrong);
  return total.wrong == 0 ? 0 : 1;
}

/// Median milliseconds of five rounds.
template <class F> double milliseconds(F &&work) {
  cudaEvent_t start, stop;
  cuda::check(cudaEventCreate(&start), "cudaEventCreate");
  cuda::check(cudaEventCreate(&stop), "cudaEventCreate");
  for (int i = 0; i < 3; ++i) work();
  constexpr int kEach = 10;
  std::vector<float> times(5);
  for (float &time : times) {
    cuda::check(cudaEventRecord(start), "cudaEventRecord");
    for (int i = 0; i < kEach; ++i) work();
    cuda::check(cudaEventRecord(stop), "cudaEventRecord");
    cuda::check(cudaEventSynchronize(stop), "cudaEventSynchronize");
    cuda::check(cudaEventElapsedTime(&time, start, stop), "cudaEventElapsedTime");
  }
  cudaEventDestroy(start), cudaEventDestroy(stop);
  std::nth_element(times.begin(), times.begin() + 2, times.end());
  return times[2] / kEach;
}

/// Operations counted as everybody counts them: 4 dim per visible pair forward, 10 backward, half of all
/// pairs visible under a causal mask. The dense BF16 peak of the data sheet is 989 TFLOP/s.
void time(const std::string &which) {
  std::printf("%-44s %9s %8s %6s\n", "shape", "ms", "TFLOP/s", "peak");
  for (const int64_t dim : {128, 64})
    for (const bool causal : {true, false})
      for (const int64_t length : {1024, 4096, 16384}) {
        const AttentionCase x{{16384 / length, length, 2048 / dim, 2048 / dim, dim, causal}, Values::normal};
        const AttentionShape &s = x.shape;
        const Buffers device(s, make_operands(x));
        device.forward(s, false);
        const double pairs = double(s.rows()) * double(length) * (causal ? 0.5 : 1.0);
        const auto line = [&](const char *what, double operations, double ms) {
          const double rate = operations * double(dim) * pairs / ms * 1e-9;
          std::printf("%s %-8s %8.3f %8.1f %5.1f%%\n", name_of(x).substr(0, 35).c_str(), what, ms, rate,
                      rate / 9.89);
          std::fflush(stdout);
        };
        if (which != "backward") line("forward", 4, milliseconds([&] { device.forward(s, false); }));
        if (which != "forward") line("backward", 10, milliseconds([&] { device.backward(s); }));
      }
}

int usage() {
  std::fprintf(stderr,
               "usage: nvfp4-check-hopper-attention [check [largest length] | time [forward | backward]]\n");
  return 2;
}

} // namespace

int main(int argc, char **argv) {
  try {
    const std::string verb = argc > 1 ? argv[1] : "check", option = argc > 2 ? argv[2] : "";
    if (argc > 3 || (verb != "check" && verb != "time")) return usage();
    if (verb == "time" && !option.empty() && option != "forward" && option != "backward") return usage();
    const long long largest = verb == "check" && !option.empty() ? std::atoll(option.c_str()) : 4096;
    if (largest < 1) return usage();
    int devices = 0, major = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0 ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess || major != 9) {
      std::fprintf(stderr,
                   "nvfp4-check-hopper-attention: no suitable device: needs compute capability 9.0\n");
      return 3;
    }
    if (verb == "check") return check(largest);
    time(option);
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "nvfp4-check-hopper-attention: %s\n", error.what());
    return 1;
  }
}
