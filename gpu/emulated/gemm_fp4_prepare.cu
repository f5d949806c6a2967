// SPDX-License-Identifier: Apache-2.0
// Prepares FP4 operands for gemm_fp4.cu: elements times scale as BF16, which is exact, and per step of K = 64
// the ranges that decide whether sums are exact and whether alignment can cut anything.
#include "nvfp4/gpu/emulated/gemm_fp4_expand.cuh"
#include "nvfp4/gpu/emulated/gemm_fp4_carry.hpp"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

/// One step of one row. norm2 is an upper bound.
struct RawStep {
  double norm2;    ///< sum of squares of element times scale
  int8_t max, min; ///< scale exponents over groups that count; max < min when there is none
  int8_t nan;      ///< a scale is NaN
  uint8_t half;    ///< width of the wider half
  int32_t lsb; ///< every element times scale is a multiple of 2^lsb; 127 when all are zero
  int8_t lsbs[4]; ///< of the groups, by their scales alone: what their codes happen to be would part groups of one kind
  uint16_t norms[4]; ///< sums of squares of the groups, the upper half of an FP32 rounded up

  [[nodiscard]] __device__ uint64_t leasts() const {
    uint64_t set = 0;
#pragma unroll
    for (int g = 0; g < 4; ++g)
      if (norms[g] != 0) set |= least_bit(lsbs[g]);
    return set;
  }
  [[nodiscard]] __device__ CarriedStep carried(int least, int grid) const {
    double n[4];
    int l[4];
#pragma unroll
    for (int g = 0; g < 4; ++g) n[g] = double(__uint_as_float(uint32_t(norms[g]) << 16)), l[g] = lsbs[g];
    return carried_step_of(n, l, least, grid);
  }
};

/// The upper half of an FP32 that is at least x.
__device__ inline uint16_t upper_half(double x) { return uint16_t((__float_as_uint(__double2float_ru(x)) + 0xFFFF) >> 16); }

__device__ inline uint32_t field(int x) { return uint32_t(min(max(x, 0), kSaturated)); }

/// A scale; FP4 units have these two formats.
__device__ inline GroupScale scale_of(FormatId id, uint8_t code) {
  return id == FormatId::ue4m3 ? decode_scale(FormatId::ue4m3, code) : decode_scale(FormatId::ue8m0, code);
}

/// An operand on its way into an Fp4Operand.
struct Preparation {
  FormatId scale_format;
  int scale_block;
  DeviceOperand x;
  int64_t padded_rows, steps;
  uint16_t *values;
  RawStep *raw;
  Presence *presence;
  uint8_t *halves, *halves8, *tops, *carried;
  uint32_t *carried8, *carried128;
  uint32_t *ranges8, *ranges128;
  RowInfo *rows;
};

/// Step t of a row: 64 codes to 64 BF16 values, eight at a time by put(piece, words); and what the step has.
template <class Put>
__device__ inline void expand_step(const Preparation &p, int64_t row, int64_t t, const Put &put) {
  RawStep out{0.0, -128, 127, 0, 0, 127, {127, 127, 127, 127}, {0, 0, 0, 0}};
  Presence seen{{0, 0}, {0, 0, 0, 0}, 0};
  GroupNorm norms[kMaxGroups];
  uint4 words[2] = {};
  uint32_t scales = 0; // a byte a group
  if (row < p.x.rows) {
    const int64_t at = row * p.steps + t;
    words[0] = reinterpret_cast<const uint4 *>(p.x.codes)[2 * at];
    words[1] = reinterpret_cast<const uint4 *>(p.x.codes)[2 * at + 1];
    if (p.scale_block == kGroup) {
      scales = reinterpret_cast<const uint32_t *>(p.x.scales)[at];
    } else { // two groups a scale
      const uint32_t two = reinterpret_cast<const uint16_t *>(p.x.scales)[at];
      scales = (two & 255) * 0x0101u | (two >> 8) * 0x01010000u;
    }
  }
#pragma unroll
  for (int g = 0; g < kMaxGroups; ++g) {
    norms[g] = {0.0, 0, 0};
    const uint4 both = words[g / 2];
    const uint2 codes = g % 2 == 0 ? make_uint2(both.x, both.y) : make_uint2(both.z, both.w);
    const GroupScale scale = scale_of(p.scale_format, uint8_t(scales >> (8 * g)));
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
    out.lsbs[g] = int8_t(max(__ffs(m) - 1 + e - 4, -128));
    out.norms[g] = upper_half(norms[g].norm2);
    out.norm2 = sum_up(out.norm2, norms[g].norm2);
  }
  const StepHalves half = halves_of(norms, out.max < out.min ? 0 : ceil_log2(out.norm2) - 2 * out.lsb);
  out.half = uint8_t(field(half.width));
  p.halves[t * p.padded_rows + row] = uint8_t(half.low);
  p.tops[t * p.padded_rows + row] = uint8_t(out.max < out.min ? 0 : min(max(int(out.max) + 127, 1), 254));
  p.raw[t * p.padded_rows + row] = out;
  p.presence[t * p.padded_rows + row] = seen;
}

