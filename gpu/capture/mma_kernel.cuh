// SPDX-License-Identifier: Apache-2.0
// One warp runs one mma.sync tile: loads fragments from plain matrices, issues the instruction, stores D.
// Fragment layouts: PTX ISA 9.1, "Matrix Fragments for mma.m16n8k*"; every 8-, 16- and 32-bit type has the
// same one when a row of A is seen as 8 (or, for half of K, 4) 32-bit words.
#pragma once
#include "nvfp4/gpu/capture/cuda_check.hpp"
#include "nvfp4/gpu/capture/engines.hpp"
#include "nvfp4/gpu/capture/features.cuh"

namespace nvfp4::gpu {

/// Word `i` of a matrix whose elements fill their container.
struct FullWords {
  static __device__ uint32_t load(const void *p, int64_t i) { return static_cast<const uint32_t *>(p)[i]; }
};

/// Word `i` when e2m1 codes, two per byte in memory, must sit in bits 5:2 of 8-bit containers (PTX ISA 9.1,
/// mma: "resides in central 4 bits of the 8-bit container").
struct NibblesToBytes {
  static __device__ uint32_t load(const void *p, int64_t i) {
    const uint32_t h = static_cast<const uint16_t *>(p)[i];
    return (h & 0xF) << 2 | (h & 0xF0) << 6 | (h & 0xF00) << 10 | (h & 0xF000) << 14;
  }
};

/// The scale words of a lane: bytes of scale_a's row and scale_b's column that this lane supplies with
/// selector 0. Row g comes from lane 4g, row g + 8 from lane 4g + 1, column g from lane 4g.
struct ScaleWords {
  uint32_t a = 0, b = 0;
};

template <int PerRow> __device__ uint32_t scale_bytes(const void *scales, int64_t row) {
  uint32_t word = 0;
  for (int i = 0; i < PerRow; ++i)
    word |= uint32_t(static_cast<const uint8_t *>(scales)[row * PerRow + i]) << (8 * i);
  return word;
}

/// Op has kWords (32-bit words in a row of A: 8 or 4), kHalf (f16 accumulators), kScales (scales per row),
/// types LoadA and LoadB, and run(d, a, b, scales), where d holds C on entry and D on return.
template <class Op> __global__ void mma_kernel(TileArgs args) {
  constexpr int W = Op::kWords, NA = W / 2, NB = W / 4, ND = Op::kHalf ? 2 : 4;
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int64_t tile = int64_t(blockIdx.x) * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (tile >= args.tiles) return; // a whole warp leaves together

  uint32_t a[NA], b[NB], d[ND];
  for (int i = 0; i < NA; ++i) // registers alternate between row g and row g + 8, then step 4 words along K
    a[i] = Op::LoadA::load(args.a, (tile * 16 + g + 8 * (i & 1)) * W + t + 4 * (i >> 1));
  for (int i = 0; i < NB; ++i) b[i] = Op::LoadB::load(args.b, (tile * 8 + g) * W + t + 4 * i);

  // C and D in units of a register: f32 has 8 words in a row, f16 has 4 pairs.
  constexpr int row_words = Op::kHalf ? 4 : 8, per_row = ND / 2;
  const uint32_t *c = static_cast<const uint32_t *>(args.c);
  uint32_t *out = static_cast<uint32_t *>(args.d);
  int64_t at[ND];
  for (int i = 0; i < ND; ++i) {
    at[i] = (tile * 16 + g + 8 * (i / per_row)) * row_words + t * per_row + i % per_row;
    d[i] = c[at[i]];
  }

  ScaleWords scales;
  if constexpr (Op::kScales > 0) {
    scales.a = scale_bytes<Op::kScales>(args.scale_a, tile * 16 + g + 8 * (t & 1));
    scales.b = scale_bytes<Op::kScales>(args.scale_b, tile * 8 + g);
  }
  Op::run(d, a, b, scales);
  for (int i = 0; i < ND; ++i) out[at[i]] = d[i];
}

using TileLauncher = void (*)(const TileArgs &);

template <class Op> void launch_op(const TileArgs &args) {
  constexpr int warps = 4;
  mma_kernel<Op><<<unsigned((args.tiles + warps - 1) / warps), warps * 32>>>(args);
  cuda_check(cudaGetLastError(), "launch of mma.sync kernel");
}

/// A row of an engine's table: which kind, and how to launch it.
struct OpEntry {
  int k;
  Element a, b, acc;
  TileLauncher launch;
};

template <size_t N> bool launch_from(const OpEntry (&table)[N], const MmaKind &kind, const TileArgs &args) {
  for (const OpEntry &e : table) {
    if (e.k != kind.k || e.a != kind.a || e.b != kind.b || e.acc != kind.acc) continue;
    e.launch(args);
    return true;
  }
  return false;
}

/// The base of every Op without scales and with whole words.
template <int Words, bool Half, class A = FullWords, class B = FullWords, int Scales = 0> struct OpShape {
  static constexpr int kWords = Words, kScales = Scales;
  static constexpr bool kHalf = Half;
  using LoadA = A;
  using LoadB = B;
};

} // namespace nvfp4::gpu

// The body of Op::run for one spelling; the operand lists of the four register shapes. Undefined outside a
// guard.
#define CAPTURE_MMA_A4D4(SPELLING)                                                                           \
  asm volatile("mma.sync.aligned." SPELLING " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"         \
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])                                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#define CAPTURE_MMA_A4D2(SPELLING)                                                                           \
  asm volatile("mma.sync.aligned." SPELLING " {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%0,%1};"                     \
               : "+r"(d[0]), "+r"(d[1])                                                                      \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#define CAPTURE_MMA_A2D4(SPELLING)                                                                           \
  asm volatile("mma.sync.aligned." SPELLING " {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"                  \
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])                                              \
               : "r"(a[0]), "r"(a[1]), "r"(b[0]))
#define CAPTURE_MMA_A2D2(SPELLING)                                                                           \
  asm volatile("mma.sync.aligned." SPELLING " {%0,%1}, {%2,%3}, {%4}, {%0,%1};"                              \
               : "+r"(d[0]), "+r"(d[1])                                                                      \
               : "r"(a[0]), "r"(a[1]), "r"(b[0]))

// An Op: NAME, 32-bit words in a row of A, register macro suffix, f16 accumulator, guard, spelling after
// "aligned.".
#define CAPTURE_OP(NAME, WORDS, REGS, HALF, GUARD, SPELLING)                                                 \
  struct NAME : OpShape<WORDS, HALF> {                                                                       \
    static __device__ void run(uint32_t (&d)[HALF ? 2 : 4], const uint32_t (&a)[WORDS / 2],                  \
                               const uint32_t (&b)[WORDS / 4], ScaleWords) {                                 \
      CAPTURE_IF_##GUARD(CAPTURE_MMA_##REGS(SPELLING));                                                      \
    }                                                                                                        \
  }

#if CAPTURE_HAS_MMA16
#define CAPTURE_IF_MMA16(X) X
#else
#define CAPTURE_IF_MMA16(X) __trap()
#endif
#if CAPTURE_HAS_MMA_FP8
#define CAPTURE_IF_FP8(X) X
#else
#define CAPTURE_IF_FP8(X) __trap()
#endif
