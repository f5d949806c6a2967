// SPDX-License-Identifier: Apache-2.0
// mma.sync of f64: m8n8k4 (sm_80 and later) and m16n8k4, k8, k16 (sm_90 and later).
// Fragments: PTX ISA 9.1, "Matrix Fragments for mma.m8n8k4 with .f64", "m16n8k4", "m16n8k8", "m16n8k16".
#include "nvfp4/gpu/capture/mma_kernel.cuh"

namespace nvfp4::gpu {
namespace {

#if CAPTURE_HAS_F64_WIDE
#define CAPTURE_IF_F64_WIDE(X) X
#else
#define CAPTURE_IF_F64_WIDE(X) __trap()
#endif

template <int M, int K>
__device__ void multiply(double (&d)[M / 4], const double (&a)[M * K / 32], const double (&b)[K / 4]) {
  if constexpr (M == 8) {
    CAPTURE_IF_MMA16(
        asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
                     : "+d"(d[0]), "+d"(d[1])
                     : "d"(a[0]), "d"(b[0])));
  } else if constexpr (K == 4) {
    CAPTURE_IF_F64_WIDE(asm volatile(
        "mma.sync.aligned.m16n8k4.row.col.f64.f64.f64.f64 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+d"(d[0]), "+d"(d[1]), "+d"(d[2]), "+d"(d[3])
        : "d"(a[0]), "d"(a[1]), "d"(b[0])));
  } else if constexpr (K == 8) {
    CAPTURE_IF_F64_WIDE(asm volatile("mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 {%0,%1,%2,%3}, "
                                     "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                                     : "+d"(d[0]), "+d"(d[1]), "+d"(d[2]), "+d"(d[3])
                                     : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(b[0]), "d"(b[1])));
  } else {
    CAPTURE_IF_F64_WIDE(asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64 {%0,%1,%2,%3}, {%4,%5,%6,%7,%8,%9,%10,%11}, "
        "{%12,%13,%14,%15}, {%0,%1,%2,%3};"
        : "+d"(d[0]), "+d"(d[1]), "+d"(d[2]), "+d"(d[3])
        : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(a[4]), "d"(a[5]), "d"(a[6]), "d"(a[7]), "d"(b[0]),
          "d"(b[1]), "d"(b[2]), "d"(b[3])));
  }
}

/// Register i of A holds row g (+ 8 for odd i, when M is 16) and k = t + 4 * (i / (M / 8)); B's holds k = t +
/// 4 i.
template <int M, int K> __global__ void f64_kernel(TileArgs args) {
  constexpr int NA = M * K / 32, NB = K / 4, ND = M / 4, halves = M / 8;
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  const int64_t tile = int64_t(blockIdx.x) * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (tile >= args.tiles) return;
  const double *pa = static_cast<const double *>(args.a), *pb = static_cast<const double *>(args.b);
  const double *pc = static_cast<const double *>(args.c);
  double *pd = static_cast<double *>(args.d);
  double a[NA], b[NB], d[ND];
  for (int i = 0; i < NA; ++i) a[i] = pa[(tile * M + g + 8 * (i % halves)) * K + t + 4 * (i / halves)];
  for (int i = 0; i < NB; ++i) b[i] = pb[(tile * 8 + g) * K + t + 4 * i];
  for (int i = 0; i < ND; ++i) d[i] = pc[(tile * M + g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)];
  multiply<M, K>(d, a, b);
  for (int i = 0; i < ND; ++i) pd[(tile * M + g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = d[i];
}

template <int M, int K> void launch(const TileArgs &args) {
  constexpr int warps = 4;
  f64_kernel<M, K><<<unsigned((args.tiles + warps - 1) / warps), warps * 32>>>(args);
  cuda_check(cudaGetLastError(), "launch of f64 mma.sync kernel");
}

} // namespace

bool launch_mma_f64(const MmaKind &kind, const TileArgs &args) {
  if (kind.a != Element::f64) return false;
  if (kind.m == 8) return launch<8, 4>(args), true;
  if (kind.k == 4) return launch<16, 4>(args), true;
  if (kind.k == 8) return launch<16, 8>(args), true;
  return launch<16, 16>(args), true;
}

} // namespace nvfp4::gpu
