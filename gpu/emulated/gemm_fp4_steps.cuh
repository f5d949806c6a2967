// SPDX-License-Identifier: Apache-2.0
// Steps of K = 64 that the tensor core's own sum cannot vouch for, one output at a time: FP64 where nothing
// is cut, the aligned sum where something may be, the definition where even that is not proven. Internal to
// gemm_fp4.cu.
#pragma once
#include "nvfp4/gpu/emulated/gemm_detail.cuh"
#include "nvfp4/gpu/emulated/rounded.hpp"

namespace nvfp4::cuda {

/// How a tile of 128 x 128 outputs is computed; README.md says what each needs.
enum class TileWay : uint8_t {
  mixed,   ///< fragment by fragment and step by step, product_kernel<true>
  fast,    ///< the tensor core sums every step
  mostly,  ///< framed, but the tensor core may sum a good part of the steps
  carried, ///< framed, but the tensor core may sum every step, in two parts where it has to, to parts of the accumulators
  framed,  ///< FP32 pairs in a frame hold every step; nothing is cut as long as accumulators stay small
  guarded, ///< steps may be cut: pairs cut as alignment would, FP64 where its exponent is not known
};
constexpr int kTileWays = 6;

struct Fp4Job {
  UnitRule rule;
  Accumulation accumulation;
  Fp4View a, b;
  int64_t m, n, steps;
  int64_t tiles_m, tiles_n;
  GemmOutput out;
  Fp4Paths *paths;
  TileWay *ways; ///< (tiles_n, tiles_m)
  uint32_t *tiles_of; ///< (kTileWays): how many tiles go each way, so that kernels that have none end at once
  uint8_t *outgrown; ///< (4 tiles_n, 2 tiles_m), 64 x 32 each: 1 where accumulators were too large to be carried
  bool frames;   ///< framed and guarded tiles have a kernel on this device

