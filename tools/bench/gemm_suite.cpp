// SPDX-License-Identifier: Apache-2.0
// Operands, interleaved repeats and medians of the GEMM benchmarks.
#include "tools/bench/gemm_suite.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/golden/product_operands.hpp"
#include "tools/bench/yardstick.hpp"
#include "tools/environment.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nvfp4::bench {
namespace {

constexpr Work kWorks[] = {
    {"nvfp4", "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"},
    {"mxfp4", "sm_100:tcgen05.k64.f32.mxf4.ue8m0.block32"},
    {"bf16", "sm_100:tcgen05.k16.f32.bf16"},
    {"fp16", "sm_90:wgmma.k16.f32.f16"},
    {"fp8", "sm_90:wgmma.k32.f32.e4m3"},
    {"mxfp8", "sm_100:tcgen05.k32.f32.mxf8f6f4.e4m3.ue8m0.block32"},
};

/// The layers' products: fprop of the projections and of the gated MLP, (tokens, out, in).
constexpr Shape kLayers[] = {
    {"gla-q/o 1024x1024", 2048, 1024, 1024},
    {"gla-k 512x1024", 2048, 512, 1024},
    {"gla-mlp-up 2816x1024", 2048, 2816, 1024},
    {"gla-mlp-down 1024x2816", 2048, 1024, 2816},
};
constexpr Shape kSquares[] = {{"256", 256, 256, 256},
                              {"512", 512, 512, 512},
                              {"1024", 1024, 1024, 1024},
                              {"2048", 2048, 2048, 2048},
                              {"4096", 4096, 4096, 4096}};

struct Fp4Class {
  const char *name;
  golden::Fp4Kind kind;
};
constexpr Fp4Class kFp4Classes[] = {{"lognormal 1", golden::Fp4Kind::lognormal1},
                                    {"lognormal 3", golden::Fp4Kind::lognormal3},
                                    {"outliers", golden::Fp4Kind::outliers},
                                    {"raw codes", golden::Fp4Kind::raw}};
constexpr const char *kDenseClasses[] = {"24 binades", "zeros, NaN, Inf",
                                         "full range"}; // kinds 1, ... of dense_operand
constexpr const char *kRecorded = "/operands/gla-27m.safetensors";

bool is_fp4(const UnitRule &rule) {
  return rule.a == FormatId::e2m1 && rule.b == FormatId::e2m1 && rule.scale_block != 0;
}

/// Normal deviates from a fixed sequence: sums of uniform words (Irwin-Hall), enough for operands.
struct Normal {
  uint64_t state;
  float operator()() {
    int64_t sum = 0;
    for (int i = 0; i < 3; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      sum += int64_t(state >> 33) + int64_t((state >> 13) & 0x7FFFFFFF) - (int64_t{1} << 31);
    }
    return float(double(sum) / (double(int64_t{1} << 31) / std::sqrt(2.0)));
  }
};

/// Quantizes rows of normals: scale = amax / largest element value, elements rounded to nearest.
GemmOperand quantized(const Unit &unit, Side side, int64_t rows, int64_t k, uint64_t seed) {
  const UnitRule &rule = unit.rule;
  const FormatId id = side == Side::a ? rule.a : rule.b;
  const Format f = format(id);
  const int64_t block = rule.scale_block == 0 ? 1 : rule.scale_block, blocks = (k + block - 1) / block;
  const int bits = f.storage_bits;
  const int64_t row_bytes = (k * bits + 7) / 8;
  std::vector<uint8_t> codes(size_t(rows * row_bytes), 0),
      scales(rule.scale_block == 0 ? 0 : size_t(rows * blocks));
  const float largest = value_f32(id, f.max_finite_magnitude());
  Normal normal{seed};
  std::vector<float> x(static_cast<size_t>(block));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t s = 0; s < blocks; ++s) {
      float amax = 0;
      for (float &v : x) {
        v = normal();
        amax = std::max(amax, std::fabs(v));
      }
      float scale = bits == 8 && rule.scale_block == 0 ? 0.01f : 1.0f;
      if (rule.scale_block != 0) {
        // NVFP4's global scale puts the block scales into the upper part of UE4M3
        const float wanted = rule.scale == FormatId::ue4m3 ? 448 * amax / 6 : amax / largest;
        const uint64_t code =
            rule.scale == FormatId::ue4m3
                ? encode(FormatId::ue4m3, wanted)
                : convert(format(FormatId::ue8m0), format(FormatId::f32), bit_cast<uint32_t>(wanted),
                          Rounding::upward, Overflow::satfinite);
        scales[size_t(r * blocks + s)] = uint8_t(code);
        scale = value_f32(rule.scale, code) * (rule.scale == FormatId::ue4m3 ? 1.0f / 448 : 1.0f);
      }
      for (int64_t i = 0; i < block && s * block + i < k; ++i) {
        const uint64_t word = encode(id, scale > 0 ? x[size_t(i)] / scale : 0.0f);
        const int64_t e = s * block + i;
        uint8_t *at = codes.data() + r * row_bytes + e * bits / 8;
        if (bits == 4)
          *at = uint8_t(*at | word << (e % 2 * 4));
        else
          std::memcpy(at, &word, size_t(bits / 8));
      }
    }
  return make_operand(unit, side, RawCodes{rows, k, codes}, RawScales(scales, ScaleLayout::linear));
}

} // namespace

