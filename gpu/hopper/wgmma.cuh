// SPDX-License-Identifier: Apache-2.0
// What a Hopper kernel needs from PTX: wgmma with 32, 64, 128 or 256 columns, shared-memory barriers and the
// tensor copy engine. On other targets every function traps, so that the files compile for all architectures.
// Sources: PTX ISA 9.1, "wgmma.mma_async", its matrix descriptor, "mbarrier", "cp.async.bulk.tensor".
#pragma once
#include <cuda.h>

#include <cstdint>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define NVFP4_IF_HOPPER(...) __VA_ARGS__
#else
#define NVFP4_IF_HOPPER(...) __trap()
#endif

namespace nvfp4::cuda::hopper {

/// Rows of 128 bytes in 8-row groups of 1024 bytes, swizzled over 128 bytes: K-major operands as the copy
/// engine writes them. `address` is 1024-byte aligned plus 32 bytes per step along K.
__host__ __device__ constexpr uint64_t descriptor(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kGroupStride = uint64_t{1024 >> 4} << 32,
                     kUnused = uint64_t{1} << 16;
  return ((address & 0x3FFFF) >> 4) | kUnused | kGroupStride | kSwizzle128;
}

#define NVFP4_R4(D, I) "+f"(D[I]), "+f"(D[I + 1]), "+f"(D[I + 2]), "+f"(D[I + 3])
#define NVFP4_R16(D, I) NVFP4_R4(D, I), NVFP4_R4(D, I + 4), NVFP4_R4(D, I + 8), NVFP4_R4(D, I + 12)
#define NVFP4_R64(D, I) NVFP4_R16(D, I), NVFP4_R16(D, I + 16), NVFP4_R16(D, I + 32), NVFP4_R16(D, I + 48)
#define NVFP4_LIST16 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}"
#define NVFP4_LIST32                                                                                         \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,"              \
  "%25,%26,%27,%28,%29,%30,%31}"
#define NVFP4_LIST64                                                                                         \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,"              \
  "%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,"                 \
  "%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"
#define NVFP4_LIST128                                                                                        \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,"              \
  "%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,"                 \
  "%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,"                 \
  "%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,"                 \
  "%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,"              \
  "%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}"

// D += A * B^T of 64 x 32, 64 x 64, 64 x 128 or 64 x 256, K = 32 bytes; D = A * B^T where Accumulate is 0. TAIL: ", 0,
// 0" (no transpose) for 16-bit operands.
#define NVFP4_WGMMA_OP(NAME, TYPES, TAIL)                                                                    \
  struct NAME {                                                                                              \
    template <int Accumulate = 1> static __device__ void run(float (&d)[16], uint64_t a, uint64_t b) {       \
      NVFP4_IF_HOPPER(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"                              \
                                   "wgmma.mma_async.sync.aligned.m64n32" TYPES " " NVFP4_LIST16              \
                                   ", %16, %17, p, 1, 1" TAIL ";\n}"                                         \
                                   : NVFP4_R16(d, 0)                                                         \
                                   : "l"(a), "l"(b), "n"(Accumulate)));                                      \
    }                                                                                                        \
    template <int Accumulate = 1> static __device__ void run(float (&d)[32], uint64_t a, uint64_t b) {       \
      NVFP4_IF_HOPPER(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                              \
                                   "wgmma.mma_async.sync.aligned.m64n64" TYPES " " NVFP4_LIST32              \
                                   ", %32, %33, p, 1, 1" TAIL ";\n}"                                         \
                                   : NVFP4_R16(d, 0), NVFP4_R16(d, 16)                                       \
                                   : "l"(a), "l"(b), "n"(Accumulate)));                                      \
    }                                                                                                        \
    template <int Accumulate = 1> static __device__ void run(float (&d)[64], uint64_t a, uint64_t b) {       \
      NVFP4_IF_HOPPER(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                              \
                                   "wgmma.mma_async.sync.aligned.m64n128" TYPES " " NVFP4_LIST64             \
                                   ", %64, %65, p, 1, 1" TAIL ";\n}"                                         \
                                   : NVFP4_R64(d, 0)                                                         \
                                   : "l"(a), "l"(b), "n"(Accumulate)));                                      \
    }                                                                                                        \
    template <int Accumulate = 1> static __device__ void run(float (&d)[128], uint64_t a, uint64_t b) {      \
      NVFP4_IF_HOPPER(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"                             \
                                   "wgmma.mma_async.sync.aligned.m64n256" TYPES " " NVFP4_LIST128            \
                                   ", %128, %129, p, 1, 1" TAIL ";\n}"                                       \
                                   : NVFP4_R64(d, 0), NVFP4_R64(d, 64)                                       \
                                   : "l"(a), "l"(b), "n"(Accumulate)));                                      \
    }                                                                                                        \
  }

