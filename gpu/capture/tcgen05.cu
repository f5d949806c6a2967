// SPDX-License-Identifier: Apache-2.0
// tcgen05.mma m128n8kK with cta_group::1 (sm_100a, 103a, 110a): A and B from shared memory, C and D and the
// scales in tensor memory, one block a tile at a time. Compiled and inspected, but never run on hardware as
// of 2026-11. Sources: PTX ISA 9.1, "Data path layout D", "Packing formats", "Block Scaling for
// tcgen05.mma.sync".
#include "nvfp4/gpu/capture/cuda_check.hpp"
#include "nvfp4/gpu/capture/engines.hpp"
#include "nvfp4/gpu/capture/tcgen05_ptx.cuh"

namespace nvfp4::gpu {
namespace {

constexpr int kCore = 128;                            ///< bytes of a core matrix: 8 rows of 16 bytes
constexpr int kScaleAColumn = 16, kScaleBColumn = 20; ///< tensor-memory columns; D has columns 0 to 7
enum class Packing { whole, nibbles, six_bits }; ///< how 16 elements become a 16-byte chunk of shared memory

/// K = 32 bytes of shared memory a row: 2 chunks. Core matrices adjacent along K, then along rows.
__device__ int core_offset(int row, int chunk) { return ((row >> 3) * 2 + chunk) * kCore + (row & 7) * 16; }

/// Chunk `chunk` of a row as the instruction wants it. In kind::(mx)f8f6f4 16 elements of 4 or 6 bits are
/// packed contiguously from bit 0 and padded to 16 bytes; everything else is as it is in memory.
__device__ uint4 load_chunk(const uint8_t *matrix, int64_t row, int chunk, Packing packing) {
  if (packing == Packing::whole) return reinterpret_cast<const uint4 *>(matrix)[row * 2 + chunk];
  uint64_t low = 0, high = 0;
  if (packing == Packing::nibbles) {
    low = reinterpret_cast<const uint64_t *>(matrix)[row * 2 + chunk];
  } else {
    for (int i = 0; i < 16; ++i) { // element i at bits 6i .. 6i + 5 of a 96-bit string
      const uint64_t code = matrix[(row * 2 + chunk) * 16 + i] & 0x3F;
      const int at = 6 * i;
      if (at < 64) low |= code << at;
      if (at >= 64)
        high |= code << (at - 64);
      else if (at + 6 > 64)
        high |= code >> (64 - at);
    }
  }
  return make_uint4(uint32_t(low), uint32_t(low >> 32), uint32_t(high), uint32_t(high >> 32));
}

/// The word of scales of one row, block 0 in the low byte; selectors 0 read it from there for 1, 2 and 4
/// scales.
__device__ uint32_t scale_word(const void *scales, int64_t row, int per_row) {
  uint32_t word = 0;
  for (int i = 0; i < per_row; ++i)
    word |= uint32_t(static_cast<const uint8_t *>(scales)[row * per_row + i]) << (8 * i);
  return word;
}

struct Shape {
  uint32_t idesc;
  int scales; ///< per row
  bool half;  ///< f16 accumulators
  Packing a, b;
};

template <Tcgen05Kind Kind>
__global__ void __launch_bounds__(128) tcgen05_kernel(TileArgs args, Shape shape) {
  __shared__ __align__(128) uint8_t shared_a[128 * 32];
  __shared__ __align__(128) uint8_t shared_b[8 * 32];
  __shared__ __align__(8) uint64_t barrier;
  __shared__ uint32_t tmem_slot;
  const int thread = threadIdx.x, warp = thread >> 5, lane = thread & 31;
  if (warp == 0) tmem_allocate(&tmem_slot);
  if (thread == 0) barrier_init(&barrier);
  tcgen05_fence_before();
  __syncthreads();
  tcgen05_fence_after();
  const uint32_t tmem = tmem_slot, mine = tmem + (uint32_t(warp * 32) << 16); // the warp's 32 lanes
  uint32_t parity = 0;

  for (int64_t tile = blockIdx.x; tile < args.tiles; tile += gridDim.x) {
    const uint8_t *a = static_cast<const uint8_t *>(args.a), *b = static_cast<const uint8_t *>(args.b);
    for (int chunk = 0; chunk < 2; ++chunk)
      *reinterpret_cast<uint4 *>(shared_a + core_offset(thread, chunk)) =
          load_chunk(a, tile * 128 + thread, chunk, shape.a);
    if (thread < 16)
      *reinterpret_cast<uint4 *>(shared_b + core_offset(thread >> 1, thread & 1)) =
          load_chunk(b, tile * 8 + (thread >> 1), thread & 1, shape.b);

    // C: lane = row, one element in the low bits of each 32-bit column.
    const int64_t row = tile * 128 + thread;
    uint32_t v[8];
    for (int j = 0; j < 8; ++j)
      v[j] = shape.half ? static_cast<const uint16_t *>(args.c)[row * 8 + j]
                        : static_cast<const uint32_t *>(args.c)[row * 8 + j];
    tmem_store8(mine, v);
    if (shape.scales) { // row r of A: lane r % 32, column r / 32, the same in all four groups of 32 lanes; B
                        // alike
      uint32_t sa[4], sb[4] = {0, 0, 0, 0};
      for (int i = 0; i < 4; ++i) sa[i] = scale_word(args.scale_a, tile * 128 + 32 * i + lane, shape.scales);
      if (lane < 8) sb[0] = scale_word(args.scale_b, tile * 8 + lane, shape.scales);
      tmem_store4(mine + kScaleAColumn, sa);
      tmem_store4(mine + kScaleBColumn, sb);
    }
    tmem_store_wait();
    CAPTURE_IF_TCGEN05(asm volatile("fence.proxy.async.shared::cta;" ::: "memory"));
    tcgen05_fence_before();
    __syncthreads();
    if (thread == 0) {
      tcgen05_fence_after();
      tcgen05_mma<Kind>(tmem, shared_descriptor(shared_a, kCore, 2 * kCore),
                        shared_descriptor(shared_b, kCore, 2 * kCore), shape.idesc, tmem + kScaleAColumn,
                        tmem + kScaleBColumn);
      tcgen05_commit(&barrier);
    }
    __syncwarp();
    barrier_wait(&barrier, parity);
    parity ^= 1;
    __syncwarp(); // the load below needs the whole warp together
    tcgen05_fence_after();
    tmem_load8(mine, v);
    for (int j = 0; j < 8; ++j) {
      if (shape.half)
        static_cast<uint16_t *>(args.d)[row * 8 + j] = uint16_t(v[j]);
      else
        static_cast<uint32_t *>(args.d)[row * 8 + j] = v[j];
    }
    tcgen05_fence_before();
    __syncthreads(); // before the next tile overwrites shared and tensor memory
    tcgen05_fence_after();
  }
  if (warp == 0) tmem_free(tmem);
}

Packing packing_of(Element e, Tcgen05Kind kind) {
  if (kind != Tcgen05Kind::f8f6f4 && kind != Tcgen05Kind::mxf8f6f4) return Packing::whole;
  if (e == Element::e2m1) return Packing::nibbles;
  return e == Element::e3m2 || e == Element::e2m3 ? Packing::six_bits : Packing::whole;
}

template <Tcgen05Kind Kind> bool launch(const MmaKind &x, const TileArgs &args) {
  const Shape shape{instruction_descriptor(x, Kind), scales_per_row(x), x.acc == Element::f16,
                    packing_of(x.a, Kind), packing_of(x.b, Kind)};
  const int64_t blocks = args.tiles < 65536 ? args.tiles : 65536;
  tcgen05_kernel<Kind><<<unsigned(blocks), 128>>>(args, shape);
  cuda_check(cudaGetLastError(), "launch of tcgen05 kernel");
  return true;
}

} // namespace

bool launch_tcgen05(const MmaKind &x, const TileArgs &args) {
  using enum Tcgen05Kind;
  switch (x.spelling) {
  case Spelling::f8f6f4: return launch<f8f6f4>(x, args);
  case Spelling::mxf8f6f4: return launch<mxf8f6f4>(x, args);
  case Spelling::mxf4: return launch<mxf4>(x, args);
  case Spelling::mxf4nvf4:
    return x.scale_block == 16 ? launch<mxf4nvf4_4x>(x, args) : launch<mxf4nvf4_2x>(x, args);
  case Spelling::dense: break;
  }
  return x.a == Element::tf32 ? launch<tf32>(x, args) : launch<f16>(x, args);
}

} // namespace nvfp4::gpu