constexpr int kRows = 32, kSteps = 4; ///< of a block of expand_kernel: a lane a row, a warp a step

/// Values reach memory in whole lines by way of shared memory.
__global__ void __launch_bounds__(kRows *kSteps) expand_kernel(const __grid_constant__ Preparation p) {
  __shared__ uint4 staged[kSteps][kRows * 8];
  const int lane = int(threadIdx.x) % kRows, warp = int(threadIdx.x) / kRows;
  const unsigned step_blocks = unsigned((p.steps + kSteps - 1) / kSteps);
  const int64_t first_row = int64_t(blockIdx.x / step_blocks) * kRows;
  const int64_t t = int64_t(blockIdx.x % step_blocks) * kSteps + warp;
  if (t >= p.steps) return; // whole warps
  expand_step(p, first_row + lane, t,
              [&](int piece, uint4 v) { staged[warp][lane * 8 + (piece ^ (lane & 7))] = v; });
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 8; ++i) { // 4 rows of 128 bytes
    const int r = i * 4 + lane / 8, piece = lane % 8;
    reinterpret_cast<uint4 *>(p.values + ((first_row + r) * p.steps + t) * 64)[piece] =
        staged[warp][r * 8 + (piece ^ (r & 7))];
  }
}

/// The larger of each byte.
__device__ inline uint32_t worst(uint32_t a, uint32_t b) { return __vmaxu4(a, b); }

/// What earlier steps of a row leave for later ones.
struct Prefix {
  double norm2; ///< of all elements, rounded up
  int lsb;
  uint64_t leasts; ///< of groups, least_bit()

  __device__ void add(const RawStep &s) {
    if (s.max < s.min) return;
    leasts |= s.leasts();
    norm2 = sum_up(norm2, s.norm2);
    lsb = min(lsb, s.lsb);
  }
  __device__ void add(const Prefix &p) {
    leasts |= p.leasts;
    norm2 = sum_up(norm2, p.norm2);
    lsb = min(lsb, p.lsb);
  }
};

/// What warps' parts of their rows' steps leave to each other.
template <int warps, int split> struct ScanMemory {
  Prefix left[warps][32 / split];
  RowInfo info[warps][32 / split];
};

template <class T> __device__ inline T other_lane(const T &x, int distance) { return __shfl_xor_sync(0xFFFFFFFF, x, distance); }
__device__ inline Prefix other_lane(const Prefix &x, int distance) {
  return {other_lane(x.norm2, distance), other_lane(x.lsb, distance), other_lane(x.leasts, distance)};
}
__device__ inline void widen(RowInfo &seen, int min, int max, int nan) {
  seen.min = int16_t(::min(int(seen.min), min));
  seen.max = int16_t(::max(int(seen.max), max));
  seen.nan = int16_t(seen.nan | nan);
}

