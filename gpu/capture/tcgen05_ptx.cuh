// SPDX-License-Identifier: Apache-2.0
// The tcgen05 instructions that a capture needs, each behind a function, and the descriptors they read.
// Sources: PTX ISA 9.1, "Shared memory descriptor" (table 40), "Instruction descriptor" (tables 42 to 44),
// tcgen05.*.
#pragma once
#include "nvfp4/gpu/capture/features.cuh"
#include "nvfp4/gpu/capture/run_tiles.hpp"

#if CAPTURE_HAS_TCGEN05
#define CAPTURE_IF_TCGEN05(X) X
#else
#define CAPTURE_IF_TCGEN05(X) __trap()
#endif

namespace nvfp4::gpu {

/// The `.kind` and scale vector of a tcgen05.mma; element types are in the instruction descriptor.
enum class Tcgen05Kind { f16, tf32, f8f6f4, mxf8f6f4, mxf4, mxf4nvf4_2x, mxf4nvf4_4x };

/// Code of an element type in an instruction descriptor.
inline uint32_t descriptor_type(Element e, Tcgen05Kind kind) {
  if (kind == Tcgen05Kind::f16) return e == Element::bf16 ? 1 : 0;
  if (kind == Tcgen05Kind::tf32) return 2;
  if (kind == Tcgen05Kind::f8f6f4 || kind == Tcgen05Kind::mxf8f6f4) {
    switch (e) {
    case Element::e5m2: return 1;
    case Element::e2m3: return 3;
    case Element::e3m2: return 4;
    case Element::e2m1: return 5;
    default: return 0; // e4m3
    }
  }
  return 1; // e2m1 in the 4-bit kinds
}

/// Dense, no negation, no transposition, scale-factor ids 0. M = 128 is 8 << 24 in every table: the dense
/// kinds count M in sixteenths from bit 24, the scaled ones in 128ths from bit 27.
inline uint32_t instruction_descriptor(const MmaKind &x, Tcgen05Kind kind) {
  uint32_t d = descriptor_type(x.a, kind) << 7 | descriptor_type(x.b, kind) << 10 | uint32_t(x.n >> 3) << 17 |
               uint32_t(x.m >> 4) << 24;
  if (x.scale_block)
    d |= (x.scale == Element::ue8m0 ? 1u : 0u) << 23;
  else
    d |= (x.acc == Element::f32 ? 1u : 0u) << 4;
  return d;
}

/// K-major operand, no swizzle: `leading` bytes between core matrices along K, `stride` bytes between groups
/// of 8 rows.
__device__ inline uint64_t shared_descriptor(const void *shared, int leading, int stride) {
  const uint64_t address = __cvta_generic_to_shared(shared);
  return (address & 0x3FFFF) >> 4 | uint64_t(leading >> 4) << 16 | uint64_t(stride >> 4) << 32 |
         uint64_t{1} << 46;
}

__device__ inline uint32_t shared_address(const void *p) { return uint32_t(__cvta_generic_to_shared(p)); }

/// Whole warp: 32 columns of tensor memory; the address is written to *shared_slot.
__device__ inline void tmem_allocate(uint32_t *shared_slot) {
  CAPTURE_IF_TCGEN05(asm volatile(
      "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%0], 32;\n"
      "tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;" ::"r"(shared_address(shared_slot))
      : "memory"));
}
__device__ inline void tmem_free(uint32_t address) {
  CAPTURE_IF_TCGEN05(asm volatile("tcgen05.dealloc.cta_group::1.sync.aligned.b32 %0, 32;" ::"r"(address)
                                  : "memory"));
}

/// Each lane of a warp writes its own row: 8 or 4 consecutive columns from `address` (whose lane is the
/// warp's first).
__device__ inline void tmem_store8(uint32_t address, const uint32_t (&v)[8]) {
  CAPTURE_IF_TCGEN05(
      asm volatile("tcgen05.st.sync.aligned.32x32b.x8.b32 [%0], {%1,%2,%3,%4,%5,%6,%7,%8};" ::"r"(address),
                   "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3]), "r"(v[4]), "r"(v[5]), "r"(v[6]), "r"(v[7])
                   : "memory"));
}
__device__ inline void tmem_store4(uint32_t address, const uint32_t (&v)[4]) {
  CAPTURE_IF_TCGEN05(asm volatile("tcgen05.st.sync.aligned.32x32b.x4.b32 [%0], {%1,%2,%3,%4};" ::"r"(address),
                                  "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                                  : "memory"));
}
__device__ inline void tmem_store_wait() {
  CAPTURE_IF_TCGEN05(asm volatile("tcgen05.wait::st.sync.aligned;" ::: "memory"));
}
/// Loads the lane's 8 columns and waits for them.
__device__ inline void tmem_load8(uint32_t address, uint32_t (&v)[8]) {
  CAPTURE_IF_TCGEN05(asm volatile("tcgen05.ld.sync.aligned.32x32b.x8.b32 {%0,%1,%2,%3,%4,%5,%6,%7}, [%8];\n"
                                  "tcgen05.wait::ld.sync.aligned;"
                                  : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]), "=r"(v[4]), "=r"(v[5]),
                                    "=r"(v[6]), "=r"(v[7])
                                  : "r"(address)
                                  : "memory"));
}

__device__ inline void tcgen05_fence_before() {
  CAPTURE_IF_TCGEN05(asm volatile("tcgen05.fence::before_thread_sync;" ::: "memory"));
}
__device__ inline void tcgen05_fence_after() {
  CAPTURE_IF_TCGEN05(asm volatile("tcgen05.fence::after_thread_sync;" ::: "memory"));
}

__device__ inline void barrier_init(uint64_t *barrier) {
  CAPTURE_IF_TCGEN05(
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(
                       shared_address(barrier))
                   : "memory"));
}
/// One thread: the barrier's phase completes when all of the thread's tcgen05 operations have.
__device__ inline void tcgen05_commit(uint64_t *barrier) {
  CAPTURE_IF_TCGEN05(
      asm volatile("tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%0];" ::"r"(
                       shared_address(barrier))
                   : "memory"));
}
__device__ inline void barrier_wait(uint64_t *barrier, uint32_t parity) {
  CAPTURE_IF_TCGEN05(asm volatile("{\n.reg .pred done;\nagain:\n"
                                  "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                                  "@!done bra again;\n}" ::"r"(shared_address(barrier)),
                                  "r"(parity)
                                  : "memory"));
}

