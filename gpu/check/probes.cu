// SPDX-License-Identifier: Apache-2.0
// Device code of the checks: the exhaustive comparison of the element encoders, and the rate of mma.sync.
#include "nvfp4/gpu/check/check.hpp"
#include "nvfp4/gpu/emulated/quantize_elements.cuh"

namespace nvfp4::crosscheck {
namespace {

/// The code of a word; all ones where the eight places of an encoder of eights differ.
template <FormatId element, ElementRounding rounding>
__device__ uint32_t code_of(float y, [[maybe_unused]] uint32_t r) {
  using enum ElementRounding;
  if constexpr (element == FormatId::e2m1 && (rounding == sr_carry8 || rounding == sr_te)) {
    const float same[8] = {y, y, y, y, y, y, y, y};
    const uint32_t random[2] = {r * 0x01010101u, r * 0x01010101u};
    const uint32_t codes = cuda::eight_codes<rounding>(same, random);
    return codes == (codes & 15) * 0x11111111u ? codes & 15 : 0xFFFFFFFFu;
  } else {
    return cuda::element_code<element, rounding>(y, r);
  }
}

template <FormatId element, ElementRounding rounding>
__global__ void compare_kernel(uint64_t *mismatches, uint64_t *first) {
  const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t w = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; w < (uint64_t{1} << 32); w += step) {
    const float y = bit_cast<float>(uint32_t(w));
    if (y != y) continue;
    // every word with some random bits, and the words near a carry with all that matter
    const uint32_t hash = uint32_t((w * 0x9E3779B97F4A7C15u) >> 32);
    for (int i = 0; i < (rounding == ElementRounding::nearest ? 1 : 4); ++i) {
      constexpr bool wide = rounding == ElementRounding::sr_exact;
      const uint32_t r8 = i == 0 ? 0 : i == 1 ? 255 : i == 2 ? hash & 255 : 255 - (uint32_t(w) >> 13 & 255);
      const uint32_t r = !wide    ? r8
                         : i == 0 ? 0
                         : i == 1 ? 0xFFFFFFFF
                         : i == 2 ? hash
                                  : 0u - (uint32_t(w) << 10);
      const uint32_t want = rounding == ElementRounding::nearest     ? uint32_t(encode(element, y))
                            : rounding == ElementRounding::sr_carry8 ? uint32_t(encode_carry8(element, y, r))
                            : rounding == ElementRounding::sr_exact ? uint32_t(encode_exact_sr(element, y, r))
                                                                    : uint32_t(encode_te_sr(y, r));
      if (code_of<element, rounding>(y, r) != want) {
        atomicAdd(reinterpret_cast<unsigned long long *>(mismatches), 1ull);
        *first = w << 8 | r8;
      }
    }
  }
}

template <FormatId element, ElementRounding rounding> Tally compare(const char *what) {
  cuda::DeviceBuffer out(16);
  cuda::check(cudaMemset(out.as<void>(), 0, 16), "cudaMemset");
  compare_kernel<element, rounding><<<4096, 256>>>(out.as<uint64_t>(), out.as<uint64_t>() + 1);
  cuda::check_launch("compare_kernel");
  const std::vector<uint64_t> got = out.download<uint64_t>(2);
  Tally t;
  t.values =
      ((uint64_t{1} << 32) - 2 * ((uint64_t{1} << 23) - 1)) * (rounding == ElementRounding::nearest ? 1 : 4);
  if (got[0] != 0) {
    t.mismatch(std::string(what) + ": word and random bits " + std::to_string(got[1]));
    t.mismatches = got[0];
  }
  t.print(what);
  return t;
}

/// Every word for which divide_by_1536 answers, against the machine's division.
__global__ void division_kernel(uint64_t *mismatches, uint64_t *first) {
  const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t w = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; w < (uint64_t{1} << 32); w += step) {
    const float a = bit_cast<float>(uint32_t(w)), magnitude = fabsf(a);
    if (!(magnitude >= 0x1p-70f && magnitude <= 0x1p80f) && magnitude != 0.0f) continue;
    if (cuda::divide_by_1536(a) == __fdiv_rn(a, 1536.0f)) continue; // -0 may become +0: it is subtracted from
    atomicAdd(reinterpret_cast<unsigned long long *>(mismatches), 1ull);
    *first = w;
  }
}

