// SPDX-License-Identifier: Apache-2.0
// Prepares FP4 operands for gemm_fp4.cu: elements times scale as BF16, which is exact, and per step of K = 64
// the ranges that decide whether sums are exact and whether alignment can cut anything.
#include "nvfp4/gpu/emulated/gemm_fp4_expand.cuh"
#include "nvfp4/gpu/emulated/gemm_fp4_halves.hpp"

namespace nvfp4::cuda {
namespace {

/// One step of one row. norm2 is an upper bound.
struct RawStep {
  double norm2;    ///< sum of squares of element times scale
  int8_t max, min; ///< scale exponents over groups that count; max < min when there is none
  int8_t nan;      ///< a scale is NaN
  uint8_t half;    ///< width of the wider half
  int32_t lsb; ///< every element times scale is a multiple of 2^lsb; 127 when all are zero
};

__device__ inline uint32_t field(int x) { return uint32_t(min(max(x, 0), kSaturated)); }

/// A scale; FP4 units have these two formats.
__device__ inline GroupScale scale_of(FormatId id, uint8_t code) {
  return id == FormatId::ue4m3 ? decode_scale(FormatId::ue4m3, code) : decode_scale(FormatId::ue8m0, code);
}

constexpr int kRows = 32, kSteps = 4; ///< of a block of expand_kernel: a lane a row, a warp a step

/// A thread per step of a row: 64 codes to 64 BF16 values, which reach memory in whole lines by way of shared
/// memory.
__global__ void __launch_bounds__(kRows *kSteps)
    expand_kernel(FormatId scale_format, int scale_block, DeviceOperand x, int64_t padded_rows, int64_t steps,
                  uint16_t *values, RawStep *raw, Presence *presence, uint8_t *halves) {
  __shared__ uint4 staged[kSteps][kRows * 8];
  const int lane = int(threadIdx.x) % kRows, warp = int(threadIdx.x) / kRows;
  const unsigned step_blocks = unsigned((steps + kSteps - 1) / kSteps);
  const int64_t first_row = int64_t(blockIdx.x / step_blocks) * kRows, row = first_row + lane;
  const int64_t t = int64_t(blockIdx.x % step_blocks) * kSteps + warp;
  if (t >= steps) return; // whole warps
  RawStep out{0.0, -128, 127, 0, 0, 127};
  Presence seen{{0, 0}, {0, 0, 0, 0}, 0};
  GroupNorm norms[kMaxGroups];
  const auto put = [&](int piece, uint4 v) { staged[warp][lane * 8 + (piece ^ (lane & 7))] = v; };
  uint4 words[2] = {};
  uint32_t scales = 0; // a byte a group
  if (row < x.rows) {
    const int64_t at = row * steps + t;
    words[0] = reinterpret_cast<const uint4 *>(x.codes)[2 * at];
    words[1] = reinterpret_cast<const uint4 *>(x.codes)[2 * at + 1];
    if (scale_block == kGroup) {
      scales = reinterpret_cast<const uint32_t *>(x.scales)[at];
    } else { // two groups a scale
      const uint32_t two = reinterpret_cast<const uint16_t *>(x.scales)[at];
      scales = (two & 255) * 0x0101u | (two >> 8) * 0x01010000u;
    }
  }
#pragma unroll
  for (int g = 0; g < kMaxGroups; ++g) {
    norms[g] = {0.0, 0, 0};
    const uint4 both = words[g / 2];
    const uint2 codes = g % 2 == 0 ? make_uint2(both.x, both.y) : make_uint2(both.z, both.w);
    const GroupScale scale = scale_of(scale_format, uint8_t(scales >> (8 * g)));
    if (scale.nan) out.nan = 1;
    // beyond these exponents BF16 could not hold the products' factors; such rows are computed by the
    // definition
    const bool fits = !scale.nan && scale.exponent >= kLowestScale && scale.exponent <= kHighestScale;
    const uint32_t pair = fits ? scale_pair(scale.significand, scale.exponent) : 0;
    uint32_t values[2][4];
    GroupCodes seen_codes;
    expand_eight(codes.x, pair, values[0], seen_codes);
    expand_eight(codes.y, pair, values[1], seen_codes);
#pragma unroll
    for (int i = 0; i < 2; ++i)
      put(2 * g + i, make_uint4(values[i][0], values[i][1], values[i][2], values[i][3]));
    if (seen_codes.squares == 0 || scale.nan || scale.significand == 0) continue;
    const int e = scale.exponent, m = int(scale.significand);
    (g < 2 ? seen.codes.x : seen.codes.y) |= seen_codes.nonzero << (g % 2 * 16);
    seen.exponent[g] = int8_t(e);
    out.max = int8_t(max(int(out.max), e));
    out.min = int8_t(min(int(out.min), e));
    norms[g] = {double(int(seen_codes.squares) * m * m) * power_f64(2 * (e - 4)), e,
                seen_codes.twos() + __ffs(m) - 1 + e - 4};
    out.lsb = min(out.lsb, norms[g].lsb);
    out.norm2 = sum_up(out.norm2, norms[g].norm2);
  }
  const StepHalves half = halves_of(norms, out.max < out.min ? 0 : ceil_log2(out.norm2) - 2 * out.lsb);
  out.half = uint8_t(field(half.width));
  halves[t * padded_rows + row] = uint8_t(half.low);
  raw[t * padded_rows + row] = out;
  presence[t * padded_rows + row] = seen;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 8; ++i) { // 4 rows of 128 bytes
    const int r = i * 4 + lane / 8, piece = lane % 8;
    reinterpret_cast<uint4 *>(values + ((first_row + r) * steps + t) * 64)[piece] =
        staged[warp][r * 8 + (piece ^ (r & 7))];
  }
}

/// The larger of each byte.
__device__ inline uint32_t worst(uint32_t a, uint32_t b) { return __vmaxu4(a, b); }

/// What earlier steps of a row leave for later ones.
struct Prefix {
  double norm2 = 0.0; ///< of all elements, rounded up
  int lsb = 127;

