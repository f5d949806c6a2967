// SPDX-License-Identifier: Apache-2.0
// mma.sync kind::f8f6f4 with at least one 6- or 4-bit operand (sm_120a, 121a). Compiled and inspected, but
// never run on hardware as of 2026-11.
#include "nvfp4/gpu/capture/mma_kernel.cuh"

#if CAPTURE_HAS_MMA_BLOCK
#define CAPTURE_IF_BLOCK(X) X
#else
#define CAPTURE_IF_BLOCK(X) __trap()
#endif

namespace nvfp4::gpu {
namespace {

/// How each element type reaches its 8-bit container.
struct Load_e4m3 : FullWords {};
struct Load_e5m2 : FullWords {};
struct Load_e3m2 : FullWords {}; // in the low 6 bits, as it is in memory
struct Load_e2m3 : FullWords {};
struct Load_e2m1 : NibblesToBytes {};

#define F8F6F4_OPS(A, B)                                                                                     \
  struct F32_##A##_##B : OpShape<8, false, Load_##A, Load_##B> {                                             \
    static __device__ void run(uint32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],             \
                               ScaleWords) {                                                                 \
      CAPTURE_IF_BLOCK(CAPTURE_MMA_A4D4("kind::f8f6f4.m16n8k32.row.col.f32." #A "." #B ".f32"));             \
    }                                                                                                        \
  };                                                                                                         \
  struct F16_##A##_##B : OpShape<8, true, Load_##A, Load_##B> {                                              \
    static __device__ void run(uint32_t (&d)[2], const uint32_t (&a)[4], const uint32_t (&b)[2],             \
                               ScaleWords) {                                                                 \
      CAPTURE_IF_BLOCK(CAPTURE_MMA_A4D2("kind::f8f6f4.m16n8k32.row.col.f16." #A "." #B ".f16"));             \
    }                                                                                                        \
  };
#define F8F6F4_ROWS(A, B)                                                                                    \
  {32, Element::A, Element::B, Element::f32, launch_op<F32_##A##_##B>},                                      \
      {32, Element::A, Element::B, Element::f16, launch_op<F16_##A##_##B>},

// Every pair but those of e4m3 and e5m2 alone, which need no kind (mma_fp8.cu).
#define PAIRS(X)                                                                                             \
  X(e4m3, e3m2)                                                                                              \
  X(e4m3, e2m3)                                                                                              \
  X(e4m3, e2m1)                                                                                              \
  X(e5m2, e3m2)                                                                                              \
  X(e5m2, e2m3) X(e5m2, e2m1) X(e3m2, e4m3) X(e3m2, e5m2) X(e3m2, e3m2) X(e3m2, e2m3) X(e3m2, e2m1)          \
      X(e2m3, e4m3) X(e2m3, e5m2) X(e2m3, e3m2) X(e2m3, e2m3) X(e2m3, e2m1) X(e2m1, e4m3) X(e2m1, e5m2)      \
          X(e2m1, e3m2) X(e2m1, e2m3) X(e2m1, e2m1)

PAIRS(F8F6F4_OPS)
const OpEntry kTable[] = {PAIRS(F8F6F4_ROWS)};

} // namespace

bool launch_mma_f8f6f4(const MmaKind &kind, const TileArgs &args) { return launch_from(kTable, kind, args); }

} // namespace nvfp4::gpu
