// SPDX-License-Identifier: Apache-2.0
// Asking for memory that will be read or written soon, in pieces too short for the CPU to see a pattern in. Internal.
#pragma once
#include <cstdint>

namespace nvfp4 {

/// `bytes` bytes, more than 0, all readable. The first is loaded: on an Emerald Rapids Xeon prefetches alone, of rows in
/// pages of their own, had no effect.
inline void ask_for(const uint8_t *at, int64_t bytes) {
  asm volatile("" : : "r"(*at));
  for (int64_t i = 64; i < bytes; i += 64) __builtin_prefetch(at + i);
  __builtin_prefetch(at + bytes - 1);
}

} // namespace nvfp4
