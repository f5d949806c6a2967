// SPDX-License-Identifier: Apache-2.0
// mma.sync of e4m3 and e5m2 operands without a kind qualifier (sm_89 and later). Native on sm_89, 120 and
// 121; on sm_90, 100, 103 and 110 ptxas expands it into f16 HMMAs and an add.
#include "nvfp4/gpu/capture/mma_kernel.cuh"

namespace nvfp4::gpu {
namespace {

#define FP8_PAIR(NAME, TYPES)                                                                                \
  CAPTURE_OP(NAME##K32, 8, A4D4, false, FP8, "m16n8k32.row.col.f32." TYPES ".f32");                          \
  CAPTURE_OP(NAME##K16, 4, A2D4, false, FP8, "m16n8k16.row.col.f32." TYPES ".f32");                          \
  CAPTURE_OP(NAME##HalfK32, 8, A4D2, true, FP8, "m16n8k32.row.col.f16." TYPES ".f16");                       \
  CAPTURE_OP(NAME##HalfK16, 4, A2D2, true, FP8, "m16n8k16.row.col.f16." TYPES ".f16")

FP8_PAIR(E4E4, "e4m3.e4m3");
FP8_PAIR(E5E5, "e5m2.e5m2");
FP8_PAIR(E4E5, "e4m3.e5m2");
FP8_PAIR(E5E4, "e5m2.e4m3");

#define FP8_ROWS(NAME, A, B)                                                                                 \
  {32, A, B, f32, launch_op<NAME##K32>}, {16, A, B, f32, launch_op<NAME##K16>},                              \
      {32, A, B, f16, launch_op<NAME##HalfK32>}, {                                                           \
    16, A, B, f16, launch_op<NAME##HalfK16>                                                                  \
  }

using enum Element;
const OpEntry kTable[] = {
    FP8_ROWS(E4E4, e4m3, e4m3),
    FP8_ROWS(E5E5, e5m2, e5m2),
    FP8_ROWS(E4E5, e4m3, e5m2),
    FP8_ROWS(E5E4, e5m2, e4m3),
};

} // namespace

bool launch_mma_fp8(const MmaKind &kind, const TileArgs &args) { return launch_from(kTable, kind, args); }

} // namespace nvfp4::gpu
