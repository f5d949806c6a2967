// SPDX-License-Identifier: Apache-2.0
// mma.sync of f16, bf16 and tf32 operands (sm_80 and later).
#include "nvfp4/gpu/capture/mma_kernel.cuh"

namespace nvfp4::gpu {
namespace {

CAPTURE_OP(F16K16, 8, A4D4, false, MMA16, "m16n8k16.row.col.f32.f16.f16.f32");
CAPTURE_OP(F16K8, 4, A2D4, false, MMA16, "m16n8k8.row.col.f32.f16.f16.f32");
CAPTURE_OP(Bf16K16, 8, A4D4, false, MMA16, "m16n8k16.row.col.f32.bf16.bf16.f32");
CAPTURE_OP(Bf16K8, 4, A2D4, false, MMA16, "m16n8k8.row.col.f32.bf16.bf16.f32");
CAPTURE_OP(F16HalfK16, 8, A4D2, true, MMA16, "m16n8k16.row.col.f16.f16.f16.f16");
CAPTURE_OP(F16HalfK8, 4, A2D2, true, MMA16, "m16n8k8.row.col.f16.f16.f16.f16");
CAPTURE_OP(Tf32K8, 8, A4D4, false, MMA16, "m16n8k8.row.col.f32.tf32.tf32.f32");
CAPTURE_OP(Tf32K4, 4, A2D4, false, MMA16, "m16n8k4.row.col.f32.tf32.tf32.f32");

using enum Element;
const OpEntry kTable[] = {
    {16, f16, f16, f32, launch_op<F16K16>},     {8, f16, f16, f32, launch_op<F16K8>},
    {16, bf16, bf16, f32, launch_op<Bf16K16>},  {8, bf16, bf16, f32, launch_op<Bf16K8>},
    {16, f16, f16, f16, launch_op<F16HalfK16>}, {8, f16, f16, f16, launch_op<F16HalfK8>},
    {8, tf32, tf32, f32, launch_op<Tf32K8>},    {4, tf32, tf32, f32, launch_op<Tf32K4>},
};

} // namespace

bool launch_mma_dense(const MmaKind &kind, const TileArgs &args) { return launch_from(kTable, kind, args); }

} // namespace nvfp4::gpu