#define CAPTURE_TCGEN05_MMA(KIND)                                                                            \
  CAPTURE_IF_TCGEN05(                                                                                        \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\ntcgen05.mma.cta_group::1.kind::" KIND            \
                   " [%0], %1, %2, %3, p;\n}" ::"r"(d),                                                      \
                   "l"(a), "l"(b), "r"(idesc)                                                                \
                   : "memory"))
#define CAPTURE_TCGEN05_SCALED(KIND)                                                                         \
  CAPTURE_IF_TCGEN05(                                                                                        \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\ntcgen05.mma.cta_group::1.kind::" KIND            \
                   " [%0], %1, %2, %3, [%4], [%5], p;\n}" ::"r"(d),                                          \
                   "l"(a), "l"(b), "r"(idesc), "r"(sa), "r"(sb)                                              \
                   : "memory"))

/// One thread: D = A B + D.
template <Tcgen05Kind Kind>
__device__ void tcgen05_mma(uint32_t d, uint64_t a, uint64_t b, uint32_t idesc, uint32_t sa, uint32_t sb) {
  if constexpr (Kind == Tcgen05Kind::f16) CAPTURE_TCGEN05_MMA("f16");
  if constexpr (Kind == Tcgen05Kind::tf32) CAPTURE_TCGEN05_MMA("tf32");
  if constexpr (Kind == Tcgen05Kind::f8f6f4) CAPTURE_TCGEN05_MMA("f8f6f4");
  if constexpr (Kind == Tcgen05Kind::mxf8f6f4) CAPTURE_TCGEN05_SCALED("mxf8f6f4.block_scale.scale_vec::1X");
  if constexpr (Kind == Tcgen05Kind::mxf4) CAPTURE_TCGEN05_SCALED("mxf4.block_scale.scale_vec::2X");
  if constexpr (Kind == Tcgen05Kind::mxf4nvf4_2x)
    CAPTURE_TCGEN05_SCALED("mxf4nvf4.block_scale.scale_vec::2X");
  if constexpr (Kind == Tcgen05Kind::mxf4nvf4_4x)
    CAPTURE_TCGEN05_SCALED("mxf4nvf4.block_scale.scale_vec::4X");
}

} // namespace nvfp4::gpu
