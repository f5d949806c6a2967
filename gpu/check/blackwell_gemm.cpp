// SPDX-License-Identifier: Apache-2.0
// Products of this folder's kernels against the emulator's exact units, every output word. Random codes under
// three kinds of scales, ragged shapes, both layouts of scales, every output and epilogue.
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/gpu/blackwell/directed.hpp"
#include "nvfp4/gpu/capture/run_tiles.hpp"
#include "nvfp4/gpu/check/blackwell.hpp"

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <string_view>

namespace nvfp4::cuda::blackwell {
namespace {

constexpr auto kModels = enumerators<Accumulation>();

/// Scales: all near 1; spread over many binades; any code, NaN included.
enum class Scales : uint8_t { similar, spread, raw };
constexpr const char *kScaleNames[] = {"similar", "spread", "raw"};

HostOperand random_operand(const UnitRule &rule, int64_t rows, int64_t k, Scales scales, uint64_t seed) {
  std::mt19937_64 random(seed);
  HostOperand o{rows, k, (k + rule.scale_block - 1) / rule.scale_block * rule.scale_block, {}, {}};
  o.codes.resize(size_t(rows * o.padded_k / 2));
  o.scales.resize(size_t(rows * o.padded_k / rule.scale_block));
  for (uint8_t &x : o.codes) x = uint8_t(random());
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = k; i < o.padded_k; ++i)
      o.codes[size_t((row * o.padded_k + i) / 2)] &= i % 2 == 0 ? uint8_t{0xF0} : uint8_t{0x0F};
  const bool ue8m0 = rule.scale == FormatId::ue8m0;
  for (uint8_t &x : o.scales) {
    const uint64_t word = random();
    switch (scales) {
    case Scales::similar: x = uint8_t(ue8m0 ? 126 + word % 4 : 0x34 + word % 12); break;
    case Scales::spread: x = uint8_t(ue8m0 ? 100 + word % 56 : word % 0x7F); break;
    case Scales::raw:
      x = uint8_t(word % 512 == 0 ? 0xFF : ue8m0 ? word >> 9 & 0xFF : (word >> 9 & 0xFF) % 0x7F);
      break;
    }
  }
  return o;
}

/// The emulator reads rows of k elements; the kernels rows of padded_k. Both have whole blocks.
GemmOperand pack(const Unit &unit, Side side, const HostOperand &x) {
  return make_operand(unit, side, RawCodes{x.rows, x.padded_k, x.codes},
                      RawScales(x.scales, ScaleLayout::linear));
}

struct Case {
  int64_t m, n, k;
  Scales scales;
  GemmCall call;
};

int64_t run_case(const Case &x, bool mxfp4) {
  const Unit &unit = unit_of(x.call.kernel, mxfp4);
  const HostOperand a = random_operand(unit.rule, x.m, x.k, x.scales, 1),
                    b = random_operand(unit.rule, x.n, x.k, x.scales, 2);
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> c(x.call.beta != 0.0f ? size_t(x.m * x.n) : 0);
  for (float &v : c) v = normal(random);
  const std::vector<uint8_t> got = run_gemm(x.call, unit.rule, a, b, c);
  const size_t width = x.call.out == FormatId::f32 ? 4 : 2;
  int64_t wrong[kModels.size()] = {};
  for (size_t model = 0; model < kModels.size(); ++model) {
    if (model > 0 && wrong[0] == 0) break; // the other models are asked only when the default fails
    GemmOptions options;
    options.alpha = x.call.alpha, options.beta = x.call.beta, options.out = x.call.out;
    options.accumulation = kModels[model];
    const GemmResult want =
        GemmPlan(unit, options)
            .run(pack(unit, Side::a, a), pack(unit, Side::b, b),
                 {.c = {reinterpret_cast<const uint8_t *>(c.data()), c.size() * sizeof(float)}});
    for (size_t at = 0; at < got.size(); at += width)
      wrong[model] += std::equal(got.begin() + int64_t(at), got.begin() + int64_t(at + width),
                                 want.words.begin() + int64_t(at))
                          ? 0
                          : 1;
  }
  std::printf(
      "%-10s %-52s %5lld x %5lld x %5lld %-7s %-6s %-4s alpha %-4g beta %-4g outputs %8lld mismatches %lld",
      x.call.engine == Engine::hardware ? name_of(x.call.kernel) : "simulated", unit.name().c_str(),
      (long long)x.m, (long long)x.n, (long long)x.k, kScaleNames[int(x.scales)],
      x.call.layout == ScaleLayout::linear ? "linear" : "128x4", format(x.call.out).name, x.call.alpha,
      x.call.beta, (long long)(x.m * x.n), (long long)wrong[0]);
  for (size_t model = 1; model < kModels.size() && wrong[0] != 0; ++model)
    std::printf(" (%s %lld)", std::string(to_string(kModels[model])).c_str(), (long long)wrong[model]);
  std::printf("\n");
  std::fflush(stdout);
  return wrong[0];
}

} // namespace