/// A lane per row, or several for parts of its steps; `warps` warps have the next parts: first what each part leaves, then its
/// ranges. The worst of 8 rows is written. All threads of the block come here.
template <int warps, int split>
__device__ inline void scan_rows(const Preparation &p, int64_t first_row, int warp, ScanMemory<warps, split> &memory) {
  constexpr int kLaneRows = 32 / split;
  const int lane = int(threadIdx.x) % 32, lane_row = lane % kLaneRows, sub = lane / kLaneRows;
  const int64_t row = first_row + lane_row, count = (p.steps + warps * split - 1) / (warps * split),
                first = (int64_t(warp) * split + sub) * count;
  Prefix own{0.0, 127, 0};
  RowInfo seen{127, -128, 0, 0, 0, 0};
#pragma unroll 4
  for (int64_t t = first; t < min(first + count, p.steps); ++t) {
    const RawStep s = p.raw[t * p.padded_rows + row];
    own.add(s);
    seen.nan = int16_t(seen.nan | s.nan);
    if (s.max >= s.min) widen(seen, s.min, s.max, 0);
  }
  Prefix before{0.0, 127, 0}, all = own; // of the warp so far
#pragma unroll
  for (int d = kLaneRows; d < 32; d *= 2) {
    const Prefix other = other_lane(all, d);
    if ((lane & d) != 0) before.add(other); // the lanes of earlier steps
    all.add(other);
    widen(seen, other_lane(int(seen.min), d), other_lane(int(seen.max), d), other_lane(int(seen.nan), d));
  }
  if (sub == 0) {
    memory.left[warp][lane_row] = all;
    memory.info[warp][lane_row] = seen;
  }
  __syncthreads();
  all = {0.0, 127, 0};
  for (int i = 0; i < warps; ++i) {
    if (i == warp) before.add(all);
    all.add(memory.left[i][lane_row]);
  }
  const int norm = all.lsb == 127 ? 0 : (ceil_log2(all.norm2) + 1) >> 1;
  const bool carried = carries(all.leasts);
  const int least = carried ? least_of(all.leasts) : 0, grid = carried ? carry_grid(all.leasts, norm) : 0;
#pragma unroll 4
  for (int64_t t = first; t < first + count; ++t) { // as many for all lanes
    const bool inside = t < p.steps;
    RawStep s{0.0, -128, 127, 0, 0, 127, {127, 127, 127, 127}, {0, 0, 0, 0}};
    if (inside) s = p.raw[t * p.padded_rows + row];
    uint32_t packed = 0; // a step without products: nothing to cut, whatever the other operand holds
    if (s.max >= s.min) {
      const int growth = before.norm2 == 0.0 ? 0 : ceil_log2(before.norm2) - 2 * s.lsb;
      before.add(s);
      packed = field(ceil_log2(s.norm2) - 2 * s.lsb) | field(growth) << 8 |
               field(int(s.max) - before.lsb) << 16 | uint32_t(min(max(127 - s.lsb, 0), 255)) << 24;
    }
    uint32_t half = s.half, carry = 0x3FFF3FFF; // beyond every limit
    if (inside && (carried || all.leasts == 0)) {
      const CarriedStep c = s.carried(least, grid);
      p.carried[t * p.padded_rows + row] = uint8_t(c.low);
      carry = (uint32_t(c.width) & 0xFFFF) | uint32_t(c.norm) << 16;
    }
    for (int d = 1; d < 8; d *= 2) {
      packed = worst(packed, other_lane(packed, d));
      half = max(half, other_lane(half, d));
      carry = __vmaxs2(carry, other_lane(carry, d));
    }
    if (row % 8 == 0 && inside) {
      p.ranges8[(t * p.padded_rows + row) / 8] = packed;
      p.halves8[(t * p.padded_rows + row) / 8] = uint8_t(half);
      p.carried8[(t * p.padded_rows + row) / 8] = carry;
    }
  }
  if (warp != 0 || sub != 0) return;
  for (int i = 1; i < warps; ++i) {
    const RowInfo &other = memory.info[i][lane_row];
    widen(seen, other.min, other.max, other.nan);
  }
  if (!seen.empty()) {
    seen.lsb = int16_t(all.lsb);
    seen.norm = int16_t(norm);
    seen.grid = int16_t(grid);
  }
  p.rows[row] = seen;
}

template <int warps, int split>
__global__ void __launch_bounds__(32 * warps) scan_kernel(const __grid_constant__ Preparation p) {
  __shared__ ScanMemory<warps, split> memory;
  scan_rows(p, int64_t(blockIdx.x) * (32 / split), int(threadIdx.x) / 32, memory);
}
template <int warps, int split> void scan(const Preparation &p, cudaStream_t stream) {
  scan_kernel<warps, split><<<unsigned(p.padded_rows / (32 / split)), 32 * warps, 0, stream>>>(p);
  check_launch("scan_kernel");
}

/// Step i / (padded rows / 128) of 128 rows.
__device__ inline void coarsen(const Preparation &p, int64_t i) {
  uint32_t w = 0, carry = p.carried8[i * 16];
  for (int j = 0; j < 16; ++j) {
    w = worst(w, p.ranges8[i * 16 + j]);
    carry = __vmaxs2(carry, p.carried8[i * 16 + j]);
  }
  p.ranges128[i] = w;
  p.carried128[i] = carry;
}

__global__ void coarsen_kernel(const __grid_constant__ Preparation p, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) coarsen(p, i);
}

constexpr int kPreparations = 16, kSmallParts = 8; ///< of a launch; of a row's steps
constexpr int64_t kSmallSteps = 32, kSmallRows = 2048;
struct SmallPreparations {
  Preparation one[kPreparations];
};
static_assert(sizeof(SmallPreparations) <= 4096, "arguments of a kernel");

