// SPDX-License-Identifier: Apache-2.0
// Every output word of Hopper's attention kernels against their definition on the CPU; and their speed.
#include "nvfp4/gpu/check/hopper.hpp"
#include "nvfp4/gpu/check/timing.hpp"
#include "nvfp4/gpu/hopper/attention.hpp"
#include "nvfp4/reference_models/bf16_mixers/attention_case.hpp"

#include <chrono>
#include <cstring>

namespace nvfp4::crosscheck {
namespace {

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

/// Compares words; prints how many differ and where the first does.
template <class T>
void compare(const char *name, const std::vector<T> &got, const std::vector<T> &want, Tally &tally) {
  int64_t wrong = 0;
  size_t first = 0;
  for (size_t i = 0; i < want.size(); ++i)
    if (std::memcmp(&got[i], &want[i], sizeof(T)) != 0 && wrong++ == 0) first = i;
  tally.values += want.size();
  if (wrong != 0 && tally.mismatches == 0) tally.first = std::string(name) + " " + std::to_string(first);
  tally.mismatches += uint64_t(wrong);
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

Tally run(const AttentionCase &x) {
  const auto begin = std::chrono::steady_clock::now();
  const AttentionShape &s = x.shape;
  const AttentionOperands operands = make_operands(x);
  const Buffers device(s, operands);
  device.forward(s, true);
  const auto o = device.o.download<uint16_t>(s.q_elements());
  const auto o32 = device.o32.download<float>(s.q_elements());
  const auto lse2 = device.lse2.download<float>(s.rows());
  const AttentionOutput want = attention_forward(s, operands.q, operands.k, operands.v);
  Tally tally;
  std::printf("%s  wrong:", name_of(x).c_str());
  compare("o", o, want.o, tally);
  compare("o32", o32, want.o32, tally);
  compare("lse", lse2, want.lse2, tally);
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
    compare("dq", dq, gradients.q, tally);
    compare("dk", dk, gradients.k, tally);
    compare("dv", dv, gradients.v, tally);
    digest ^= digest_of(dq) ^ digest_of(dk) ^ digest_of(dv);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf(" of %lld, GPU digest %016llx [%.1f s]\n", (long long)tally.values, (unsigned long long)digest,
              seconds.count());
  std::fflush(stdout);
  return tally;
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

} // namespace

Tally check_attention(int64_t largest) {
  require_hopper();
  Tally total;
  for (const AttentionCase &x : cases(largest)) total.add(run(x));
  return total;
}

// Operations counted as everybody counts them: 4 dim per visible pair forward, 10 backward, half of all pairs
// visible under a causal mask. The dense BF16 peak of the data sheet is 989 TFLOP/s.
void time_attention(const std::string &which) {
  require_hopper();
  const auto milliseconds = [](const auto &work) {
    return 1e3 * median_seconds(work, {.warm_up = 3, .rounds = 5, .each = 10});
  };
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

} // namespace nvfp4::crosscheck