std::span<const Work> works() { return kWorks; }

const Work &find_work(const std::string &name) {
  std::string names;
  for (const Work &w : kWorks) {
    if (name == w.name) return w;
    names += std::string(names.empty() ? "" : ", ") + w.name;
  }
  throw Error("unknown work '" + name + "'; choose from " + names);
}

std::vector<Shape> shapes(int64_t largest) {
  std::vector<Shape> list;
  for (const Shape &s : kSquares)
    if (s.m <= largest) list.push_back(s);
  list.insert(list.end(), std::begin(kLayers), std::end(kLayers));
  return list;
}

Operands make_operands(const Unit &unit, const Shape &s) {
  return {quantized(unit, Side::a, s.m, s.k, 1), quantized(unit, Side::b, s.n, s.k, 2)};
}

std::vector<float> normal_values(int64_t n) {
  std::vector<float> x(static_cast<size_t>(n));
  Normal normal{3};
  for (float &v : x) v = normal();
  return x;
}

std::vector<DataClass> data_classes(const Unit &unit, int64_t n, const std::string &golden_folder) {
  std::vector<DataClass> all;
  // made(second) gives the codes and scales of A or of B
  const auto add = [&](const std::string &name, auto made) {
    all.push_back({name, [&unit, made](Side side) {
                     const golden::HostOperand h = made(side == Side::b);
                     return make_operand(unit, side, RawCodes{h.rows, h.k, h.codes},
                                         RawScales(h.scales, ScaleLayout::linear));
                   }});
  };
  const UnitRule &rule = unit.rule;
  if (!is_fp4(rule)) {
    for (size_t i = 0; i < std::size(kDenseClasses); ++i)
      add(kDenseClasses[i], [&rule, n, kind = int(i) + 1](bool second) {
        return golden::dense_operand(rule, second, kind, n, n, second ? 2 : 1);
      });
    return all;
  }
  for (const auto &[name, fp4_kind] : kFp4Classes)
    add(name, [&rule, n, kind = fp4_kind](bool second) {
      return golden::fp4_operand(rule, kind, n, n, second ? 2 : 1);
    });
  if (!golden_folder.empty() && rule.scale == FormatId::ue4m3 && rule.scale_block == 16)
    for (const golden::RecordedProduct &r : golden::read_products(golden_folder + kRecorded))
      add("recorded " + r.name, [r, n](bool second) { return golden::repeated(second ? r.b : r.a, n, n); });
  return all;
}

Timing time_gemm(const Unit &unit, const GemmOperand &a, const GemmOperand &b, const Shape &s, int threads,
                 int repeats) {
  GemmOptions options;
  options.threads = threads;
  options.isa = tool::asked_isa();
  const GemmPlan plan(unit, options);
  const Blas &blas = Blas::instance();
  blas.set_threads(threads);
  const std::vector<float> a_f32 = normal_values(blas.loaded() ? s.m * s.k : 0),
                           b_f32 = normal_values(blas.loaded() ? s.n * s.k : 0);
  std::vector<float> c(size_t(s.m * s.n));
  const double operations = 2e-9 * double(s.m) * double(s.n) * double(s.k);
  const auto ours = [&] { (void)plan.run(a, b); };
  const auto theirs = [&] { blas.sgemm(int(s.m), int(s.n), int(s.k), a_f32.data(), b_f32.data(), c.data()); };
  const auto seconds = [](auto &&call, int times) {
    const double start = now();
    for (int i = 0; i < times; ++i) call();
    return (now() - start) / times;
  };
  const int times = std::max(1, int(0.02 / std::max(seconds(ours, 1), 1e-6))); // at least 20 ms a repeat
  int sgemm_times = 1;
  if (blas.loaded()) sgemm_times = std::max(1, int(0.02 / std::max(seconds(theirs, 1), 1e-6)));
  std::vector<double> rate, sgemm, ratio;
  for (int i = 0; i < repeats; ++i) {
    if (blas.loaded()) sgemm.push_back(operations / seconds(theirs, sgemm_times));
    rate.push_back(operations / seconds(ours, times));
    if (blas.loaded()) ratio.push_back(rate.back() / sgemm.back());
  }
  Timing t{median(rate), median(sgemm), median(ratio), 0, 0};
  if (!ratio.empty()) {
    t.ratio_low = *std::min_element(ratio.begin(), ratio.end());
    t.ratio_high = *std::max_element(ratio.begin(), ratio.end());
  }
  return t;
}

} // namespace nvfp4::bench
