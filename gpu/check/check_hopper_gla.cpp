// SPDX-License-Identifier: Apache-2.0
// Gated linear attention on Hopper's tensor cores against its definition on the CPU, every word of every
// array; and the speed of each kernel.
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/gpu/check/hopper.hpp"
#include "nvfp4/gpu/check/timing.hpp"
#include "nvfp4/gpu/hopper/gla.hpp"
#include "nvfp4/gpu/hopper/gla_kernels.hpp"
#include "nvfp4/reference_models/bf16_mixers/gla_example.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace nvfp4::crosscheck {
namespace {

using namespace models::bf16_gla;

const char *const kGateNames[] = {"mild", "strong", "resets", "none"};

/// Device copies of an example's arrays, workspace and results.
struct Device {
  Shape shape;
  cuda::DeviceBuffer q, k, v, g, grad_o, memory, o, o_bf16, dq, dk, dv, dg;
  cuda::GlaWorkspace work{};

  explicit Device(const Example &x) : shape(x.shape) {
    q.upload(x.q), k.upload(x.k), v.upload(x.v), g.upload(x.g), grad_o.upload(x.grad_o);
    reserve();
  }
  void reserve() {
    memory.reserve(cuda::gla_workspace_bytes(shape, true));
    cuda::check(cudaMemset(memory.as<void>(), 0xFF, size_t(memory.size())), "cudaMemset");
    work = cuda::gla_workspace(shape, memory.as<void>(), true);
    for (auto *x : {&o, &dv}) x->reserve(4 * shape.values());
    for (auto *x : {&dq, &dk, &dg}) x->reserve(4 * shape.keys());
    o_bf16.reserve(2 * shape.values());
  }
  [[nodiscard]] cuda::GlaInputs inputs() const {
    return {q.as<uint16_t>(), k.as<uint16_t>(), v.as<uint16_t>(), g.as<float>()};
  }
  void forward(bool narrow) {
    cuda::gla_forward(shape, inputs(), work, narrow ? nullptr : o.as<float>(),
                      narrow ? o_bf16.as<uint16_t>() : nullptr, nullptr);
  }
  void backward() {
    cuda::gla_backward(shape, inputs(), grad_o.as<uint16_t>(), work,
                       {dq.as<float>(), dk.as<float>(), dv.as<float>(), dg.as<float>()}, nullptr);
  }
};

template <class T> std::vector<T> download(const T *from, size_t count) {
  std::vector<T> to(count);
  cuda::check(cudaMemcpy(to.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost), "copy from device");
  return to;
}

/// Words compared so far, and a line for each array with differences.
struct Arrays {
  Tally tally;
  std::string lines;

  /// `square`: (64, 64) blocks of which those above the diagonal of sub-chunks do not count.
  template <class T>
  void compare(const char *name, const T *device, const std::vector<T> &want, bool square = false) {
    const std::vector<T> got = download(device, want.size());
    int64_t bad = 0;
    size_t first = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      if (square && i % 64 / 16 > i / 64 % 64 / 16) continue;
      ++tally.values;
      if (std::memcmp(&got[i], &want[i], sizeof(T)) == 0) continue;
      if (bad++ == 0) first = i;
    }
    if (bad == 0) return;
    if (tally.mismatches == 0) tally.first = std::string(name) + " " + std::to_string(first);
    tally.mismatches += uint64_t(bad);
    uint32_t words_of[2] = {};
    std::memcpy(&words_of[0], &got[first], sizeof(T)), std::memcpy(&words_of[1], &want[first], sizeof(T));
    char line[160];
    std::snprintf(line, sizeof line, "    %-11s %lld of %zu differ, first at %zu: GPU %08x CPU %08x\n", name,
                  static_cast<long long>(bad), want.size(), first, words_of[0], words_of[1]);
    lines += line;
  }
};

std::string digest(std::initializer_list<const std::vector<float> *> arrays) {
  std::vector<std::byte> bytes;
  for (const auto *x : arrays) {
    const auto *const from = reinterpret_cast<const std::byte *>(x->data());
    bytes.insert(bytes.end(), from, from + 4 * x->size());
  }
  return io::sha256_hex(bytes);
}

