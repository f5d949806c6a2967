// SPDX-License-Identifier: Apache-2.0
// Block-scaled mma.sync (sm_120a, 121a): kind::mxf8f6f4 with K = 32, kind::mxf4 and kind::mxf4nvf4 with K
// = 64. Compiled and inspected, but never run on hardware as of 2026-11. Source of operands and selectors:
// PTX ISA 9.1, "Block Scaling for mma.sync"; all selectors are 0 here.
#include "nvfp4/gpu/capture/mma_kernel.cuh"

#if CAPTURE_HAS_MMA_BLOCK
#define CAPTURE_IF_BLOCK(X) X
#else
#define CAPTURE_IF_BLOCK(X) __trap()
#endif

namespace nvfp4::gpu {
namespace {

struct Load_e4m3 : FullWords {};
struct Load_e5m2 : FullWords {};
struct Load_e3m2 : FullWords {};
struct Load_e2m3 : FullWords {};
struct Load_e2m1 : NibblesToBytes {};

#define SCALED_MMA(SPELLING)                                                                                 \
  asm volatile("mma.sync.aligned." SPELLING                                                                  \
               " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3}, {%10}, {%12,%12}, {%11}, {%12,%12};"  \
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])                                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(s.a), "r"(s.b),       \
                 "h"(uint16_t{0}))

#define SCALED_OP(NAME, LOAD_A, LOAD_B, SCALES, SPELLING)                                                    \
  struct NAME : OpShape<8, false, LOAD_A, LOAD_B, SCALES> {                                                  \
    static __device__ void run(uint32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],             \
                               ScaleWords s) {                                                               \
      CAPTURE_IF_BLOCK(SCALED_MMA(SPELLING));                                                                \
    }                                                                                                        \
  };

SCALED_OP(Nvf4x4, FullWords, FullWords, 4,
          "kind::mxf4nvf4.block_scale.scale_vec::4X.m16n8k64.row.col.f32.e2m1.e2m1.f32.ue4m3")
SCALED_OP(Nvf4x2, FullWords, FullWords, 2,
          "kind::mxf4nvf4.block_scale.scale_vec::2X.m16n8k64.row.col.f32.e2m1.e2m1.f32.ue8m0")
SCALED_OP(Mxf4x2, FullWords, FullWords, 2,
          "kind::mxf4.block_scale.scale_vec::2X.m16n8k64.row.col.f32.e2m1.e2m1.f32.ue8m0")

#define MX_OP(A, B)                                                                                          \
  SCALED_OP(Mx_##A##_##B, Load_##A, Load_##B, 1,                                                             \
            "kind::mxf8f6f4.block_scale.scale_vec::1X.m16n8k32.row.col.f32." #A "." #B ".f32.ue8m0")
#define MX_ROW(A, B) {32, Element::A, Element::B, Element::f32, launch_op<Mx_##A##_##B>},
#define MX_WITH(X, A) X(A, e4m3) X(A, e5m2) X(A, e3m2) X(A, e2m3) X(A, e2m1)
#define MX_PAIRS(X) MX_WITH(X, e4m3) MX_WITH(X, e5m2) MX_WITH(X, e3m2) MX_WITH(X, e2m3) MX_WITH(X, e2m1)

MX_PAIRS(MX_OP)
const OpEntry kMxTable[] = {MX_PAIRS(MX_ROW)};

} // namespace

bool launch_mma_block(const MmaKind &kind, const TileArgs &args) {
  if (kind.spelling == Spelling::mxf8f6f4) return launch_from(kMxTable, kind, args);
  if (kind.spelling == Spelling::mxf4) return launch_op<Mxf4x2>(args), true;
  if (kind.spelling != Spelling::mxf4nvf4) return false;
  if (kind.scale_block == 16) return launch_op<Nvf4x4>(args), true;
  return launch_op<Nvf4x2>(args), true;
}

} // namespace nvfp4::gpu