/// All three for 128 rows of a small operand; y of the grid counts operands. 32 warps: four groups of 32 rows
/// have 8 warps each.
__global__ void __launch_bounds__(1024, 1) small_kernel(const __grid_constant__ SmallPreparations all) {
  const Preparation &p = all.one[blockIdx.y];
  if (int64_t(blockIdx.x) * 128 >= p.padded_rows) return;
  __shared__ ScanMemory<kSmallParts, 1> memory[4];
  const int warp = int(threadIdx.x) / 32, group = warp / kSmallParts, part = warp % kSmallParts;
  const int64_t row = int64_t(blockIdx.x) * 128 + 32 * group + threadIdx.x % 32;
  for (int64_t t = part; t < p.steps; t += kSmallParts) {
    uint4 *const values = reinterpret_cast<uint4 *>(p.values + (row * p.steps + t) * 64);
    expand_step(p, row, t, [=](int piece, uint4 v) { values[piece] = v; });
  }
  __syncthreads(); // steps of a row are other warps'
  scan_rows(p, int64_t(blockIdx.x) * 128 + 32 * group, part, memory[group]);
  __syncthreads();
  for (int64_t t = threadIdx.x; t < p.steps; t += blockDim.x)
    coarsen(p, t * (p.padded_rows / 128) + blockIdx.x);
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

namespace {

/// Memory of the result, and K padded to the unit's.
Preparation plan(const UnitRule &rule, const DeviceOperand &operand, Fp4Operand &out, cudaStream_t stream) {
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
  out.tops.reserve(rows * steps);
  out.halves8.reserve(rows * steps / 8);
  out.carried.reserve(rows * steps);
  out.carried8.reserve(rows * steps / 2);
  out.carried128.reserve(rows * steps / 32);
  out.ranges8.reserve(rows * steps / 2);
  out.ranges128.reserve(rows * steps / 32);
  out.row_info.reserve(rows * int64_t(sizeof(RowInfo)));
  return {.scale_format = rule.scale,
          .scale_block = rule.scale_block,
          .x = out.source,
          .padded_rows = rows,
          .steps = steps,
          .values = out.values.as<uint16_t>(),
          .raw = out.raw.as<RawStep>(),
          .presence = out.presence.as<Presence>(),
          .halves = out.halves.as<uint8_t>(),
          .halves8 = out.halves8.as<uint8_t>(),
          .tops = out.tops.as<uint8_t>(),
          .carried = out.carried.as<uint8_t>(),
          .carried8 = out.carried8.as<uint32_t>(),
          .carried128 = out.carried128.as<uint32_t>(),
          .ranges8 = out.ranges8.as<uint32_t>(),
          .ranges128 = out.ranges128.as<uint32_t>(),
          .rows = out.row_info.as<RowInfo>()};
}

} // namespace

void prepare_fp4(const UnitRule &rule, const DeviceOperand &operand, Fp4Operand &out, cudaStream_t stream) {
  const Preparation p = plan(rule, operand, out, stream);
  const int64_t blocks = p.padded_rows / kRows * ((p.steps + kSteps - 1) / kSteps);
  expand_kernel<<<blocks_for(blocks, 1), kRows * kSteps, 0, stream>>>(p);
  check_launch("expand_kernel");
  // every lane looks at what all warps leave, which short rows are not worth; long ones are few
  if (p.steps <= 32)
    scan<4, 1>(p, stream);
  else if (p.steps < 128)
    scan<16, 1>(p, stream);
  else
    scan<16, 4>(p, stream);
  const int64_t count = p.padded_rows / 128 * p.steps;
  coarsen_kernel<<<blocks_for(count, 128), 128, 0, stream>>>(p, count);
  check_launch("coarsen_kernel");
}

bool prepares_small(const DeviceOperand &operand) {
  return operand.rows <= kSmallRows && operand.padded_k <= 64 * kSmallSteps;
}

void prepare_small(std::span<const PrepareRequest> requests, cudaStream_t stream) {
  for (size_t first = 0; first < requests.size(); first += kPreparations) {
    const auto part = requests.subspan(first, std::min<size_t>(kPreparations, requests.size() - first));
    SmallPreparations all{};
    int64_t most = 0;
    for (size_t i = 0; i < part.size(); ++i) {
      all.one[i] = plan(*part[i].rule, part[i].operand, *part[i].out, stream);
      most = std::max(most, all.one[i].padded_rows);
    }
    small_kernel<<<dim3(unsigned(most / 128), unsigned(part.size())), 1024, 0, stream>>>(all);
    check_launch("small_kernel");
  }
}

} // namespace nvfp4::cuda