Tally run(const Shape &shape, Gates gates, uint64_t seed) {
  const auto start = std::chrono::steady_clock::now();
  const Unit &unit = find_unit("sm_90:mma.m16n8k16.f32.bf16");
  const Example x = make_example(shape, gates, seed);
  Device device(x);
  device.forward(true);
  device.forward(false);
  device.backward();
  cuda::check(cudaDeviceSynchronize(), "GLA kernels");
  const Forward f = forward(x.shape, x.inputs(), unit);
  const Backward b = backward(x.shape, x.inputs(), x.grad_o, f, unit);
  std::vector<uint16_t> narrow(f.o.size());
  std::transform(f.o.begin(), f.o.end(), narrow.begin(), bf16_word);
  Arrays t;
  const auto &w = device.work;
  t.compare("decay", w.decay, f.decay);
  t.compare("q_decayed", w.q_decayed, f.q_decayed);
  t.compare("k_decayed", w.k_decayed, f.k_decayed);
  t.compare("scores", w.scores, f.scores, true);
  t.compare("states", w.states, f.states);
  t.compare("o", device.o.as<float>(), f.o);
  t.compare("o (BF16)", device.o_bf16.as<uint16_t>(), narrow);
  t.compare("state_grads", w.state_grads, b.state_grads);
  t.compare("score_grads", w.score_grads, b.score_grads, true);
  t.compare("dv", device.dv.as<float>(), b.dv);
  t.compare("dq", device.dq.as<float>(), b.dq);
  t.compare("dk", device.dk.as<float>(), b.dk);
  t.compare("dg", device.dg.as<float>(), b.dg);
  const auto device_words = [&](const cuda::DeviceBuffer &from, int64_t count) {
    return download(from.as<float>(), size_t(count));
  };
  const auto o = device_words(device.o, shape.values()), dv = device_words(device.dv, shape.values()),
             dq = device_words(device.dq, shape.keys()), dk = device_words(device.dk, shape.keys()),
             dg = device_words(device.dg, shape.keys());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%lld x %4lld x %lld  %3lld/%3lld  %-6s %10lld words %8lld wrong  %s  %.1f s\n%s",
              static_cast<long long>(shape.batch), static_cast<long long>(shape.length),
              static_cast<long long>(shape.heads), static_cast<long long>(shape.key),
              static_cast<long long>(shape.value), kGateNames[int(gates)],
              static_cast<long long>(t.tally.values), static_cast<long long>(t.tally.mismatches),
              digest({&o, &dq, &dk, &dv, &dg}).substr(0, 16).c_str(), seconds.count(), t.lines.c_str());
  std::fflush(stdout);
  return t.tally;
}

/// Peaks on an H200 that the roofline is drawn with: bytes/s of a copy, operations/s of mma.sync BF16.
constexpr double kCopy = 4.2e12, kMma = 633e12;

void line(const char *name, double ms, double bytes, double flops) {
  const double floor = 1e3 * std::max(bytes / kCopy, flops / kMma);
  std::printf("  %-12s %7.3f ms %7.0f GB/s %6.1f TFLOP/s  roofline %.3f ms (%s), %.0f %%\n", name, ms,
              bytes / ms * 1e-6, flops / ms * 1e-9, floor, bytes / kCopy > flops / kMma ? "bytes" : "mma",
              100 * floor / ms);
}

