// SPDX-License-Identifier: Apache-2.0
// NVFP4 quantization with cvt.rn.satfinite.e2m1x2, cvt.rs.satfinite.e2m1x4 and cvt.rn.satfinite.e4m3x2. The
// chain is block_rule.hpp's for the rule of `te`, step by step; only the roundings are the hardware's. Not
// yet run. Sources: PTX ISA 9.1, 9.7.9.21 "cvt"; TransformerEngine common/cast/nvfp4 for the order of
// operations.
#include "nvfp4/gpu/blackwell/quantize_cvt.hpp"
#include "nvfp4/gpu/capture/convert.hpp"
#include "nvfp4/gpu/capture/features.cuh"
#include "nvfp4/gpu/capture/run_tiles.hpp"

#include <string_view>

#if CAPTURE_HAS_CVT_NARROW
#define BLACKWELL_IF_CVT(X) X
#else
#define BLACKWELL_IF_CVT(X) __trap()
#endif
#if CAPTURE_HAS_CVT_RS
#define BLACKWELL_IF_RS(X) X
#else
#define BLACKWELL_IF_RS(X) __trap()
#endif

namespace nvfp4::cuda::blackwell {
namespace {

constexpr int kBlock = 16;
constexpr int kPerWord = 8; ///< elements in a 32-bit word of codes

/// Eight values to a word, value 0 in the low nibble: of a pair, the second operand takes the low one.
__device__ uint32_t nearest_codes([[maybe_unused]] const float *y) {
  uint32_t word = 0;
  BLACKWELL_IF_CVT(
      asm("{\n.reg .b8 b0, b1, b2, b3;\n"
          "cvt.rn.satfinite.e2m1x2.f32 b0, %2, %1;\ncvt.rn.satfinite.e2m1x2.f32 b1, %4, %3;\n"
          "cvt.rn.satfinite.e2m1x2.f32 b2, %6, %5;\ncvt.rn.satfinite.e2m1x2.f32 b3, %8, %7;\n"
          "mov.b32 %0, {b0, b1, b2, b3};\n}"
          : "=r"(word)
          : "f"(y[0]), "f"(y[1]), "f"(y[2]), "f"(y[3]), "f"(y[4]), "f"(y[5]), "f"(y[6]), "f"(y[7])));
  return word;
}

/// Four values to 16 bits: the operands {a, b, e, f} are values 3, 2, 1, 0, since a is the highest nibble.
__device__ uint32_t stochastic_codes([[maybe_unused]] const float *y, [[maybe_unused]] uint32_t rbits) {
  uint16_t codes = 0;
  BLACKWELL_IF_RS(asm("cvt.rs.satfinite.e2m1x4.f32 %0, {%1, %2, %3, %4}, %5;"
                      : "=h"(codes)
                      : "f"(y[3]), "f"(y[2]), "f"(y[1]), "f"(y[0]), "r"(rbits)));
  return codes;
}

struct HardwareScale {
  uint8_t code;
  float factor;
};
/// block_scale() of the rule: s = min(bmax * (S / 6), FLT_MAX) to E4M3, then what the elements are multiplied
/// with.
__device__ HardwareScale block_scale_cvt(float bmax, const GlobalScale &global) {
  const float s = fminf(__fmul_rn(bmax, __fmul_rn(global.encode, kSixth)), kFltMax);
  uint16_t code = 0;
  uint32_t halves = 0;
  BLACKWELL_IF_CVT(asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(code) : "f"(0.0f), "f"(s)));
  BLACKWELL_IF_CVT(asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(code)));
  float value = 0.0f;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.f32.f16 %0, low;\n}"
      : "=f"(value)
      : "r"(halves));
  return {uint8_t(code), fminf(__fdiv_rn(1.0f, __fmul_rn(value, global.decode)), kFltMax)};
}

__global__ void globals_kernel(Rule rule, const float *amax, GlobalScale *out) {
  *out = global_from_amax(rule, *amax, FormatId::f32);
}

struct CvtJob {
  const float *x;
  int64_t rows, cols, stride, blocks; ///< blocks of 16 in a row
  const GlobalScale *global;
  uint8_t *codes, *scales;
  CvtOptions options;
};

/// Random bytes of consecutive elements; a Philox block serves 16.
struct RandomBytes {
  RandomKey key;
  uint64_t held = ~uint64_t{0};
  PhiloxBlock block{};
  __device__ uint32_t at(uint64_t i) {
    if (i / 16 != held) block = key.block(held = i / 16);
    return block.word[i / 4 % 4] >> (8 * (i % 4)) & 0xFF;
  }
};

/// One thread per block of 16.
template <bool Stochastic> __global__ void quantize_kernel(CvtJob job) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= job.rows * job.blocks) return;
  const int64_t row = i / job.blocks, block = i % job.blocks, first = block * kBlock;
  float y[kBlock], bmax = 0.0f;