  __device__ void add(const RawStep &s) {
    if (s.max < s.min) return;
    norm2 = sum_up(norm2, s.norm2);
    lsb = min(lsb, s.lsb);
  }
  __device__ void add(const Prefix &p) {
    norm2 = sum_up(norm2, p.norm2);
    lsb = min(lsb, p.lsb);
  }
};

constexpr int kParts = 16; ///< of a row's steps in scan_kernel, a warp each

/// A lane per row, a warp per part of its steps: first what each part leaves, then its ranges. The worst of 8
/// rows is written.
__global__ void __launch_bounds__(32 * kParts)
    scan_kernel(const RawStep *raw, int64_t padded_rows, int64_t steps, uint32_t *ranges8, uint8_t *halves8,
                RowInfo *rows) {
  __shared__ Prefix left[kParts][32];
  __shared__ RowInfo info[kParts][32];
  const int lane = int(threadIdx.x) % 32, part = int(threadIdx.x) / 32;
  const int64_t row = int64_t(blockIdx.x) * 32 + lane;
  const int64_t first = steps * part / kParts, end = steps * (part + 1) / kParts;
  Prefix own;
  RowInfo seen{127, -128, 0, 0, 0, 0};
#pragma unroll 4
  for (int64_t t = first; t < end; ++t) {
    const RawStep s = raw[t * padded_rows + row];
    own.add(s);
    seen.nan = int16_t(seen.nan | s.nan);
    if (s.max < s.min) continue;
    seen.min = min(seen.min, int16_t(s.min));
    seen.max = max(seen.max, int16_t(s.max));
  }
  left[part][lane] = own;
  info[part][lane] = seen;
  __syncthreads();
  Prefix before;
  for (int p = 0; p < part; ++p) before.add(left[p][lane]);
#pragma unroll 4
  for (int64_t t = first; t < end; ++t) {
    const RawStep s = raw[t * padded_rows + row];
    uint32_t packed = 0; // a step without products: nothing to cut, whatever the other operand holds
    if (s.max >= s.min) {
      const int growth = before.norm2 == 0.0 ? 0 : ceil_log2(before.norm2) - 2 * s.lsb;
      before.add(s);
      packed = field(ceil_log2(s.norm2) - 2 * s.lsb) | field(growth) << 8 |
               field(int(s.max) - before.lsb) << 16 | uint32_t(min(max(127 - s.lsb, 0), 255)) << 24;
    }
    uint32_t half = s.half;
    for (int d = 1; d < 8; d *= 2) {
      packed = worst(packed, __shfl_xor_sync(0xFFFFFFFF, packed, d));
      half = max(half, __shfl_xor_sync(0xFFFFFFFF, half, d));
    }
    if (row % 8 == 0) {
      ranges8[(t * padded_rows + row) / 8] = packed;
      halves8[(t * padded_rows + row) / 8] = uint8_t(half);
    }
  }
  if (part != 0) return;
  for (int p = 1; p < kParts; ++p) {
    const RowInfo &other = info[p][lane];
    seen.min = min(seen.min, other.min);
    seen.max = max(seen.max, other.max);
    seen.nan = int16_t(seen.nan | other.nan);
  }
  Prefix all = own;
  for (int p = 1; p < kParts; ++p) all.add(left[p][lane]);
  if (!seen.empty()) {
    seen.lsb = int16_t(all.lsb);
    seen.norm = int16_t((ceil_log2(all.norm2) + 1) >> 1);
  }
  rows[row] = seen;
}

__global__ void coarsen_kernel(const uint32_t *ranges8, int64_t count, uint32_t *ranges128) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  uint32_t w = 0;
  for (int j = 0; j < 16; ++j) w = worst(w, ranges8[i * 16 + j]);
  ranges128[i] = w;
}

