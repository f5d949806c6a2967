// SPDX-License-Identifier: Apache-2.0
// Units with FP32 and FP16 accumulators of the fdpa and st_fdpa families, as emulator/gemm's FDPA engine computes
// them: products in FP32, cut to integers below the largest exponent, 32-bit sums. Outputs that meet NaN, Inf
// or the ends of FP32 go to the definition. README.md says why the bits are the definition's.
#include "nvfp4/gpu/emulated/gemm_detail.cuh"

#include <cuda_fp16.h>

namespace nvfp4::cuda {
namespace {

constexpr int kTile = 64, kThreads = 256,
              kDepth = 32;             // 64 x 64 outputs, K = 32 at a time; a thread has 4 x 4
constexpr int kZeroExponent = -0x2000; // never the largest
/// Conditions of emulator/gemm's FDPA engine, stated there in RowRange; here met element by element.
constexpr int kLowest = -100, kHighest = 80;

/// An element as value and exponent field, its block's scale exponent included in the exponent only.
struct Element {
  float value;
  int exponent;
};

struct Panel {
  float value[kDepth][kTile + 4];
  int16_t exponent[kDepth][kTile + 4];
};

struct FdpaJob {
  UnitRule rule;
  DeviceOperand a, b;
  GemmOutput out;
  TilesLeft tiles;
};

/// Reads kTile rows of K elements [k, k + kDepth) and notes what would void the shortcut: NaN or Inf, or
/// exponents whose sum with any of the other side's could leave the range.
template <FormatId id, bool scaled>
__device__ inline void fill(Panel &p, int &bad, int &low, int &high, const DeviceOperand &x, int64_t first,
                            int64_t k, FormatId scale) {
  constexpr Format f = format(id);
  for (int at = int(threadIdx.x); at < kTile * kDepth; at += kThreads) {
    const int r = at / kDepth, i = at % kDepth;
    float value = 0.0f;
    int exponent = kZeroExponent;
    if (first + r < x.rows && k + i < x.padded_k) {
      const CodeView row{x.codes + (first + r) * (x.padded_k * f.storage_bits / 8), f.storage_bits};
      const uint64_t word = row[k + i];
      const Decoded d = decode(f, word);
      int shift = 0;
      if constexpr (scaled) {
        const Decoded s = decode(format(scale), x.scales[(first + r) * (x.padded_k / 32) + (k + i) / 32]);
        if (s.cls == Class::nan) bad = 1;
        shift = s.exponent;
      }
      if (d.cls == Class::nan || d.cls == Class::infinity) bad = 1;
      if (d.cls == Class::finite) {
        // the value without its scale: BF16 and TF32 are FP32 words, the others are exact in FP32
        value = float(int64_t(d.significand)) *
                bit_cast<float>(uint32_t(max(d.exponent - f.mantissa_bits, -126) + 127) << 23);
        if (d.exponent - f.mantissa_bits < -126) bad = 1;
        if (d.negative) value = -value;
        exponent = d.exponent + shift;
        low = min(low, exponent);
        high = max(high, exponent);
      }
    }
    p.value[i][r] = value;
    p.exponent[i][r] = int16_t(exponent);
  }
}

/// The chain of one output by the definition.
__device__ __noinline__ uint64_t defined_dot(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                                             int64_t row, int64_t col) {
  const int bits_a = format(rule.a).storage_bits, bits_b = format(rule.b).storage_bits;
  DotOperands op{{a.codes + row * (a.padded_k * bits_a / 8), bits_a},
                 {b.codes + col * (b.padded_k * bits_b / 8), bits_b}};
  if (rule.scale_block != 0) {
    op.scale_a = a.scales + row * (a.padded_k / rule.scale_block);
    op.scale_b = b.scales + col * (b.padded_k / rule.scale_block);
  }
  return dot(rule, op, a.padded_k, 0);
}

/// The exponent that an accumulator in an FP32 word adds to a step's largest one: at least `floor`. FP16's
/// subnormals have the exponent of its least normal number.
template <Output output> __device__ inline int accumulator_top(float acc, int floor) {
  const int exponent = int((bit_cast<uint32_t>(acc) >> 23) & 0xFF) - 127;
  if constexpr (output == Output::rne_f16)
    return acc == 0.0f ? floor : max(exponent, -14);
  else
    // products reach kLowest, so accumulators are multiples of 2^(kLowest - F) and lose nothing there
    return max(exponent, kLowest);
}

/// sum * 2^e as an accumulator; FP16's as FP32 words. |sum| < 2^53, e within FP64's exponents.
template <Output output> __device__ inline float accumulator_of(int64_t sum, int e) {
  float r;
  if constexpr (output == Output::rne_f16) {
    const double scale = __longlong_as_double(static_cast<long long>(e + 1023) << 52);
    r = __half2float(__double2half(__ll2double_rn(sum) * scale)); // exact, then one rounding
  } else {
    r = __ll2float_rz(sum) * bit_cast<float>(uint32_t(e + 127) << 23);
    if constexpr (output == Output::rz_e8m13) r = bit_cast<float>(bit_cast<uint32_t>(r) & 0xFFFFFC00u);
  }
  return r == 0.0f ? 0.0f : r;
}

template <FormatId fa, FormatId fb, int link, int fraction, bool scaled, Output output>
__global__ void __launch_bounds__(kThreads) fdpa_kernel(const __grid_constant__ FdpaJob job) {
  __shared__ Panel a, b;
  __shared__ int extremes[4];
  const int64_t row = int64_t(blockIdx.y) * kTile, col = int64_t(blockIdx.x) * kTile;
  if (!job.tiles.has(row, col)) return;
  const int ty = int(threadIdx.x) / 16 * 4, tx = int(threadIdx.x) % 16 * 4;
  float acc[4][4] = {};
  int bad = 0, low_a = 0x3FFF, high_a = -0x3FFF, low_b = 0x3FFF, high_b = -0x3FFF;
  for (int64_t k = 0; k < job.a.padded_k; k += kDepth) {
    __syncthreads();
    fill<fa, scaled>(a, bad, low_a, high_a, job.a, row, k, job.rule.scale);
    fill<fb, scaled>(b, bad, low_b, high_b, job.b, col, k, job.rule.scale);
    __syncthreads();
    for (int l = 0; l < kDepth && k + l < job.a.padded_k; l += link) {
      int top[4][4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          top[i][j] = accumulator_top<output>(acc[i][j], job.rule.floor);
        }
#pragma unroll 4
      for (int q = 0; q < link; ++q) {
        int ea[4], eb[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) ea[i] = a.exponent[l + q][ty + i], eb[i] = b.exponent[l + q][tx + i];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) top[i][j] = max(top[i][j], ea[i] + eb[j]);
      }
      // 2^(F - top), the scales' exponents taken out for the products, which do not carry them
      int64_t sum[4][4];
      float lift[4][4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int up = fraction - top[i][j];
          sum[i][j] = int64_t(__float2int_rz(acc[i][j] * bit_cast<float>(uint32_t(up + 127) << 23)));
          int shift = 0;
          if constexpr (scaled) {
            const int64_t blocks = job.a.padded_k / 32, at = (k + l) / 32;
            const int64_t r = min(row + ty + i, job.a.rows - 1), c = min(col + tx + j, job.b.rows - 1);
            shift = int(job.a.scales[r * blocks + at]) + int(job.b.scales[c * blocks + at]) - 254;
          }
          // a block of zeros may have any scale; 0 times anything finite is 0
          lift[i][j] = bit_cast<float>(uint32_t(min(max(up + shift, -126), 127) + 127) << 23);
        }
#pragma unroll
      for (int half = 0; half < (link + 15) / 16; ++half) {
        int part[4][4] = {}; // 16 terms below (2 - 2^-10)^2 * 2^25 stay below 2^31
#pragma unroll 4
        for (int q = half * 16; q < (half + 1) * 16 && q < link; ++q) {
          float va[4], vb[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) va[i] = a.value[l + q][ty + i], vb[i] = b.value[l + q][tx + i];
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) part[i][j] += __float2int_rz(va[i] * vb[j] * lift[i][j]);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[i][j] += part[i][j];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          acc[i][j] = accumulator_of<output>(sum[i][j], top[i][j] - fraction);
          if (output == Output::rne_f16 && isinf(acc[i][j])) bad = 1;
        }
    }
  }
  // one NaN, Inf or far exponent in the tile sends the whole tile to the definition
  if (threadIdx.x < 4) extremes[threadIdx.x] = threadIdx.x % 2 == 0 ? 0x3FFF : -0x3FFF;
  __syncthreads();
  atomicMin(&extremes[0], low_a);
  atomicMax(&extremes[1], high_a);
  atomicMin(&extremes[2], low_b);
  atomicMax(&extremes[3], high_b);
  const bool void_tile = __syncthreads_or(bad) != 0 ||
                         (extremes[0] <= extremes[1] && extremes[2] <= extremes[3] &&
                          (extremes[0] + extremes[2] < kLowest || extremes[1] + extremes[3] > kHighest));
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const int64_t r = row + ty + i, c = col + tx + j;
      if (r >= job.a.rows || c >= job.b.rows) continue;
      const uint64_t word = void_tile ? defined_dot(job.rule, job.a, job.b, r, c)
                            : output == Output::rne_f16
                                ? uint64_t(__half_as_ushort(__float2half_rn(acc[i][j])))
                                : uint64_t(bit_cast<uint32_t>(acc[i][j]));
      write_output(job.out, output == Output::rne_f16 ? FormatId::f16 : FormatId::f32, job.b.rows, r, c, word);
    }
}

