// SPDX-License-Identifier: Apache-2.0
// The table of conversion instructions and the function that runs one of them on host arrays.
// Source of spellings and targets: PTX ISA 9.1, cvt.
#include "nvfp4/gpu/capture/convert_kernel.cuh"

#include <algorithm>
#include <iterator>

namespace nvfp4::gpu {
namespace {

constexpr uint32_t kSM80 = kMma16, kSM89 = kMmaFp8, kSM90 = kCvtSm90, kSM100 = kCvtSm100,
                   kNARROW = kCvtNarrow, kRS = kCvtRs;

/// A row of the table: the Op's kernels with the facts about its spelling.
template <class Op>
constexpr Conversion entry(const char *name, Source source, int out_bits, uint32_t features,
                           bool stochastic = false) {
  return {name,
          source,
          out_bits,
          Op::kElements,
          stochastic,
          features,
          launch_convert<Op>,
          source == Source::f32 && !stochastic ? launch_digest<Op> : nullptr};
}

// NAME, elements, guard, body macro, spelling, source, bits of an element of the result.
#define CONVERSIONS(X)                                                                                       \
  X(F16Rn, 1, SM80, F32_TO_B16, "cvt.rn.f16.f32", f32, 16)                                                   \
  X(F16Rz, 1, SM80, F32_TO_B16, "cvt.rz.f16.f32", f32, 16)                                                   \
  X(F16Rm, 1, SM80, F32_TO_B16, "cvt.rm.f16.f32", f32, 16)                                                   \
  X(F16Rp, 1, SM80, F32_TO_B16, "cvt.rp.f16.f32", f32, 16)                                                   \
  X(F16RnSat, 1, SM80, F32_TO_B16, "cvt.rn.satfinite.f16.f32", f32, 16)                                      \
  X(F16RnRelu, 1, SM80, F32_TO_B16, "cvt.rn.relu.f16.f32", f32, 16)                                          \
  X(F16x2Rn, 2, SM80, F32X2_TO_HALVES, "cvt.rn.f16x2.f32", f32, 16)                                          \
  X(F16x2Rz, 2, SM80, F32X2_TO_HALVES, "cvt.rz.f16x2.f32", f32, 16)                                          \
  X(F16x2RnSat, 2, SM80, F32X2_TO_HALVES, "cvt.rn.satfinite.f16x2.f32", f32, 16)                             \
  X(Bf16Rn, 1, SM80, F32_TO_B16, "cvt.rn.bf16.f32", f32, 16)                                                 \
  X(Bf16Rz, 1, SM80, F32_TO_B16, "cvt.rz.bf16.f32", f32, 16)                                                 \
  X(Bf16RnSat, 1, SM80, F32_TO_B16, "cvt.rn.satfinite.bf16.f32", f32, 16)                                    \
  X(Bf16RnRelu, 1, SM80, F32_TO_B16, "cvt.rn.relu.bf16.f32", f32, 16)                                        \
  X(Bf16x2Rn, 2, SM80, F32X2_TO_HALVES, "cvt.rn.bf16x2.f32", f32, 16)                                        \
  X(Bf16x2Rz, 2, SM80, F32X2_TO_HALVES, "cvt.rz.bf16x2.f32", f32, 16)                                        \
  X(Bf16x2RnSat, 2, SM80, F32X2_TO_HALVES, "cvt.rn.satfinite.bf16x2.f32", f32, 16)                           \
  X(Tf32Rna, 1, SM80, F32_TO_B32, "cvt.rna.tf32.f32", f32, 32)                                               \
  X(Tf32RnaSat, 1, SM89, F32_TO_B32, "cvt.rna.satfinite.tf32.f32", f32, 32)                                  \
  X(Tf32Rn, 1, SM90, F32_TO_B32, "cvt.rn.tf32.f32", f32, 32)                                                 \
  X(Tf32Rz, 1, SM90, F32_TO_B32, "cvt.rz.tf32.f32", f32, 32)                                                 \
  X(Tf32RnRelu, 1, SM90, F32_TO_B32, "cvt.rn.relu.tf32.f32", f32, 32)                                        \
  X(Tf32RzRelu, 1, SM90, F32_TO_B32, "cvt.rz.relu.tf32.f32", f32, 32)                                        \
  X(Tf32RnSat, 1, SM100, F32_TO_B32, "cvt.rn.satfinite.tf32.f32", f32, 32)                                   \
  X(Tf32RzSat, 1, SM100, F32_TO_B32, "cvt.rz.satfinite.tf32.f32", f32, 32)                                   \
  X(FromF16, 1, SM80, B16_TO_F32, "cvt.f32.f16", f16, 32)                                                    \
  X(FromBf16, 1, SM80, B16_TO_F32, "cvt.f32.bf16", bf16, 32)                                                 \
  X(E4m3, 2, SM89, F32X2_TO_BYTES, "cvt.rn.satfinite.e4m3x2.f32", f32, 8)                                    \
  X(E5m2, 2, SM89, F32X2_TO_BYTES, "cvt.rn.satfinite.e5m2x2.f32", f32, 8)                                    \
  X(E4m3Relu, 2, SM89, F32X2_TO_BYTES, "cvt.rn.satfinite.relu.e4m3x2.f32", f32, 8)                           \
  X(E5m2Relu, 2, SM89, F32X2_TO_BYTES, "cvt.rn.satfinite.relu.e5m2x2.f32", f32, 8)                           \
  X(E4m3F16, 2, SM89, HALVES_TO_BYTES, "cvt.rn.satfinite.e4m3x2.f16x2", f16, 8)                              \
  X(E5m2F16, 2, SM89, HALVES_TO_BYTES, "cvt.rn.satfinite.e5m2x2.f16x2", f16, 8)                              \
  X(FromE4m3, 2, SM89, BYTES_TO_HALVES, "cvt.rn.f16x2.e4m3x2", code8, 16)                                    \
  X(FromE5m2, 2, SM89, BYTES_TO_HALVES, "cvt.rn.f16x2.e5m2x2", code8, 16)                                    \
  X(E2m1, 2, NARROW, F32X2_TO_NIBBLES, "cvt.rn.satfinite.e2m1x2.f32", f32, 4)                                \
  X(E2m1Relu, 2, NARROW, F32X2_TO_NIBBLES, "cvt.rn.satfinite.relu.e2m1x2.f32", f32, 4)                       \
  X(E2m3, 2, NARROW, F32X2_TO_BYTES, "cvt.rn.satfinite.e2m3x2.f32", f32, 8)                                  \
  X(E3m2, 2, NARROW, F32X2_TO_BYTES, "cvt.rn.satfinite.e3m2x2.f32", f32, 8)                                  \
  X(Ue8m0Rz, 2, NARROW, F32X2_TO_BYTES, "cvt.rz.ue8m0x2.f32", f32, 8)                                        \
  X(Ue8m0Rp, 2, NARROW, F32X2_TO_BYTES, "cvt.rp.ue8m0x2.f32", f32, 8)                                        \
  X(Ue8m0RzSat, 2, NARROW, F32X2_TO_BYTES, "cvt.rz.satfinite.ue8m0x2.f32", f32, 8)                           \
  X(Ue8m0RpSat, 2, NARROW, F32X2_TO_BYTES, "cvt.rp.satfinite.ue8m0x2.f32", f32, 8)                           \
  X(Ue8m0Bf16Rz, 2, NARROW, HALVES_TO_BYTES, "cvt.rz.satfinite.ue8m0x2.bf16x2", bf16, 8)                     \
  X(Ue8m0Bf16Rp, 2, NARROW, HALVES_TO_BYTES, "cvt.rp.satfinite.ue8m0x2.bf16x2", bf16, 8)                     \
  X(FromE2m1, 2, NARROW, NIBBLES_TO_HALVES, "cvt.rn.f16x2.e2m1x2", code4, 16)                                \
  X(FromE2m3, 2, NARROW, BYTES_TO_HALVES, "cvt.rn.f16x2.e2m3x2", code6, 16)                                  \
  X(FromE3m2, 2, NARROW, BYTES_TO_HALVES, "cvt.rn.f16x2.e3m2x2", code6, 16)                                  \
  X(FromUe8m0, 2, NARROW, BYTES_TO_HALVES, "cvt.rn.bf16x2.ue8m0x2", code8, 16)

#define STOCHASTIC(X)                                                                                        \
  X(RsE2m1, 4, RS, RS_X4_NIBBLES, "cvt.rs.satfinite.e2m1x4.f32", f32, 4)                                     \
  X(RsE2m1Relu, 4, RS, RS_X4_NIBBLES, "cvt.rs.relu.satfinite.e2m1x4.f32", f32, 4)                            \
  X(RsE4m3, 4, RS, RS_X4_BYTES, "cvt.rs.satfinite.e4m3x4.f32", f32, 8)                                       \
  X(RsE5m2, 4, RS, RS_X4_BYTES, "cvt.rs.satfinite.e5m2x4.f32", f32, 8)                                       \
  X(RsE2m3, 4, RS, RS_X4_BYTES, "cvt.rs.satfinite.e2m3x4.f32", f32, 8)                                       \
  X(RsE3m2, 4, RS, RS_X4_BYTES, "cvt.rs.satfinite.e3m2x4.f32", f32, 8)                                       \
  X(RsF16, 2, RS, RS_HALVES, "cvt.rs.f16x2.f32", f32, 16)                                                    \
  X(RsBf16, 2, RS, RS_HALVES, "cvt.rs.bf16x2.f32", f32, 16)

#define MAKE_OP(NAME, ELEMENTS, GUARD, BODY, PTX, SOURCE, BITS)                                              \
  CAPTURE_CVT_OP(NAME, ELEMENTS, GUARD, CAPTURE_##BODY(PTX));
CONVERSIONS(MAKE_OP)
STOCHASTIC(MAKE_OP)

#define MAKE_ROW(NAME, ELEMENTS, GUARD, BODY, PTX, SOURCE, BITS)                                             \
  entry<NAME>(PTX, Source::SOURCE, BITS, k##GUARD),
#define MAKE_RS_ROW(NAME, ELEMENTS, GUARD, BODY, PTX, SOURCE, BITS)                                          \
  entry<NAME>(PTX, Source::SOURCE, BITS, k##GUARD, true),
const Conversion kTable[] = {CONVERSIONS(MAKE_ROW) STOCHASTIC(MAKE_RS_ROW)};

} // namespace

std::span<const Conversion> conversions() { return kTable; }

std::vector<uint32_t> run_conversion(const Conversion &x, std::span<const uint32_t> in,
                                     std::span<const uint32_t> rbits) {
  const int64_t padded = (int64_t(in.size()) + 3) / 4 * 4; // whole groups, the tail reads zeros
  const int64_t bytes = padded * 4, given = int64_t(in.size()) * 4, random = int64_t(rbits.size()) * 4;
  const DeviceBuffer source(bytes), target(bytes), bits(random);
  cuda_check(cudaMemset(source.data(), 0, size_t(bytes)), "cudaMemset");
  source.upload(in.data(), given);
  bits.upload(rbits.data(), random);
  x.run({static_cast<const uint32_t *>(source.data()), static_cast<const uint32_t *>(bits.data()),
         static_cast<uint32_t *>(target.data()), padded});
  cuda_check(cudaDeviceSynchronize(), x.name);
  std::vector<uint32_t> out(in.size());
  target.download(out.data(), given);
  return out;
}

} // namespace nvfp4::gpu