  [[nodiscard]] __device__ TileWay way(int64_t row, int64_t col) const {
    return ways[(col >> 7) * tiles_m + (row >> 7)];
  }
  [[nodiscard]] __device__ uint8_t &outgrown_at(int64_t row, int64_t col) const {
    return outgrown[(col >> 5) * 2 * tiles_m + (row >> 6)];
  }
  [[nodiscard]] __device__ bool has(TileWay w) const { return tiles_of[int(w)] != 0; }
  /// Accumulators' words are the output's.
  [[nodiscard]] __device__ bool writes_plainly() const {
    return out.accumulators || (!out.finishes && out.out == FormatId::f32 && out.alpha == 1.0f &&
                                out.beta == 0.0f && out.device_alpha == nullptr);
  }
};

/// Throws Error where gemm_fp4() does not take the operands.
void check_fp4(const UnitRule &rule, const Fp4Operand &a, const Fp4Operand &b, const GemmOutput &output);

/// Fast tiles (gemm_fp4_wgmma.cu), mostly fast and carried ones (gemm_fp4_mostly.cu), framed and guarded ones and what
/// carried ones left (gemm_fp4_framed.cu) on sm_90's wgmma, in this order.
void gemm_fp4_wgmma(const Fp4Job &job, int processors, cudaStream_t stream);
void gemm_fp4_mostly(const Fp4Job &job, int processors, cudaStream_t stream);
void gemm_fp4_framed(const Fp4Job &job, int processors, cudaStream_t stream);

/// Accumulators below it lose no bit when a step is aligned whose products are multiples of 2^lsb (mmasim; for the other
/// models too where no group's alignment cuts them).
[[nodiscard]] __device__ inline float uncut_below(int lsb) {
  const int exponent = lsb + 36;
  return exponent > 127 ? __int_as_float(0x7F800000) : exponent < -126 ? 0.0f : power_of_two(exponent);
}

/// The accumulator plus an exact sum, truncated to 53 bits and then to 24: truncations compose.
__device__ inline float add_truncated(float acc, double sum) {
  return __double2float_rz(__dadd_rz(double(acc), sum));
}

/// s + e = a + b exactly, s rounded to nearest.
__device__ inline void two_sum(float a, float b, float &s, float &e) {
  s = __fadd_rn(a, b);
  const float bb = __fsub_rn(s, a);
  e = __fadd_rn(__fsub_rn(a, __fsub_rn(s, bb)), __fsub_rn(b, bb));
}

/// The accumulator plus four groups, truncated once, in FP32 alone. `magic` is 1.5 * 2^(lsb + 46): adding to
/// it rounds to the grid 2^(lsb + 23). Groups are multiples of 2^lsb and below 2^(lsb + 43). Proven in
/// README.md.
__device__ inline float split_step(float acc, float magic, float g0, float g1, float g2, float g3) {
  const float s1 = __fadd_rn(magic, g0), s2 = __fadd_rn(s1, g1), s3 = __fadd_rn(s2, g2),
              s4 = __fadd_rn(s3, g3);
  const float l0 = __fsub_rn(g0, __fsub_rn(s1, magic)), l1 = __fsub_rn(g1, __fsub_rn(s2, s1));
  const float l2 = __fsub_rn(g2, __fsub_rn(s3, s2)), l3 = __fsub_rn(g3, __fsub_rn(s4, s3));
  float sum, low, high, tail;
  two_sum(__fsub_rn(s4, magic), __fadd_rn(__fadd_rn(l0, l1), __fadd_rn(l2, l3)), sum, low);
  two_sum(acc, sum, high, tail);
  const float rest = high > 0.0f ? __fadd_rd(tail, low) : __fadd_ru(tail, low);
  return __fadd_rz(high, rest);
}

/// x * 2^lift truncated to a whole number. |lift| <= 200, x * 2^lift < 2^48.
__device__ inline double whole(float x, int lift) {
  return trunc(double(x) * __longlong_as_double(static_cast<long long>(lift + 1023) << 52));
}

/// The exponent field's value; of zero below all exponents in range.
__device__ inline int exponent_of(float x) { return int((bit_cast<uint32_t>(x) >> 23) & 0xFF) - 127; }

/// The exponent by which mmasim aligns a step of an output in range: the accumulator's or the largest of a
/// group with a non-zero product.
__device__ inline int alignment_top(const Fp4Job &job, int64_t row, int64_t col, int64_t t, float acc) {
  const Presence x = job.a.presence[t * job.a.padded_rows + row],
                 y = job.b.presence[t * job.b.padded_rows + col];
  const uint2 both = make_uint2(x.codes.x & y.codes.x, x.codes.y & y.codes.y);
  int top = exponent_of(acc); // in range, an accumulator is zero or normal
  if ((both.x & 0xFFFF) != 0) top = max(top, x.exponent[0] + y.exponent[0]);
  if ((both.x >> 16) != 0) top = max(top, x.exponent[1] + y.exponent[1]);
  if ((both.y & 0xFFFF) != 0) top = max(top, x.exponent[2] + y.exponent[2]);
  if ((both.y >> 16) != 0) top = max(top, x.exponent[3] + y.exponent[3]);
  return top;
}

/// mmasim's step from the exact values of its groups: every term cut below 2^(top - 35). Sums of five whole
/// numbers below 2^48 are exact in FP64.
__device__ inline float aligned_sum(int fraction_bits, int top, float acc, float g0, float g1, float g2,
                                    float g3) {
  const float group[kMaxGroups] = {g0, g1, g2, g3};
  const int lift = fraction_bits - top;
  double sum = whole(acc, lift);
  for (int g = 0; g < kMaxGroups; ++g) sum += whole(group[g], lift);
  return __double2float_rz(sum * __longlong_as_double(static_cast<long long>(1023 - lift) << 52));
}

/// Any step, any model: the shared text.
__device__ __noinline__ inline float defined_step(const Fp4Job &job, int64_t row, int64_t col, int64_t t,
                                                  float acc) {
  const int per_step = 64 / job.rule.scale_block;
  const CodeView a{job.a.codes + (row * job.steps + t) * 32, 4},
      b{job.b.codes + (col * job.steps + t) * 32, 4};
  return bit_cast<float>(uint32_t(gst_fdpa(job.rule, a, b, job.a.scales + (row * job.steps + t) * per_step,
                                           job.b.scales + (col * job.steps + t) * per_step,
                                           bit_cast<uint32_t>(acc), job.accumulation)));
}

/// Which way a rare step went, for the counts.
enum class RareWay : uint8_t { wide, aligned, defined, none };

/// A step of one output that FP32 alone does not do: FP64 where nothing is cut, else the aligned sum or the
/// definition. Out of line, so that the product's loop stays in the instruction cache.
__device__ __noinline__ inline float rare_step(const Fp4Job &job, bool uncut, int64_t row, int64_t col,
                                               int64_t t, float acc, float g0, float g1, float g2, float g3,
                                               RareWay &way) {
  if (uncut) {
    way = RareWay::wide;
    return add_truncated(acc, (double(g0) + double(g1)) + (double(g2) + double(g3)));
  }
  way = RareWay::none; // outside the matrix, or replaced at the end
  if (row >= job.m || col >= job.n || !in_range(job.a.rows[row], job.b.rows[col])) return acc;
  way = job.accumulation == Accumulation::mmasim ? RareWay::aligned : RareWay::defined;
  if (way == RareWay::aligned)
    return aligned_sum(job.rule.fraction_bits, alignment_top(job, row, col, t, acc), acc, g0, g1, g2, g3);
  return defined_step(job, row, col, t, acc);
}

/// The whole chain of an output by the definition.
__device__ __noinline__ inline uint32_t defined_output(const Fp4Job &job, int64_t row, int64_t col) {
  float acc = 0.0f;
  for (int64_t t = 0; t < job.steps; ++t) acc = defined_step(job, row, col, t, acc);
  return bit_cast<uint32_t>(acc);
}

__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared)
               : "memory");
}