#pragma unroll
  for (int e = 0; e < kBlock; ++e) {
    y[e] = first + e < job.cols ? job.x[row * job.stride + first + e] : 0.0f;
    bmax = fmaxf(bmax, fabsf(y[e])); // a NaN loses
  }
  const HardwareScale scale = block_scale_cvt(bmax, *job.global);
  for (float &v : y) v = __fmul_rn(v, scale.factor);
  uint32_t words[kBlock / kPerWord];
  if constexpr (Stochastic) {
    RandomBytes bytes{job.options.key};
#pragma unroll
    for (int w = 0; w < kBlock / kPerWord; ++w) {
      words[w] = 0;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int e = kPerWord * w + 4 * half;
        const uint64_t index = uint64_t(row * job.cols + first + e);
        uint32_t random[4]; // places a, b, e, f
        for (int place = 3; place >= 0; --place) random[place] = bytes.at(index + uint64_t(3 - place));
        words[w] |= stochastic_codes(y + e, pack_rbits(job.options.rbits, random)) << (16 * half);
      }
    }
  } else {
#pragma unroll
    for (int w = 0; w < kBlock / kPerWord; ++w) words[w] = nearest_codes(y + kPerWord * w);
  }
  reinterpret_cast<uint2 *>(job.codes)[i] = make_uint2(words[0], words[1]);
  const int64_t at =
      job.options.layout == ScaleLayout::linear ? i : scale_offset_128x4(row, block, job.blocks);
  job.scales[at] = scale.code;
}

} // namespace

void quantize_cvt(const float *x, int64_t rows, int64_t cols, int64_t stride, const CvtOptions &options,
                  DeviceBlockScaled &out, cudaStream_t stream, const float *device_amax) {
  const bool stochastic = options.rounding == ElementRounding::sr_carry8;
  if (!stochastic && options.rounding != ElementRounding::nearest)
    throw Error("quantize_cvt: the hardware rounds to nearest or with 8 random bits (sr_carry8)");
  if (!(gpu::device_features() & golden::cases::kCvtNarrow))
    throw Error("quantize_cvt: needs compute capability 10.x to 12.x and a build for its `a` architecture");
  if (stochastic && !(gpu::device_features() & golden::cases::kCvtRs))
    throw Error("quantize_cvt: stochastic rounding needs compute capability 10.0 or 10.3");
  if (rows < 0 || cols < 0 || stride < cols)
    throw Error("quantize_cvt: needs stride >= columns >= 0, got " + std::to_string(stride) + " and " +
                std::to_string(cols));
  const Rule rule = find_convention("te").rule;
  out.info = {};
  out.info.convention = "te";
  out.info.rows = rows;
  out.info.k = cols;
  out.info.padded_k = (cols + kBlock - 1) / kBlock * kBlock;
  out.info.layout = options.layout;
  out.per_row = false;
  const int64_t blocks = out.info.scale_cols(), count = rows * blocks;
  const bool tiled = options.layout == ScaleLayout::tiled_128x4;
  const int64_t scale_bytes = tiled ? scale_size_128x4(rows, blocks) : count;
  out.codes.reserve(rows * out.info.row_bytes());
  out.scales.reserve(scale_bytes);
  out.globals.reserve(int64_t(sizeof(GlobalScale)));
  const StreamBuffer own_amax(device_amax == nullptr ? int64_t(sizeof(float)) : 0, stream);
  if (device_amax == nullptr) {
    amax(x, rows, cols, stride, own_amax.as<float>(), out.maxima, stream);
    device_amax = own_amax.as<float>();
  }
  globals_kernel<<<1, 1, 0, stream>>>(rule, device_amax, out.globals.as<GlobalScale>());
  check_launch("globals_kernel");
  if (count == 0) return;
  if (tiled) check(cudaMemsetAsync(out.scales.as<void>(), 0, size_t(scale_bytes), stream), "cudaMemset");
  const CvtJob job{x,
                   rows,
                   cols,
                   stride,
                   blocks,
                   out.globals.as<GlobalScale>(),
                   out.codes.as<uint8_t>(),
                   out.scales.as<uint8_t>(),
                   options};
  if (stochastic)
    quantize_kernel<true><<<blocks_for(count, 128), 128, 0, stream>>>(job);
  else
    quantize_kernel<false><<<blocks_for(count, 128), 128, 0, stream>>>(job);
  check_launch("quantize_cvt");
}

std::optional<RbitsMap> device_rbits_map() {
  if (!(gpu::device_features() & golden::cases::kCvtRs))
    throw Error("device_rbits_map: cvt.rs needs compute capability 10.0 or 10.3");
  for (const gpu::Conversion &x : gpu::conversions())
    if (x.name == std::string_view("cvt.rs.satfinite.e2m1x4.f32")) {
      const RbitsProbes probes = rbits_probes();
      return rbits_map(gpu::run_conversion(x, probes.in, probes.rbits));
    }
  return {};
}

} // namespace nvfp4::cuda::blackwell