NVFP4_WGMMA_OP(Bf16, "k16.f32.bf16.bf16", ", 0, 0");
NVFP4_WGMMA_OP(E4m3, "k32.f32.e4m3.e4m3", "");
NVFP4_WGMMA_OP(E5m2, "k32.f32.e5m2.e5m2", "");
NVFP4_WGMMA_OP(E4m3E5m2, "k32.f32.e4m3.e5m2", "");
NVFP4_WGMMA_OP(E5m2E4m3, "k32.f32.e5m2.e4m3", "");

// D += A * B^T of 64 x 32, 64 x 64 or 64 x 128, K = 16, A from registers: each warp's 16 rows as mma.m16n8k16 has them. D =
// A * B^T where Accumulate is 0. A0 to A3, B and P: the operands behind those of D.
#define NVFP4_WGMMA_REGISTERS(REGISTERS, SHAPE, LIST, A0, A1, A2, A3, B, P, ...)                                             \
  template <int Accumulate = 1>                                                                                             \
  __device__ inline void multiply_registers(float (&d)[REGISTERS], const uint32_t (&a)[4], uint64_t b) {                    \
    NVFP4_IF_HOPPER(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\n"                                            \
                                 "wgmma.mma_async.sync.aligned." SHAPE "k16.f32.bf16.bf16 " LIST                            \
                                 ", {" A0 ", " A1 ", " A2 ", " A3 "}, " B ", p, 1, 1, 0;\n}"                                \
                                 : __VA_ARGS__                                                                              \
                                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(Accumulate)));                   \
  }
NVFP4_WGMMA_REGISTERS(16, "m64n32", NVFP4_LIST16, "%16", "%17", "%18", "%19", "%20", "%21", NVFP4_R16(d, 0))
NVFP4_WGMMA_REGISTERS(32, "m64n64", NVFP4_LIST32, "%32", "%33", "%34", "%35", "%36", "%37", NVFP4_R16(d, 0), NVFP4_R16(d, 16))
NVFP4_WGMMA_REGISTERS(64, "m64n128", NVFP4_LIST64, "%64", "%65", "%66", "%67", "%68", "%69", NVFP4_R64(d, 0))

__device__ inline void wgmma_fence() {
  NVFP4_IF_HOPPER(asm volatile("wgmma.fence.sync.aligned;" ::: "memory"));
}
__device__ inline void wgmma_commit() {
  NVFP4_IF_HOPPER(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"));
}
/// Waits until at most `Pending` groups are in flight.
template <int Pending> __device__ inline void wgmma_wait() {
  NVFP4_IF_HOPPER(asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory"));
}
template <int Registers> __device__ inline void more_registers() {
  NVFP4_IF_HOPPER(asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers)));
}
template <int Registers> __device__ inline void fewer_registers() {
  NVFP4_IF_HOPPER(asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers)));
}

__device__ inline uint32_t shared_address(const void *p) { return uint32_t(__cvta_generic_to_shared(p)); }

__device__ inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
  NVFP4_IF_HOPPER(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                               : "memory"));
}
/// Makes initialised barriers visible to the copy engine.
__device__ inline void barrier_init_fence() {
  NVFP4_IF_HOPPER(asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" ::: "memory"));
}
__device__ inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  NVFP4_IF_HOPPER(
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                   : "memory"));
}
__device__ inline void barrier_arrive(uint32_t barrier) {
  NVFP4_IF_HOPPER(asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"));
}
/// Waits until the phase of this parity is complete.
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
  NVFP4_IF_HOPPER(
      asm volatile("{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                   "@p bra DONE;\nbra AGAIN;\nDONE:\n}" ::"r"(barrier),
                   "r"(parity)
                   : "memory"));
}

/// Copies the box at element `k` of row `row` to shared memory; what lies outside the matrix becomes zero.
__device__ inline void copy_box(uint32_t to, const CUtensorMap *map, int k, int row, uint32_t barrier) {
  NVFP4_IF_HOPPER(asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                               " [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                               "l"(map), "r"(k), "r"(row), "r"(barrier)
                               : "memory"));
}

} // namespace nvfp4::cuda::hopper