void time_shape(const Shape &shape) {
  const Example x = make_example(shape, Gates::mild, 1);
  Device dev(x);
  const Shape s = x.shape;
  const auto in = dev.inputs();
  const auto &w = dev.work;
  const auto *grad_o = dev.grad_o.as<uint16_t>();
  const auto n = double(s.all_chunks()), keys = double(s.keys()), values = double(s.values());
  const double state = n * double(s.key * s.value), square = n * 4096;
  // multiply-adds of a chunk's products, blocks above the diagonal left out
  const double through = 2 * 64 * state, lower = 2 * 0.625 * square;
  std::printf("batch %lld, length %lld, heads %lld, key %lld, value %lld\n", static_cast<long long>(s.batch),
              static_cast<long long>(s.length), static_cast<long long>(s.heads),
              static_cast<long long>(s.key), static_cast<long long>(s.value));
  const auto time = [&](const char *name, double bytes, double flops, const auto &work) {
    line(name, 1e3 * median_seconds(work, {.warm_up = 5, .rounds = 20}), bytes, flops);
  };
  time("prepare", keys * (8 + 4) + square * 2 * 0.625, lower * double(s.key) * 0.6, [&] {
    launch(cuda::gla::Prepare{s, in.q, in.k, in.g, w.q_decayed, w.k_decayed, w.scores, w.decay}, nullptr);
  });
  time("states", keys * 2 + values * 2 + state * 2, through, [&] {
    launch(cuda::gla::States{s, w.k_decayed, in.v, w.decay, w.states, false}, nullptr);
  });
  time("outputs", keys * 2 + values * (2 + 2) + state * 2 + square * 2, through + lower * double(s.value),
       [&] {
         launch(cuda::gla::Outputs{s, w.q_decayed, w.states, w.scores, in.v, nullptr,
                                   dev.o_bf16.as<uint16_t>(), false},
                nullptr);
       });
  time("forward", keys * 8 + values * 4, 2 * through + lower * double(s.key + s.value),
       [&] { dev.forward(true); });
  time("state grads", keys * 2 + values * 2 + state * 2, through, [&] {
    launch(cuda::gla::States{s, w.q_decayed, grad_o, w.decay, w.state_grads, true}, nullptr);
  });
  time("score grads", values * 4 + square * 4 * 0.625, lower * double(s.value), [&] {
    launch(cuda::gla::ScoreGrads{s, in.v, grad_o, w.score_grads}, nullptr);
  });
  time("value grads", keys * 2 + values * (2 + 4) + state * 2 + square * 2, through + lower * double(s.value),
       [&] {
         launch(cuda::gla::Outputs{s, w.k_decayed, w.state_grads, w.scores, grad_o, dev.dv.as<float>(),
                                   nullptr, true},
                nullptr);
       });
  time("input grads", keys * (8 + 12) + values * 4 + state * 4 + square * 4 * 0.625,
       2 * through + 2 * lower * double(s.key) * 0.6, [&] {
         launch(cuda::gla::InputGrads{s, in.q, in.k, in.v, grad_o, in.g, w.states, w.state_grads,
                                      w.score_grads, dev.dq.as<float>(), dev.dk.as<float>(),
                                      dev.dg.as<float>()},
                nullptr);
       });
  time("backward", keys * (8 + 12) + values * (4 + 4),
       4 * through + 2 * lower * double(s.value) + 2 * lower * double(s.key), [&] { dev.backward(); });
}

} // namespace

Tally check_gla(bool quick) {
  require_hopper();
  struct Case {
    Shape shape;
    Gates gates;
  };
  std::vector<Case> cases = {{{1, 1, 1, 16, 16}, Gates::mild},       {{1, 64, 1, 16, 16}, Gates::none},
                             {{2, 130, 3, 32, 16}, Gates::mild},     {{1, 200, 2, 48, 80}, Gates::strong},
                             {{2, 257, 2, 64, 64}, Gates::resets},   {{1, 300, 2, 128, 256}, Gates::mild},
                             {{1, 190, 1, 256, 256}, Gates::strong}, {{1, 512, 4, 128, 256}, Gates::resets}};
  if (!quick) {
    cases.push_back({{1, 4096, 2, 64, 64}, Gates::mild});
    cases.push_back({{2, 1000, 4, 256, 128}, Gates::mild});
    cases.push_back({{8, 2048, 4, 128, 256}, Gates::mild});
  }
  Tally total;
  for (size_t i = 0; i < cases.size(); ++i) total.add(run(cases[i].shape, cases[i].gates, i + 1));
  return total;
}

void time_gla() {
  require_hopper();
  time_shape({8, 2048, 4, 128, 256});
  time_shape({4, 4096, 4, 128, 256});
}

void run_gla() {
  require_hopper();
  Device device(make_example({8, 2048, 4, 128, 256}, Gates::mild, 1));
  device.forward(true);
  device.backward();
  cuda::check(cudaDeviceSynchronize(), "GLA kernels");
}

} // namespace nvfp4::crosscheck
