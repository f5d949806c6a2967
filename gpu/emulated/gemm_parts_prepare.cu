// SPDX-License-Identifier: Apache-2.0
// Operands of products with 32 products a step and 25 fraction bits: each element times its scale in two
// parts, large and small, and the inverse of its lowest bit, as BF16; what decides about a step. README.md
// says why it is exact.
#include "nvfp4/gpu/emulated/gemm_parts.cuh"

namespace nvfp4::cuda {
namespace {

constexpr int kWarps = 8, kRows = 8;

/// The sum over a warp of numbers of at most 4, rounded up.
__device__ inline float sum_rounded_up(float x) {
  return __uint2float_ru(__reduce_add_sync(0xFFFFFFFF, __float2uint_ru(x * 0x1p20f))) * 0x1p-20f;
}

/// The word of a number that BF16 holds.
__device__ inline uint16_t bf16_of(float x) { return uint16_t(bit_cast<uint32_t>(x) >> 16); }

/// A warp has a step of eight rows, an element a lane.
template <FormatId id>
__global__ void __launch_bounds__(32 * kWarps)
    parts_kernel(FormatId scale, int scale_block, DeviceOperand x, int64_t padded_rows, int64_t steps,
                 uint8_t *parts, float *largest, float *least, PartNorms *norms, int *exponents) {
  constexpr Format f = format(id);
  const int lane = int(threadIdx.x) % 32;
  const int64_t at = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32, group = at / steps, t = at % steps;
  if (group * kRows >= padded_rows) return;
  PartNorms most{0.0f, 0.0f};
#pragma unroll 4
  for (int i = 0; i < kRows; ++i) {
    const int64_t row = group * kRows + i;
    float value = 0.0f;
    int shift = 0;
    bool finite = true;
    if (row < x.rows) {
      if (scale_block != 0) {
        const Decoded s = decode(format(scale), x.scales[row * (x.padded_k / scale_block) + t]);
        finite = s.cls != Class::nan;
        shift = s.exponent;
      }
      const CodeView codes{x.codes + row * (x.padded_k * f.storage_bits / 8), f.storage_bits};
      const Decoded d = decode(f, codes[t * kPartsLink + lane]);
      finite = finite && d.cls != Class::nan && d.cls != Class::infinity;
      if (d.cls == Class::finite) {
        // beyond these exponents, which exponents[] tells of, the value does not matter
        const int e = min(max(d.exponent + shift, -kPartsFurthest), kPartsFurthest) - f.mantissa_bits;
        value = float(int(d.significand)) * power_of_two(e);
        if (d.negative) value = -value;
      }
    }
    const float floor = power_of_two(min(max(f.min_exponent() + shift, -kPartsFurthest), kPartsFurthest));
    const float field = field_power(value, floor);
    const float top = bit_cast<float>(__reduce_max_sync(0xFFFFFFFF, bit_cast<uint32_t>(field)));
    const bool high = in_high_part(value, top);
    const float share = top == 0.0f ? 0.0f : value * (1.0f / top), square = share * share;
    const float whole = sum_rounded_up(square), low = sum_rounded_up(high ? 0.0f : square);
    most = {fmaxf(most.whole, whole), fmaxf(most.low, low)};
    uint16_t *const to = reinterpret_cast<uint16_t *>(parts + (row * steps + t) * kPartsBytes) + lane;
    to[0] = high ? bf16_of(value) : 0;
    to[kPartsLink] = high ? 0 : bf16_of(value);
    to[2 * kPartsLink] = bf16_of(inverse_of_lowest(value));

    const int exponent = int(bit_cast<uint32_t>(field) >> 23) - 127;
    const int smallest = __reduce_min_sync(0xFFFFFFFF, value == 0.0f ? 0x7FFF : exponent);
    const bool all_finite = __all_sync(0xFFFFFFFF, finite) != 0;
    if (lane != 0) continue;
    largest[t * padded_rows + row] = top;
    least[t * padded_rows + row] = floor;
    if (!all_finite) atomicMax(&exponents[2 * row + 1], kNotFinite);
    if (top == 0.0f) continue;
    atomicMax(&exponents[2 * row], -smallest);
    atomicMax(&exponents[2 * row + 1], int(bit_cast<uint32_t>(top) >> 23) - 127);
  }
  if (lane == 0) norms[t * (padded_rows / kRows) + group] = most;
}

} // namespace

void prepare_parts(const UnitRule &rule, const DeviceOperand &x, PartsOperand &out, cudaStream_t stream) {
  out.padded_rows = (x.rows + kPartsTile - 1) / kPartsTile * kPartsTile;
  out.steps = x.padded_k / kPartsLink;
  const int64_t vectors = out.padded_rows * out.steps;
  out.parts.reserve(vectors * kPartsBytes);
  out.powers.reserve(vectors * 2 * int64_t(sizeof(float)));
  out.norms.reserve(vectors / kRows * int64_t(sizeof(PartNorms)));
  out.exponents.reserve(out.padded_rows * int64_t(sizeof(int2)));
  // far below every exponent, so that rows of zeros have none
  check(cudaMemsetAsync(out.exponents.as<void>(), 0xC0, size_t(out.padded_rows) * sizeof(int2), stream),
        "exponents of an operand");
  float *const powers = out.powers.as<float>();
  const auto run = [&](auto kernel) {
    kernel<<<blocks_for(vectors / kRows, kWarps), 32 * kWarps, 0, stream>>>(
        rule.scale, rule.scale_block, x, out.padded_rows, out.steps, out.parts.as<uint8_t>(), powers,
        powers + vectors, out.norms.as<PartNorms>(), out.exponents.as<int>());
    check_launch("parts_kernel");
  };
  switch (x.format) {
  case FormatId::e4m3: return run(parts_kernel<FormatId::e4m3>);
  case FormatId::e5m2: return run(parts_kernel<FormatId::e5m2>);
  case FormatId::e3m2: return run(parts_kernel<FormatId::e3m2>);
  case FormatId::e2m3: return run(parts_kernel<FormatId::e2m3>);
  case FormatId::e2m1: return run(parts_kernel<FormatId::e2m1>);
  default: throw Error(std::string("cuda::prepare_parts: no parts of ") + format(x.format).name);
  }
}

} // namespace nvfp4::cuda