__global__ void pad_kernel(const uint8_t *from, int64_t from_bytes, uint8_t *to, int64_t to_bytes,
                           int64_t rows, uint8_t fill) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows * to_bytes) return;
  const int64_t row = i / to_bytes, at = i % to_bytes;
  to[i] = at < from_bytes ? from[row * from_bytes + at] : fill;
}

void pad(const uint8_t *from, int64_t from_bytes, DeviceBuffer &to, int64_t to_bytes, int64_t rows,
         uint8_t fill, cudaStream_t stream) {
  to.reserve(rows * to_bytes);
  if (rows * to_bytes == 0) return;
  pad_kernel<<<blocks_for(rows * to_bytes, 256), 256, 0, stream>>>(from, from_bytes, to.as<uint8_t>(),
                                                                   to_bytes, rows, fill);
  check_launch("pad_kernel");
}

} // namespace

DeviceOperand pad_operand(const UnitRule &rule, const DeviceOperand &operand, DeviceBuffer &codes,
                          DeviceBuffer &scales, cudaStream_t stream) {
  DeviceOperand p = operand;
  if (operand.padded_k % rule.k == 0) return p;
  p.padded_k = (operand.padded_k + rule.k - 1) / rule.k * rule.k;
  const int bits = format(operand.format).storage_bits;
  pad(operand.codes, operand.padded_k * bits / 8, codes, p.padded_k * bits / 8, operand.rows, 0, stream);
  p.codes = codes.as<uint8_t>();
  if (rule.scale_block != 0) {
    const uint8_t one = uint8_t(format(rule.scale).one());
    pad(operand.scales, rule.scale_row(operand.padded_k), scales, rule.scale_row(p.padded_k),
        operand.rows, one, stream);
    p.scales = scales.as<uint8_t>();
  }
  return p;
}

void prepare_fp4(const UnitRule &rule, const DeviceOperand &operand, Fp4Operand &out, cudaStream_t stream) {
  if (rule.family != Family::gst_fdpa || operand.format != FormatId::e2m1 || operand.scales == nullptr ||
      (rule.scale != FormatId::ue4m3 && rule.scale != FormatId::ue8m0) || operand.rows <= 0 ||
      operand.padded_k <= 0 || operand.padded_k % rule.scale_block != 0)
    throw Error(
        "cuda::prepare_fp4: expected E2M1 codes with block scales for an FP4 unit, padded K a multiple of " +
        std::to_string(rule.scale_block) + "; got " + std::to_string(operand.rows) + " x " +
        std::to_string(operand.padded_k));
  out.source = pad_operand(rule, operand, out.codes, out.scales, stream);
  out.scale = rule.scale;
  out.scale_block = rule.scale_block;
  const int64_t rows = out.padded_rows = (operand.rows + 127) / 128 * 128,
                steps = out.steps = out.source.padded_k / 64;
  out.values.reserve(rows * steps * 128);
  out.raw.reserve(rows * steps * int64_t(sizeof(RawStep)));
  out.presence.reserve(rows * steps * int64_t(sizeof(Presence)));
  out.halves.reserve(rows * steps);
  out.halves8.reserve(rows * steps / 8);
  out.ranges8.reserve(rows * steps / 2);
  out.ranges128.reserve(rows * steps / 32);
  out.row_info.reserve(rows * int64_t(sizeof(RowInfo)));
  RawStep *const raw = out.raw.as<RawStep>();
  const int64_t blocks = rows / kRows * ((steps + kSteps - 1) / kSteps);
  expand_kernel<<<blocks_for(blocks, 1), kRows * kSteps, 0, stream>>>(
      rule.scale, rule.scale_block, out.source, rows, steps, out.values.as<uint16_t>(), raw,
      out.presence.as<Presence>(), out.halves.as<uint8_t>());
  check_launch("expand_kernel");
  scan_kernel<<<blocks_for(rows, 32), 32 * kParts, 0, stream>>>(raw, rows, steps, out.ranges8.as<uint32_t>(),
                                                                out.halves8.as<uint8_t>(),
                                                                out.row_info.as<RowInfo>());
  check_launch("scan_kernel");
  const int64_t count = rows / 128 * steps;
  coarsen_kernel<<<blocks_for(count, 128), 128, 0, stream>>>(out.ranges8.as<uint32_t>(), count,
                                                             out.ranges128.as<uint32_t>());
  check_launch("coarsen_kernel");
}

} // namespace nvfp4::cuda
