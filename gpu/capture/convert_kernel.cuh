// SPDX-License-Identifier: Apache-2.0
// Kernels that run a conversion over an array or digest it over a chunk of the f32 inputs, and the macros
// that turn a PTX spelling into an Op. Register types: PTX ISA 9.1, cvt. Where a packed form reads a and b,
// element 0 is a.
#pragma once
#include "nvfp4/gpu/capture/convert.hpp"
#include "nvfp4/gpu/capture/cuda_check.hpp"
#include "nvfp4/gpu/capture/features.cuh"
#include "nvfp4/gpu/capture/run_tiles.hpp"

namespace nvfp4::gpu {

__device__ inline uint64_t mix(uint64_t x) { // splitmix64, as in inputs.cpp
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// Op has kElements and run(in, rbits, out) for that many elements.
template <class Op> __global__ void convert_kernel(ConvertLaunch x) {
  constexpr int E = Op::kElements;
  const int64_t group = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if ((group + 1) * E > x.count) return;
  Op::run(x.in + group * E, x.rbits ? x.rbits[group] : 0, x.out + group * E);
}

template <class Op> __global__ void digest_kernel(uint32_t chunk, uint64_t *sum) {
  constexpr int E = Op::kElements;
  const uint32_t threads = gridDim.x * blockDim.x;
  uint64_t total = 0;
  for (uint32_t i = (blockIdx.x * blockDim.x + threadIdx.x) * E; i < 1u << 24; i += threads * E) {
    uint32_t in[E], out[E];
    for (int e = 0; e < E; ++e) in[e] = chunk << 24 | (i + e);
    Op::run(in, 0, out);
    for (int e = 0; e < E; ++e) total += mix(in[e] ^ uint64_t(out[e]) << 32);
  }
  atomicAdd(reinterpret_cast<unsigned long long *>(sum), static_cast<unsigned long long>(total));
}

template <class Op> void launch_convert(const ConvertLaunch &x) {
  const int64_t groups = x.count / Op::kElements;
  convert_kernel<Op><<<unsigned((groups + 127) / 128), 128>>>(x);
  cuda_check(cudaGetLastError(), "launch of conversion kernel");
}

template <class Op> void launch_digest(uint32_t chunk, uint64_t *sum) {
  digest_kernel<Op><<<1024, 256>>>(chunk, sum);
  cuda_check(cudaGetLastError(), "launch of digest kernel");
}

} // namespace nvfp4::gpu

#define CAPTURE_CVT_OP(NAME, ELEMENTS, ENABLED, BODY)                                                        \
  struct NAME {                                                                                              \
    static constexpr int kElements = ELEMENTS;                                                               \
    static __device__ void run(const uint32_t *in, uint32_t rbits, uint32_t *out) {                          \
      CAPTURE_CVT_##ENABLED(BODY);                                                                           \
      (void)in, (void)rbits, (void)out;                                                                      \
    }                                                                                                        \
  }

// f32 -> one 16-bit or 32-bit word; and two f32 -> a pair of bytes, of 16-bit words, of nibbles.
#define CAPTURE_F32_TO_B16(PTX)                                                                              \
  {                                                                                                          \
    uint16_t d;                                                                                              \
    asm volatile(PTX " %0, %1;" : "=h"(d) : "f"(__uint_as_float(in[0])));                                    \
    out[0] = d;                                                                                              \
  }
#define CAPTURE_F32_TO_B32(PTX)                                                                              \
  {                                                                                                          \
    uint32_t d;                                                                                              \
    asm volatile(PTX " %0, %1;" : "=r"(d) : "f"(__uint_as_float(in[0])));                                    \
    out[0] = d;                                                                                              \
  }
#define CAPTURE_F32X2_TO_BYTES(PTX)                                                                          \
  {                                                                                                          \
    uint16_t d;                                                                                              \
    asm volatile(PTX " %0, %1, %2;" : "=h"(d) : "f"(__uint_as_float(in[0])), "f"(__uint_as_float(in[1])));   \
    out[0] = d >> 8;                                                                                         \
    out[1] = d & 0xFF;                                                                                       \
  }
#define CAPTURE_F32X2_TO_HALVES(PTX)                                                                         \
  {                                                                                                          \
    uint32_t d;                                                                                              \
    asm volatile(PTX " %0, %1, %2;" : "=r"(d) : "f"(__uint_as_float(in[0])), "f"(__uint_as_float(in[1])));   \
    out[0] = d >> 16;                                                                                        \
    out[1] = d & 0xFFFF;                                                                                     \
  }
#define CAPTURE_F32X2_TO_NIBBLES(PTX)                                                                        \
  {                                                                                                          \
    uint16_t d;                                                                                              \
    asm volatile("{\n.reg .b8 q;\n" PTX " q, %1, %2;\ncvt.u16.u8 %0, q;\n}"                                  \
                 : "=h"(d)                                                                                   \
                 : "f"(__uint_as_float(in[0])), "f"(__uint_as_float(in[1])));                                \
    out[0] = d >> 4 & 0xF;                                                                                   \
    out[1] = d & 0xF;                                                                                        \
  }
// Two 16-bit words -> a pair of bytes or nibbles.
#define CAPTURE_HALVES_TO_BYTES(PTX)                                                                         \
  {                                                                                                          \
    uint16_t d;                                                                                              \
    asm volatile(PTX " %0, %1;" : "=h"(d) : "r"(in[0] << 16 | (in[1] & 0xFFFF)));                            \
    out[0] = d >> 8;                                                                                         \
    out[1] = d & 0xFF;                                                                                       \
  }
// Back to 16-bit words, and from those to f32.
#define CAPTURE_BYTES_TO_HALVES(PTX)                                                                         \
  {                                                                                                          \
    uint32_t d;                                                                                              \
    asm volatile(PTX " %0, %1;" : "=r"(d) : "h"(uint16_t(in[0] << 8 | (in[1] & 0xFF))));                     \
    out[0] = d >> 16;                                                                                        \
    out[1] = d & 0xFFFF;                                                                                     \
  }
#define CAPTURE_NIBBLES_TO_HALVES(PTX)                                                                       \
  {                                                                                                          \
    uint32_t d;                                                                                              \
    asm volatile("{\n.reg .b8 q, r;\nmov.b16 {q, r}, %1;\n" PTX " %0, q;\n}"                                 \
                 : "=r"(d)                                                                                   \
                 : "h"(uint16_t(in[0] << 4 | (in[1] & 0xF))));                                               \
    out[0] = d >> 16;                                                                                        \
    out[1] = d & 0xFFFF;                                                                                     \
  }
#define CAPTURE_B16_TO_F32(PTX)                                                                              \
  {                                                                                                          \
    float d;                                                                                                 \
    asm volatile(PTX " %0, %1;" : "=f"(d) : "h"(uint16_t(in[0])));                                           \
    out[0] = __float_as_uint(d);                                                                             \
  }
// Stochastic rounding: operands {a, b, e, f} or a, b, then rbits.
#define CAPTURE_RS_X4_BYTES(PTX)                                                                             \
  {                                                                                                          \
    uint32_t d;                                                                                              \
    asm volatile(PTX " %0, {%1, %2, %3, %4}, %5;"                                                            \
                 : "=r"(d)                                                                                   \
                 : "f"(__uint_as_float(in[0])), "f"(__uint_as_float(in[1])), "f"(__uint_as_float(in[2])),    \
                   "f"(__uint_as_float(in[3])), "r"(rbits));                                                 \
    for (int e = 0; e < 4; ++e) out[e] = d >> (24 - 8 * e) & 0xFF;                                           \
  }
#define CAPTURE_RS_X4_NIBBLES(PTX)                                                                           \
  {                                                                                                          \
    uint16_t d;                                                                                              \
    asm volatile(PTX " %0, {%1, %2, %3, %4}, %5;"                                                            \
                 : "=h"(d)                                                                                   \
                 : "f"(__uint_as_float(in[0])), "f"(__uint_as_float(in[1])), "f"(__uint_as_float(in[2])),    \
                   "f"(__uint_as_float(in[3])), "r"(rbits));                                                 \
    for (int e = 0; e < 4; ++e) out[e] = d >> (12 - 4 * e) & 0xF;                                            \
  }
#define CAPTURE_RS_HALVES(PTX)                                                                               \
  {                                                                                                          \
    uint32_t d;                                                                                              \
    asm volatile(PTX " %0, %1, %2, %3;"                                                                      \
                 : "=r"(d)                                                                                   \
                 : "f"(__uint_as_float(in[0])), "f"(__uint_as_float(in[1])), "r"(rbits));                    \
    out[0] = d >> 16;                                                                                        \
    out[1] = d & 0xFFFF;                                                                                     \
  }

#if CAPTURE_HAS_MMA16
#define CAPTURE_CVT_SM80(X) X
#else
#define CAPTURE_CVT_SM80(X) __trap()
#endif
#if CAPTURE_HAS_MMA_FP8
#define CAPTURE_CVT_SM89(X) X
#else
#define CAPTURE_CVT_SM89(X) __trap()
#endif
#if CAPTURE_HAS_CVT_SM90
#define CAPTURE_CVT_SM90(X) X
#else
#define CAPTURE_CVT_SM90(X) __trap()
#endif
#if CAPTURE_HAS_CVT_SM100
#define CAPTURE_CVT_SM100(X) X
#else
#define CAPTURE_CVT_SM100(X) __trap()
#endif
#if CAPTURE_HAS_CVT_NARROW
#define CAPTURE_CVT_NARROW(X) X
#else
#define CAPTURE_CVT_NARROW(X) __trap()
#endif
#if CAPTURE_HAS_CVT_RS
#define CAPTURE_CVT_RS(X) X
#else
#define CAPTURE_CVT_RS(X) __trap()
#endif