/// Calls the kernel of a unit's numbers, if there is one.
template <FormatId a, FormatId b = a> bool launch(const FdpaJob &job, cudaStream_t stream) {
  const UnitRule &r = job.rule;
  const dim3 grid(blocks_for(job.b.rows, kTile), blocks_for(job.a.rows, kTile));
  if (grid.y > 65535) return false;
  const auto run = [&](auto kernel) {
    kernel<<<grid, kThreads, 0, stream>>>(job);
    check_launch("fdpa_kernel");
    return true;
  };
  const auto is = [&](int link, int fraction, Output output, bool scaled = false) {
    return r.link == link && r.fraction_bits == fraction && r.output == output &&
           (r.family == Family::st_fdpa) == scaled;
  };
  using enum Output;
  if constexpr (a == FormatId::bf16 || a == FormatId::f16) {
    if (is(16, 25, rz_f32)) return run(fdpa_kernel<a, b, 16, 25, false, rz_f32>);
    if (is(8, 24, rz_f32)) return run(fdpa_kernel<a, b, 8, 24, false, rz_f32>);
    if constexpr (a == FormatId::f16)
      if (is(8, 24, rne_f16)) return run(fdpa_kernel<a, b, 8, 24, false, rne_f16>);
  } else {
    if (is(32, 25, rz_f32, true)) return run(fdpa_kernel<a, b, 32, 25, true, rz_f32>);
    if (is(32, 25, rz_f32)) return run(fdpa_kernel<a, b, 32, 25, false, rz_f32>);
    if (is(32, 13, rz_e8m13)) return run(fdpa_kernel<a, b, 32, 13, false, rz_e8m13>);
    if (is(16, 13, rz_e8m13)) return run(fdpa_kernel<a, b, 16, 13, false, rz_e8m13>);
    if (is(32, 25, rne_f16)) return run(fdpa_kernel<a, b, 32, 25, false, rne_f16>);
    if (is(32, 13, rne_f16)) return run(fdpa_kernel<a, b, 32, 13, false, rne_f16>);
    if (is(16, 13, rne_f16)) return run(fdpa_kernel<a, b, 16, 13, false, rne_f16>);
  }
  return false;
}

} // namespace

bool gemm_fdpa(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b, const GemmOutput &output,
               const TilesLeft &tiles, cudaStream_t stream) {
  const bool half = rule.output == Output::rne_f16;
  if ((rule.family != Family::fdpa && rule.family != Family::st_fdpa) ||
      rule.acc != (half ? FormatId::f16 : FormatId::f32) || (!half && rule.floor > kLowest) || a.padded_k == 0)
    return false;
  const FdpaJob job{rule, a, b, output, tiles};
  using enum FormatId;
  if (rule.a == e4m3 && rule.b == e5m2) return launch<e4m3, e5m2>(job, stream);
  if (rule.a == e5m2 && rule.b == e4m3) return launch<e5m2, e4m3>(job, stream);
  if (rule.a != rule.b) return false;
  switch (rule.a) {
  case bf16: return launch<bf16>(job, stream);
  case f16: return launch<f16>(job, stream);
  case e4m3: return launch<e4m3>(job, stream);
  case e5m2: return launch<e5m2>(job, stream);
  default: return false;
  }
}

} // namespace nvfp4::cuda
