// SPDX-License-Identifier: Apache-2.0
// wgmma.mma_async m64n8kK on Hopper (sm_90a): one warpgroup a tile, A and B from shared memory, C in the
// accumulator registers with scale-d = 1. K is always 32 bytes: two 16-byte columns of 8-row core matrices.
// Sources: PTX ISA 9.1, "Register fragments and shared memory matrix layouts" of wgmma and its matrix
// descriptor.
#include "nvfp4/gpu/capture/mma_kernel.cuh"
#include "nvfp4/gpu/capture/wgmma_operands.cuh"

namespace nvfp4::gpu {
namespace {

// For f32 (4 registers) and f16 (2 registers) results. TAIL: ", 0, 0" (no transpose) for 16-bit operands,
// else "".
#define WGMMA_D4(TYPES, TAIL)                                                                                \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n8" TYPES            \
               " {%0,%1,%2,%3}, %4, %5, p, 1, 1" TAIL ";\n}"                                                 \
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])                                              \
               : "l"(da), "l"(db))
#define WGMMA_D2(TYPES, TAIL)                                                                                \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n8" TYPES            \
               " {%0,%1}, %2, %3, p, 1, 1" TAIL ";\n}"                                                       \
               : "+r"(d[0]), "+r"(d[1])                                                                      \
               : "l"(da), "l"(db))
#define WGMMA_OP(NAME, REGS, HALF, TYPES, TAIL)                                                              \
  struct NAME {                                                                                              \
    static constexpr bool kHalf = HALF;                                                                      \
    static __device__ void run(uint32_t (&d)[HALF ? 2 : 4], uint64_t da, uint64_t db) {                      \
      CAPTURE_IF_WGMMA(WGMMA_##REGS(TYPES, TAIL));                                                           \
    }                                                                                                        \
  }

WGMMA_OP(F16, D4, false, "k16.f32.f16.f16", ", 0, 0");
WGMMA_OP(Bf16, D4, false, "k16.f32.bf16.bf16", ", 0, 0");
WGMMA_OP(F16Half, D2, true, "k16.f16.f16.f16", ", 0, 0");
WGMMA_OP(Tf32, D4, false, "k8.f32.tf32.tf32", "");
#define WGMMA_FP8(NAME, TYPES)                                                                               \
  WGMMA_OP(NAME, D4, false, "k32.f32." TYPES, "");                                                           \
  WGMMA_OP(NAME##Half, D2, true, "k32.f16." TYPES, "")
WGMMA_FP8(E4E4, "e4m3.e4m3");
WGMMA_FP8(E5E5, "e5m2.e5m2");
WGMMA_FP8(E4E5, "e4m3.e5m2");
WGMMA_FP8(E5E4, "e5m2.e4m3");

template <class Op> __global__ void __launch_bounds__(128) wgmma_kernel(TileArgs args) {
  constexpr int ND = Op::kHalf ? 2 : 4, row_words = Op::kHalf ? 4 : 8, per_row = ND / 2;
  __shared__ __align__(128) uint8_t shared_a[64 * 32];
  __shared__ __align__(128) uint8_t shared_b[8 * 32];
  const int thread = threadIdx.x, lane = thread & 31, g = lane >> 2, t = lane & 3;
  const int row = 16 * (thread >> 5) + g;
  for (int64_t tile = blockIdx.x; tile < args.tiles; tile += gridDim.x) {
    const uint4 *a = static_cast<const uint4 *>(args.a) + tile * 128;
    const uint4 *b = static_cast<const uint4 *>(args.b) + tile * 16;
    *reinterpret_cast<uint4 *>(shared_a + core_offset(thread >> 1, thread & 1)) = a[thread];
    if (thread < 16) *reinterpret_cast<uint4 *>(shared_b + core_offset(thread >> 1, thread & 1)) = b[thread];
    const uint32_t *c = static_cast<const uint32_t *>(args.c);
    uint32_t *out = static_cast<uint32_t *>(args.d);
    uint32_t d[ND];
    int64_t at[ND];
    for (int i = 0; i < ND; ++i) {
      at[i] = (tile * 64 + row + 8 * (i / per_row)) * row_words + t * per_row + i % per_row;
      d[i] = c[at[i]];
    }
    // The generic-proxy writes above must be visible to the async proxy that wgmma reads through.
    CAPTURE_IF_WGMMA(asm volatile("fence.proxy.async.shared::cta;" ::: "memory"));
    __syncthreads();
    CAPTURE_IF_WGMMA(asm volatile("wgmma.fence.sync.aligned;" ::: "memory"));
    Op::run(d, wgmma_descriptor(shared_a), wgmma_descriptor(shared_b));
    CAPTURE_IF_WGMMA(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"));
    CAPTURE_IF_WGMMA(asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"));
    for (int i = 0; i < ND; ++i) asm volatile("" : "+r"(d[i])::"memory"); // D is complete only from here on
    for (int i = 0; i < ND; ++i) out[at[i]] = d[i];
    __syncthreads(); // before the next tile overwrites shared memory
  }
}

template <class Op> void launch_wgmma_op(const TileArgs &args) {
  const int64_t blocks = args.tiles < 65536 ? args.tiles : 65536;
  wgmma_kernel<Op><<<unsigned(blocks), 128>>>(args);
  cuda_check(cudaGetLastError(), "launch of wgmma kernel");
}

using enum Element;
const OpEntry kTable[] = {
    {16, f16, f16, f32, launch_wgmma_op<F16>},        {16, bf16, bf16, f32, launch_wgmma_op<Bf16>},
    {16, f16, f16, f16, launch_wgmma_op<F16Half>},    {8, tf32, tf32, f32, launch_wgmma_op<Tf32>},
    {32, e4m3, e4m3, f32, launch_wgmma_op<E4E4>},     {32, e5m2, e5m2, f32, launch_wgmma_op<E5E5>},
    {32, e4m3, e5m2, f32, launch_wgmma_op<E4E5>},     {32, e5m2, e4m3, f32, launch_wgmma_op<E5E4>},
    {32, e4m3, e4m3, f16, launch_wgmma_op<E4E4Half>}, {32, e5m2, e5m2, f16, launch_wgmma_op<E5E5Half>},
    {32, e4m3, e5m2, f16, launch_wgmma_op<E4E5Half>}, {32, e5m2, e4m3, f16, launch_wgmma_op<E5E4Half>},
};

} // namespace

bool launch_wgmma(const MmaKind &kind, const TileArgs &args) { return launch_from(kTable, kind, args); }

} // namespace nvfp4::gpu