Tally compare_division() {
  cuda::DeviceBuffer out(16);
  cuda::check(cudaMemset(out.as<void>(), 0, 16), "cudaMemset");
  division_kernel<<<4096, 256>>>(out.as<uint64_t>(), out.as<uint64_t>() + 1);
  cuda::check_launch("division_kernel");
  const std::vector<uint64_t> got = out.download<uint64_t>(2);
  Tally t;
  t.values = 2 * (150 * (uint64_t{1} << 23) + 2); // 2^-70 to 2^80, and 0
  if (got[0] != 0) {
    t.mismatch("division by 1536: word " + std::to_string(got[1]));
    t.mismatches = got[0];
  }
  t.print("elements division by 1536, 2^-70 to 2^80");
  return t;
}

__global__ void bf16_rate(float *out, int repeats) {
  float d[8][4] = {};
  const uint32_t a = threadIdx.x * 0x00010001u + 0x3F803F80u, b = a ^ 0x00400040u;
  for (int i = 0; i < repeats; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j)
      asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%4,%5}, "
                   "{%5,%4}, {%0,%1,%2,%3};"
                   : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
                   : "r"(a), "r"(b));
  float sum = 0.0f;
  for (int j = 0; j < 8; ++j) sum += d[j][0] + d[j][1] + d[j][2] + d[j][3];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

__global__ void s8_rate(float *out, int repeats) {
  int d[8][4] = {};
  const uint32_t a = threadIdx.x * 0x01030507u, b = a ^ 0x55AA1234u;
  for (int i = 0; i < repeats; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j)
      asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%4,%5}, {%5,%4}, "
                   "{%0,%1,%2,%3};"
                   : "+r"(d[j][0]), "+r"(d[j][1]), "+r"(d[j][2]), "+r"(d[j][3])
                   : "r"(a), "r"(b));
  int sum = 0;
  for (int j = 0; j < 8; ++j) sum += d[j][0] + d[j][1] + d[j][2] + d[j][3];
  out[blockIdx.x * blockDim.x + threadIdx.x] = float(sum);
}

} // namespace

Tally check_elements() {
  Tally t;
  t.add(compare<FormatId::e2m1, ElementRounding::nearest>("elements e2m1 nearest, all words"));
  t.add(compare<FormatId::e4m3, ElementRounding::nearest>("elements e4m3 nearest, all words"));
  t.add(compare<FormatId::e5m2, ElementRounding::nearest>("elements e5m2 nearest, all words"));
  t.add(compare<FormatId::e2m1, ElementRounding::sr_carry8>("elements e2m1 sr_carry8, all words x 4"));
  t.add(compare<FormatId::e2m1, ElementRounding::sr_te>("elements e2m1 sr_te, all words x 4"));
  t.add(compare<FormatId::e2m1, ElementRounding::sr_exact>("elements e2m1 sr_exact, all words x 4"));
  t.add(compare<FormatId::e4m3, ElementRounding::sr_carry8>("elements e4m3 sr_carry8, all words x 4"));
  t.add(compare<FormatId::e4m3, ElementRounding::sr_exact>("elements e4m3 sr_exact, all words x 4"));
  t.add(compare<FormatId::e5m2, ElementRounding::sr_carry8>("elements e5m2 sr_carry8, all words x 4"));
  t.add(compare<FormatId::e5m2, ElementRounding::sr_exact>("elements e5m2 sr_exact, all words x 4"));
  t.add(compare_division());
  return t;
}

double mma_peak(bool integers) {
  int sms = 0;
  cuda::check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0), "device attribute");
  const int blocks = sms * 2, threads = 512, repeats = 4096;
  cuda::DeviceBuffer out(int64_t(blocks) * threads * 4);
  cudaEvent_t from, to;
  cuda::check(cudaEventCreate(&from), "cudaEventCreate");
  cuda::check(cudaEventCreate(&to), "cudaEventCreate");
  float best = 1e9f;
  for (int i = 0; i < 5; ++i) {
    cuda::check(cudaEventRecord(from), "cudaEventRecord");
    if (integers)
      s8_rate<<<blocks, threads>>>(out.as<float>(), repeats);
    else
      bf16_rate<<<blocks, threads>>>(out.as<float>(), repeats);
    cuda::check(cudaEventRecord(to), "cudaEventRecord");
    cuda::check(cudaEventSynchronize(to), "cudaEventSynchronize");
    float ms = 0;
    cuda::check(cudaEventElapsedTime(&ms, from, to), "cudaEventElapsedTime");
    best = ms < best ? ms : best;
  }
  cudaEventDestroy(from);
  cudaEventDestroy(to);
  return 2.0 * 16 * 8 * (integers ? 32 : 16) * 8 * repeats * (threads / 32) * blocks / (best * 1e-3);
}

} // namespace nvfp4::crosscheck
