// SPDX-License-Identifier: Apache-2.0
// Matrix instructions of any catalogue unit on the device: batches of tiles, one thread per output, each
// running the definition (emulator/tensorcore/execute.hpp) itself.
#pragma once
#include "nvfp4/emulator/tensorcore/unit.hpp"
#include "nvfp4/gpu/device/device.hpp"

namespace nvfp4::cuda {

/// Tiles in device memory, one after the other, rows of codes along K (k is a multiple of the unit's K; 4-bit
/// codes two to a byte, others in their storage width). c may be null: the chain then starts from +0.
struct MmaTiles {
  int64_t tiles = 0;
  int m = 0, n = 0;
  int64_t k = 0;
  const uint8_t *a = nullptr;       ///< (tiles, m, k)
  const uint8_t *b = nullptr;       ///< (tiles, n, k)
  const uint8_t *scale_a = nullptr; ///< (tiles, m, k / scale_block) scales, null for units without scales
  const uint8_t *scale_b = nullptr; ///< (tiles, n, k / scale_block) scales
  const uint8_t *c = nullptr;       ///< (tiles, m, n) words of the accumulator format
  uint8_t *d = nullptr;             ///< (tiles, m, n) words of the accumulator format
};

/// D of every tile: the chain of instructions in increasing K. Throws Error for sizes that do not fit the
/// unit.
void mma(const UnitRule &rule, const MmaTiles &tiles, Accumulation accumulation, cudaStream_t stream);

} // namespace nvfp4::cuda
