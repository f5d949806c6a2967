// SPDX-License-Identifier: Apache-2.0
// Whole GEMMs of Hopper's tensor cores against the CPU's exact units, every output word: ragged shapes,
// unaligned rows, every epilogue, several distributions, then full size.
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/gpu/check/hopper.hpp"
#include "nvfp4/gpu/hopper/gemm_bf16.hpp"
#include "nvfp4/gpu/hopper/gemm_fp8.hpp"
#include "nvfp4/reference_models/backend/backend.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace nvfp4::crosscheck {
namespace {

/// How operands are made. `wide`: BF16 exponents from -32 to 32, any finite FP8 code; `specials`: the same
/// with few Inf, NaN. most.
enum class Values : uint8_t { normal, wide, specials };
const char *const kValueNames[] = {"normal", "wide", "specials"};

struct Case {
  FormatId a, b;
  bool mma;
  int64_t m, n, k, padding; ///< padding: elements between rows
  Values values;
  float alpha;
  Epilogue epilogue;
  bool bias;
};

uint32_t random_word(uint64_t seed, uint64_t i) {
  uint64_t x = (i + 1) * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return uint32_t(x >> 32);
}

/// Sum of four uniforms, scaled to unit variance.
float bell(uint64_t seed, uint64_t i) {
  float sum = 0;
  for (uint64_t j = 0; j < 4; ++j) sum += float(random_word(seed, 4 * i + j) >> 8) * 0x1p-24f - 0.5f;
  return sum * 1.7320508f;
}

bool finite(FormatId f, uint64_t code) {
  const Class cls = decode(format(f), code).cls;
  return cls != Class::nan && cls != Class::infinity;
}

/// Rows of k codes, `stride` apart. Nobody may read the gaps: bytes 0x7F, NaN in FP8 and 3e38 in BF16.
std::vector<uint8_t> operand(FormatId f, int64_t rows, int64_t k, int64_t stride, Values values,
                             uint64_t seed) {
  const size_t width = f == FormatId::bf16 ? 2 : 1;
  std::vector<uint8_t> codes(size_t(rows * stride) * width, 0x7F);
#pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i) {
      const uint64_t at = uint64_t(r * k + i);
      uint64_t code = encode(f, bell(seed, at));
      if (values != Values::normal) {
        uint32_t word = random_word(seed, at);
        // exponents of BF16 within +-32 of one, so that sums neither overflow nor vanish
        code = width == 2 ? (word & 0x8000) | (95 + (word >> 16) % 65) << 7 | (word & 0x7F) : word & 0xFF;
        while (!finite(f, code)) code = ++word & 0xFF;
        if (values == Values::specials && (word >> 8) % 65536 < 4)
          code = width == 2 ? 0x7F80 | (word & 0x8000) : 0x7E | (word & 1);
      }
      std::memcpy(codes.data() + size_t(r * stride + i) * width, &code, width);
    }
  return codes;
}

std::string unit_name(const Case &x) {
  if (x.mma) return "sm_90:mma.m16n8k16.f32.bf16";
  if (x.a == FormatId::bf16) return "sm_90:wgmma.k16.f32.bf16";
  return std::string("sm_90:wgmma.k32.f32.") + format(x.a).name + "." + format(x.b).name;
}

/// The CPU's outputs.
std::vector<float> expected(const Case &x, const std::vector<uint8_t> &a, const std::vector<uint8_t> &b,
                            const std::vector<float> &before, const std::vector<float> &bias) {
  const Unit &unit = find_unit(unit_name(x));
  const int64_t stride = x.k + x.padding, width = x.a == FormatId::bf16 ? 2 : 1;
  const auto dense = [&](const std::vector<uint8_t> &from, int64_t rows) {
    std::vector<uint8_t> to(size_t(rows * x.k * width));
    for (int64_t r = 0; r < rows && x.k > 0; ++r)
      std::memcpy(to.data() + r * x.k * width, from.data() + r * stride * width, size_t(x.k * width));
    return to;
  };
  std::vector<uint64_t> acc(size_t(x.m * x.n));
  GemmPlan(unit, {}).accumulate(make_operand(unit, Side::a, RawCodes{x.m, x.k, dense(a, x.m)}),
                                make_operand(unit, Side::b, RawCodes{x.n, x.k, dense(b, x.n)}), acc);
  std::vector<float> out(before);
#pragma omp parallel for
  for (int64_t i = 0; i < x.m * x.n; ++i)
    out[size_t(i)] = finish(x.epilogue, x.alpha, bit_cast<float>(uint32_t(acc[size_t(i)])), before[size_t(i)],
                            x.bias ? &bias[size_t(i % x.n)] : nullptr);
  return out;
}