/// d += one group of 16 products for 16 x 8 outputs.
__device__ inline void add_group(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, "
               "%9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Rows of 128 bytes; 16-byte pieces are exchanged by row so that neither copies nor ldmatrix meet in a bank.
__device__ inline uint32_t place(int row, int piece) {
  return uint32_t(row * 128 + ((piece ^ (row & 7)) << 4));
}

struct Counts {
  uint32_t summed = 0, split = 0, wide = 0, aligned = 0, defined = 0, outputs = 0;
};

/// A step of one fragment (16 x 8) whose ranges forbid the sum in the tensor core, or do not.
__device__ inline void mixed_step(const Fp4Job &job, const StepRange &range, const Limits &limits,
                                  int64_t row, int64_t col, int64_t t, const uint32_t (&a)[4][4],
                                  const uint32_t (&b)[4][2], float (&acc)[4], Counts &counts) {
  if (limits.tensor_core_sums(range)) {
    float sum[4] = {};
#pragma unroll
    for (int g = 0; g < 4; ++g) add_group(sum, a[g], b[g][0], b[g][1]);
#pragma unroll
    for (int o = 0; o < 4; ++o) acc[o] = __fadd_rz(acc[o], sum[o]);
    counts.summed += 4;
    return;
  }
  float group[4][4] = {};
#pragma unroll
  for (int g = 0; g < 4; ++g) add_group(group[g], a[g], b[g][0], b[g][1]);
  const int lsb = 254 - range.place;
  // the accumulator cuts a group when its exponent exceeds the group's lsb by more than 35
  const float limit = job.accumulation == Accumulation::exact ? __int_as_float(0x7F800000) : uncut_below(lsb);
  const bool grid = lsb >= -120 && lsb <= 60;
  const float magic = grid ? 1.5f * bit_cast<float>(uint32_t(lsb + 46 + 127) << 23) : 0.0f;
  const float largest = grid ? bit_cast<float>(uint32_t(lsb + 43 + 127) << 23) : 0.0f;
  const bool uncut = range.width <= kWideWidth && range.reach <= limits.reach;
#pragma unroll
  for (int o = 0; o < 4; ++o) {
    const bool whole = uncut && fabsf(acc[o]) < limit;
    const float peak =
        fmaxf(fmaxf(fabsf(group[0][o]), fabsf(group[1][o])), fmaxf(fabsf(group[2][o]), fabsf(group[3][o])));
    if (whole && peak < largest) {
      acc[o] = split_step(acc[o], magic, group[0][o], group[1][o], group[2][o], group[3][o]);
      ++counts.split;
    } else {
      RareWay way;
      acc[o] = rare_step(job, whole, row + (o >= 2 ? 8 : 0), col + (o & 1), t, acc[o], group[0][o],
                         group[1][o], group[2][o], group[3][o], way);
      counts.wide += way == RareWay::wide;
      counts.aligned += way == RareWay::aligned;
      counts.defined += way == RareWay::defined;
    }
  }
}

/// The accumulator's word after the last step.
__device__ inline uint32_t mixed_word(const Fp4Job &job, int64_t row, int64_t col, float acc, Counts &counts) {
  const RowInfo x = job.a.rows[row], y = job.b.rows[col];
  if (x.nan != 0 || y.nan != 0) return uint32_t(accumulator_nan(Output::rz_f32));
  if (in_range(x, y)) return bit_cast<uint32_t>(acc);
  ++counts.outputs;
  return defined_output(job, row, col);
}

__device__ inline void add_counts(Fp4Paths *paths, const Counts &c) {
  atomicAdd(&paths->summed, c.summed);
  atomicAdd(&paths->split, c.split);
  atomicAdd(&paths->wide, c.wide);
  atomicAdd(&paths->aligned, c.aligned);
  atomicAdd(&paths->defined, c.defined);
  atomicAdd(&paths->outputs, c.outputs);
}

} // namespace nvfp4::cuda
