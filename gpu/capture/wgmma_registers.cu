// SPDX-License-Identifier: Apache-2.0
// A cross-check of the wgmma engine: the same f16 tiles with A in registers instead of shared memory.
#include "nvfp4/gpu/capture/cuda_check.hpp"
#include "nvfp4/gpu/capture/engines.hpp"
#include "nvfp4/gpu/capture/run_tiles.hpp"
#include "nvfp4/gpu/capture/wgmma_operands.cuh"

#include <string_view>

namespace nvfp4::gpu {
namespace {

/// One tile a block. Warp w holds rows 16 w to 16 w + 15 of A in the fragment layout of mma.m16n8k16.
__global__ void __launch_bounds__(128) register_a_kernel(TileArgs args) {
  __shared__ __align__(128) uint8_t shared_b[8 * 32];
  const int thread = threadIdx.x, lane = thread & 31, g = lane >> 2, t = lane & 3;
  const int64_t tile = blockIdx.x, row = tile * 64 + 16 * (thread >> 5) + g;
  if (thread < 16)
    *reinterpret_cast<uint4 *>(shared_b + core_offset(thread >> 1, thread & 1)) =
        static_cast<const uint4 *>(args.b)[tile * 16 + thread];
  [[maybe_unused]] uint32_t a[4]; // unused where there is no wgmma
  uint32_t d[4];
  const uint32_t *c = static_cast<const uint32_t *>(args.c);
  for (int i = 0; i < 4; ++i) {
    a[i] = static_cast<const uint32_t *>(args.a)[(row + 8 * (i & 1)) * 8 + t + 4 * (i >> 1)];
    d[i] = c[(row + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)];
  }
  CAPTURE_IF_WGMMA(asm volatile("fence.proxy.async.shared::cta;" ::: "memory"));
  __syncthreads();
  [[maybe_unused]] const uint64_t db = wgmma_descriptor(shared_b);
  CAPTURE_IF_WGMMA(asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.fence.sync.aligned;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0,%1,%2,%3}, {%4,%5,%6,%7}, %8, p, 1, 1, 0;\n"
      "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n}"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(db)
      : "memory"));
  for (int i = 0; i < 4; ++i)
    static_cast<uint32_t *>(args.d)[(row + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = d[i];
}

} // namespace

bool wgmma_register_a_agrees() {
  for (const MmaKind &x : kinds_for_device()) {
    if (x.engine != Engine::wgmma || x.a != Element::f16 || x.acc != Element::f32) continue;
    for (int64_t index = 0; index < 16; ++index) {
      const Tile tile = generate(x, InputClass::wide, ScaleClass::similar, 7, index);
      std::vector<uint8_t> expected(tile.c.size()), got(tile.c.size());
      run_tiles(x, 1, tile.a.data(), tile.b.data(), nullptr, nullptr, tile.c.data(), expected.data());
      const DeviceBuffer a(a_bytes(x)), b(b_bytes(x)), c(c_bytes(x)), d(c_bytes(x));
      a.upload(tile.a.data(), a_bytes(x));
      b.upload(tile.b.data(), b_bytes(x));
      c.upload(tile.c.data(), c_bytes(x));
      register_a_kernel<<<1, 128>>>({1, a.data(), b.data(), nullptr, nullptr, c.data(), d.data()});
      cuda_check(cudaGetLastError(), "launch of wgmma register kernel");
      d.download(got.data(), c_bytes(x));
      if (got != expected) return false;
    }
    return true;
  }
  return false;
}

} // namespace nvfp4::gpu