Tally run(const Case &x) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t stride = x.k + x.padding;
  const std::vector<uint8_t> a = operand(x.a, x.m, x.k, stride, x.values, 1),
                             b = operand(x.b, x.n, x.k, stride, x.values, 2);
  std::vector<float> before(size_t(x.m * x.n)), bias(size_t(x.n));
  for (size_t i = 0; i < before.size(); ++i)
    before[i] = x.epilogue.into == Epilogue::Into::overwrite ? 0.0f : bell(3, i);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = bell(4, i);
  cuda::DeviceBuffer da, db, dbias, dout;
  da.upload(a), db.upload(b), dbias.upload(bias), dout.upload(before);
  const float *with = x.bias ? dbias.as<float>() : nullptr;
  if (x.a == FormatId::bf16)
    (x.mma ? cuda::gemm_bf16_mma : cuda::gemm_bf16)(da.as<uint16_t>(), db.as<uint16_t>(), x.m, x.n, x.k,
                                                    stride, stride, x.alpha, with, x.epilogue,
                                                    dout.as<float>(), nullptr);
  else
    cuda::gemm_fp8(x.a, x.b, da.as<uint8_t>(), db.as<uint8_t>(), x.m, x.n, x.k, stride, stride, x.alpha, with,
                   x.epilogue, dout.as<float>(), nullptr);
  const std::vector<float> got = dout.download<float>(x.m * x.n), want = expected(x, a, b, before, bias);
  int64_t wrong = 0, first = -1, nan = 0;
  for (int64_t i = 0; i < x.m * x.n; ++i) {
    nan += want[size_t(i)] != want[size_t(i)];
    if (bit_cast<uint32_t>(got[size_t(i)]) == bit_cast<uint32_t>(want[size_t(i)])) continue;
    if (wrong++ == 0) first = i;
  }
  const char *const into[] = {"overwrite", "accumulate", "add_rounded"};
  std::printf("%-32s %5lld x %5lld x %5lld +%lld %-8s alpha %-5g %-11s %s %s outputs %9lld (NaN %lld) "
              "mismatches %lld",
              unit_name(x).c_str(), (long long)x.m, (long long)x.n, (long long)x.k, (long long)x.padding,
              kValueNames[int(x.values)], x.alpha, into[int(x.epilogue.into)],
              x.epilogue.bf16 ? "bf16" : "f32 ", x.bias ? "bias" : "-   ", (long long)(x.m * x.n),
              (long long)nan, (long long)wrong);
  if (first >= 0)
    std::printf(" first (%lld, %lld) GPU %08x CPU %08x", (long long)(first / x.n), (long long)(first % x.n),
                bit_cast<uint32_t>(got[size_t(first)]), bit_cast<uint32_t>(want[size_t(first)]));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("  [%.1f s]\n", seconds.count());
  std::fflush(stdout);
  Tally tally;
  tally.values = uint64_t(x.m * x.n);
  tally.mismatches = uint64_t(wrong);
  if (wrong != 0) tally.first = unit_name(x) + ", output " + std::to_string(first);
  return tally;
}

std::vector<Case> cases(int64_t largest) {
  using enum FormatId;
  using enum Epilogue::Into;
  struct Kind {
    FormatId a, b;
    bool mma;
  };
  const Kind kinds[] = {{bf16, bf16, false}, {bf16, bf16, true},  {e4m3, e4m3, false},
                        {e5m2, e5m2, false}, {e4m3, e5m2, false}, {e5m2, e4m3, false}};
  std::vector<Case> all;
  for (const Kind &x : kinds) {
    const auto add = [&](int64_t m, int64_t n, int64_t k, int64_t padding, Values values, float alpha = 1.0f,
                         Epilogue epilogue = {}, bool bias = false) {
      if (std::max({m, n, k}) <= largest)
        all.push_back({x.a, x.b, x.mma, m, n, k, padding, values, alpha, epilogue, bias});
    };
    add(1, 1, 1, 0, Values::normal);
    add(5, 7, 0, 0, Values::normal);
    add(129, 257, 65, 0, Values::wide);
    add(130, 514, 200, 8, Values::specials);
    add(77, 93, 1000, 3, Values::normal, 0.37f, {overwrite, true}, true);
    add(256, 320, 512, 0, Values::wide, 1.7f, {accumulate, false}, true);
    add(256, 320, 512, 0, Values::normal, 0.9f, {add_rounded, true}, false);
    add(1024, 1024, 1024, 0, Values::specials);
    add(2048, 2816, 1000, 0, Values::normal);
    add(3001, 4099, 2053, 0, Values::wide);
    add(4096, 4096, 4096, 0, Values::wide);
    add(8192, 8192, 8192, 0, Values::normal);
  }
  return all;
}

} // namespace

bool has_hopper() {
  int devices = 0, major = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0 &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess && major == 9;
}

void require_hopper() {
  if (!has_hopper()) throw models::NoDevice("no suitable device: needs a GPU of compute capability 9.0");
}

Tally check_hopper_gemm(int64_t largest) {
  require_hopper();
  Tally total;
  for (const Case &x : cases(largest)) total.add(run(x));
  return total;
}

} // namespace nvfp4::crosscheck
