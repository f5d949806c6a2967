// SPDX-License-Identifier: Apache-2.0
// One thread per output of a batch of tiles, calling dot().
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/gpu/emulated/mma.hpp"

namespace nvfp4::cuda {
namespace {

__global__ void mma_kernel(UnitRule rule, MmaTiles t, Accumulation accumulation) {
  const int64_t o = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (o >= t.tiles * t.m * t.n) return;
  const int64_t j = o % t.n, i = o / t.n % t.m, tile = o / t.n / t.m;
  const int bits_a = format(rule.a).storage_bits, bits_b = format(rule.b).storage_bits;
  const int width = format(rule.acc).storage_bits / 8;
  const int64_t row_a = tile * t.m + i, row_b = tile * t.n + j;
  DotOperands op{{t.a + row_a * t.k * bits_a / 8, bits_a}, {t.b + row_b * t.k * bits_b / 8, bits_b}};
  if (rule.scale_block != 0) {
    op.scale_a = t.scale_a + row_a * rule.scale_row(t.k);
    op.scale_b = t.scale_b + row_b * rule.scale_row(t.k);
  }
  const uint64_t c = t.c == nullptr ? 0 : CodeView{t.c, width * 8}[o];
  const uint64_t d = dot(rule, op, t.k, c, accumulation);
  memcpy(t.d + o * width, &d, size_t(width));
}

} // namespace

void mma(const UnitRule &rule, const MmaTiles &tiles, Accumulation accumulation, cudaStream_t stream) {
  if (tiles.tiles < 0 || tiles.m <= 0 || tiles.n <= 0 || tiles.k < 0 || tiles.k % rule.k != 0)
    throw Error("cuda::mma: expected tiles of positive size and K a multiple of " + std::to_string(rule.k) +
                ", got " + std::to_string(tiles.m) + " x " + std::to_string(tiles.n) +
                ", K = " + std::to_string(tiles.k));
  if (rule.scale_block != 0 && (tiles.scale_a == nullptr || tiles.scale_b == nullptr))
    throw Error("cuda::mma: the unit needs block scales for both operands");
  const int64_t outputs = tiles.tiles * tiles.m * tiles.n;
  if (outputs == 0) return;
  mma_kernel<<<blocks_for(outputs, 128), 128, 0, stream>>>(rule, tiles, accumulation);
  check_launch("mma_kernel");
}

} // namespace nvfp4::cuda