const char *name_of(KernelId id) { return id == KernelId::sm100 ? "gemm_sm100" : "gemm_sm120"; }

std::optional<KernelId> native_kernel() {
  if (gpu::device_features() & golden::cases::kTcgen05) return KernelId::sm100;
  if (gpu::device_features() & golden::cases::kMmaBlock) return KernelId::sm120;
  return {};
}

const Unit &unit_of(KernelId id, bool mxfp4) {
  const bool native = native_kernel() == id;
  const std::string arch = native ? gpu::device_arch() : id == KernelId::sm100 ? "sm_100" : "sm_120";
  return find_unit(arch + (id == KernelId::sm100 ? ":tcgen05.k64.f32." : ":mma.m16n8k64.f32.") +
                   (mxfp4 ? "mxf4.ue8m0.block32" : "mxf4nvf4.ue4m3.block16"));
}

std::vector<uint8_t> run_gemm(const GemmCall &call, const UnitRule &rule, const HostOperand &a,
                              const HostOperand &b, const std::vector<float> &c) {
  DeviceBuffer codes_a, codes_b, scales_a, scales_b, device_c, d;
  const auto upload = [&](const HostOperand &x, DeviceBuffer &codes, DeviceBuffer &scales) {
    codes.upload(x.codes);
    const int64_t cols = x.padded_k / rule.scale_block;
    scales.upload(call.layout == ScaleLayout::linear ? x.scales : tile_scales(x.scales, x.rows, cols));
    return DeviceOperand{FormatId::e2m1, x.rows, x.k, x.padded_k, codes.as<uint8_t>(), scales.as<uint8_t>()};
  };
  const DeviceOperand da = upload(a, codes_a, scales_a), db = upload(b, codes_b, scales_b);
  device_c.upload(c);
  const int64_t bytes = a.rows * b.rows * (call.out == FormatId::f32 ? 4 : 2);
  d.reserve(bytes);
  GemmOutput out;
  out.d = d.as<void>(), out.out = call.out, out.alpha = call.alpha, out.beta = call.beta,
  out.c = device_c.as<void>();
  check(cudaMemset(d.as<void>(), 0xA5, size_t(bytes)), "cudaMemset");
  Workspace workspace;
  (call.kernel == KernelId::sm100 ? gemm_sm100 : gemm_sm120)(rule, da, db, out, workspace, nullptr,
                                                             call.layout, call.engine);
  return d.download<uint8_t>(bytes);
}

int64_t check_gemm(KernelId kernel, Engine engine, int64_t largest) {
  using enum FormatId;
  int64_t wrong = 0;
  for (const bool mxfp4 : {false, true}) {
    const auto add = [&](int64_t m, int64_t n, int64_t k, Scales scales,
                         ScaleLayout layout = ScaleLayout::linear, FormatId out = f32, float alpha = 1.0f,
                         float beta = 0.0f) {
      if (std::max({m, n, k}) <= largest)
        wrong += run_case({m, n, k, scales, {kernel, engine, layout, out, alpha, beta}}, mxfp4);
    };
    using enum ScaleLayout;
    add(1, 1, 1, Scales::similar);
    add(5, 7, 0, Scales::similar, linear, f32, 1.0f, 0.5f);
    add(16, 8, 64, Scales::spread);
    add(129, 257, 80, Scales::spread, tiled_128x4);
    add(130, 114, 208, Scales::raw);
    add(77, 93, 1000, Scales::similar, linear, bf16, 0.37f, 1.5f);
    add(128, 128, 1024, Scales::spread, tiled_128x4);
    add(256, 320, 2048, Scales::spread, linear, bf16, 1.7f);
    add(200, 136, 1344, Scales::raw, tiled_128x4, f16, 1.0f, -0.25f);
    add(1024, 1024, 1024, Scales::raw);
    add(2048, 2816, 4096, Scales::spread);
    add(4096, 4096, 4096, Scales::similar, tiled_128x4, bf16, 0.001f);
  }
  return wrong;
}

int64_t check_directed(KernelId kernel, Engine engine) {
  const Unit &unit = unit_of(kernel, false);
  return ask_directed(unit.rule, [&](const DirectedOperands &o) {
    GemmCall call;
    call.kernel = kernel, call.engine = engine;
    return run_gemm(call, unit.rule, {o.rows, o.k, o.k, o.codes_a, o.scales_a}, {o.rows, o.k, o.k, o.codes_b, o.scales_b},
                    {});
  });
}

} // namespace nvfp4::cuda::blackwell
