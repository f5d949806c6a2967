// SPDX-License-Identifier: Apache-2.0
// What the GEMM kernels share: how an output is written, and the views they read FP4 operands through.
// Internal.
#pragma once
#include "nvfp4/emulator/gemm/epilogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/gpu/emulated/gemm.hpp"

namespace nvfp4::cuda {

/// The output at `row` and `col` of n columns where out.finishes.
__device__ inline void finish_in_place(const GemmOutput &out, int64_t n, int64_t row, int64_t col,
                                       float acc) {
  float &y = static_cast<float *>(out.d)[row * n + col];
  const float alpha = out.device_alpha != nullptr ? *out.device_alpha : out.alpha;
  const bool reads = out.epilogue.into != Epilogue::Into::overwrite;
  y = finish(out.epilogue, alpha, acc, reads ? y : 0.0f, out.bias != nullptr ? out.bias + col : nullptr);
}

/// Writes the output at `row` and `col` of n columns from an accumulator word of the rule's format.
__device__ inline void write_output(const GemmOutput &out, FormatId acc_format, int64_t n, int64_t row,
                                    int64_t col, uint64_t acc) {
  if (out.finishes) return finish_in_place(out, n, row, col, accumulator_value(acc_format, acc));
  const int64_t o = row * n + col;
  const bool wide = acc_format == FormatId::f64;
  if (!out.accumulators) {
    OutputTerms t{.out = out.out,
                  .alpha = out.device_alpha != nullptr ? *out.device_alpha : out.alpha,
                  .beta = out.beta};
    if (out.beta != 0.0f)
      t.c = wide ? static_cast<const uint64_t *>(out.c)[o] : static_cast<const uint32_t *>(out.c)[o];
    acc = finish_output(t, acc_format, acc);
  }
  if (wide)
    static_cast<uint64_t *>(out.d)[o] = acc;
  else if (out.accumulators || out.out == FormatId::f32)
    static_cast<uint32_t *>(out.d)[o] = uint32_t(acc);
  else
    static_cast<uint16_t *>(out.d)[o] = uint16_t(acc);
}

/// The same for kernels whose threads hold many outputs, unrolled since they are registers: not inlined, so
/// that the code of a tile stays small.
[[maybe_unused]] static __device__ __noinline__ void
write_apart(const GemmOutput &out, FormatId acc_format, int64_t n, int64_t row, int64_t col, uint32_t acc) {
  write_output(out, acc_format, n, row, col, acc);
}

/// A row of an FP4 operand, all of K: exponents of its scales over groups of 16 with a non-zero code under a
/// non-zero scale, as RowRange has it. Empty: min > max, and lsb and norm are 0.
struct RowInfo {
  int16_t min, max;
  int16_t nan;  ///< a scale is NaN
  int16_t lsb;  ///< every element times its scale is a multiple of 2^lsb
  int16_t norm; ///< the norm of all of them is at most 2^norm
  int16_t grid; ///< carry_grid(); no meaning where a step's width says that the row is not carried
  [[nodiscard]] NVFP4_HD bool empty() const { return min > max; }
};

/// Ends of what FP32 and BF16 hold: the engine vouches for products of rows with -118 < e <= 120 each and
/// sums of exponents from -118 to 80.
inline constexpr int kLowestScale = -117, kHighestScale = 120, kLowestSum = -118, kHighestSum = 80;

[[nodiscard]] NVFP4_HD inline bool in_range(const RowInfo &x, const RowInfo &y) {
  return x.empty() || y.empty() ||
         (x.min >= kLowestScale && y.min >= kLowestScale && x.max <= kHighestScale &&
          y.max <= kHighestScale && x.min + y.min >= kLowestSum && x.max + y.max <= kHighestSum);
}

/// A step of one row, or the worst of several rows, as four bytes whose sums over A and B decide; see
/// README.md.
///   byte 0, width:  log2 of (norm / lsb)^2, rounded up         its sum exact: sum <= 48
///   byte 1, growth: log2 of (norm of all steps so far / lsb)^2  accumulator cuts no group: sum < 72
///   byte 2, reach:  largest scale exponent - least lsb so far  no group cuts anything: sum <= 35 (31 for
///   nadpe) byte 3, place:  127 - lsb
struct StepRange {
  int width, growth, reach, place;
  [[nodiscard]] NVFP4_HD static StepRange sum(uint32_t a, uint32_t b) {
    return {int(a & 255) + int(b & 255), int(a >> 8 & 255) + int(b >> 8 & 255),
            int(a >> 16 & 255) + int(b >> 16 & 255), int(a >> 24) + int(b >> 24)};
  }
};
inline constexpr int kSaturated = 127;                 ///< of bytes 0 to 2: fails every condition
inline constexpr int kSumWidth = 48, kWideWidth = 104; ///< twice the bits of FP32 and (with room) of FP64
inline constexpr int kGrowth = 72, kReach = 35, kNadpeReach = 31;

/// Thresholds of an accumulation model.
struct Limits {
  int growth, reach;
  NVFP4_HD explicit Limits(Accumulation a)
      : growth(a == Accumulation::exact ? 1 << 20 : kGrowth), reach(a == Accumulation::exact   ? 1 << 20
                                                                    : a == Accumulation::nadpe ? kNadpeReach
                                                                                               : kReach) {}
  [[nodiscard]] NVFP4_HD bool tensor_core_sums(const StepRange &s) const {
    return s.width <= kSumWidth && s.growth < growth && s.reach <= reach;
  }
};

/// What alignment reads of one step of one row: a bit per non-zero code of each group of 16, and the
/// exponents of their scales as bytes; groups under a zero scale have no bits.
struct Presence {
  uint2 codes; ///< 4 x 16 bits
  int8_t exponent[4];
  uint32_t pad;
};

/// An operand as the kernels see it. Codes and scales have K padded to 64.
struct Fp4View {
  const uint16_t *values;    ///< (padded_rows, 64 steps) BF16
  const uint8_t *halves;     ///< (steps, padded_rows), StepHalves::low
  const uint8_t *halves8;    ///< (steps, padded_rows / 8), the largest StepHalves::width
  const uint8_t *carried;    ///< (steps, padded_rows), CarriedStep::low
  const uint32_t *carried128; ///< (steps, padded_rows / 128), the largest CarriedStep::width (low 16 bits) and norm, signed
  const uint32_t *ranges8;   ///< (steps, padded_rows / 8)
  const uint32_t *ranges128; ///< (steps, padded_rows / 128)
  const RowInfo *rows;       ///< (padded_rows)
  const Presence *presence;  ///< (steps, padded_rows)
  const uint8_t *codes;      ///< (rows, 32 steps)
  const uint8_t *scales;     ///< (rows, 64 steps / scale_block)
  int64_t padded_rows;
};

[[nodiscard]] inline Fp4View view_of(const Fp4Operand &o) {
  return {o.values.as<uint16_t>(),
          o.halves.as<uint8_t>(),
          o.halves8.as<uint8_t>(),
          o.carried.as<uint8_t>(),
          o.carried128.as<uint32_t>(),
          o.ranges8.as<uint32_t>(),
          o.ranges128.as<uint32_t>(),
          o.row_info.as<RowInfo>(),
          o.presence.as<Presence>(),
          o.source.codes,
          o.source.scales,
          o.padded_rows};
}

/// Copies an operand whose K is not a multiple of the unit's into rows that are, with zero codes and scales
/// of 1.
[[nodiscard]] DeviceOperand pad_operand(const UnitRule &rule, const DeviceOperand &operand,
                                        DeviceBuffer &codes, DeviceBuffer &scales, cudaStream_t stream);

/// Which outputs of a product one kernel left to the next; all where `left` is null.
struct TilesLeft {
  static constexpr int kTile = 128; ///< rows and columns
  const uint8_t *left = nullptr;    ///< (tiles_m, tiles_n), 1: left
  int64_t tiles_n = 0;
  [[nodiscard]] __device__ bool has(int64_t row, int64_t col) const {
    return left == nullptr || left[row / kTile * tiles_n + col / kTile] != 0;
  }
};

/// Units whose fused step is that of an instruction of this GPU (sm_90), by that instruction; false for
/// others.
[[nodiscard]] bool gemm_native(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                               const GemmOutput &output, GemmWorkspace &workspace, cudaStream_t stream);

/// Units with 32 products a step, 25 fraction bits and FP32 accumulators, the tiles that it can do; `left`
/// says which it could not. False where the unit or the GPU is not for it.
[[nodiscard]] bool gemm_parts(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                              const GemmOutput &output, GemmWorkspace &workspace, TilesLeft &left,
                              cudaStream_t stream, Fp4Paths *paths);

/// Units with FP32 accumulators of the fdpa and st_fdpa families; false where not covered.
[[nodiscard]] bool gemm_fdpa(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                             const GemmOutput &output, const TilesLeft &tiles, cudaStream_t stream);

} // namespace nvfp4::cuda
