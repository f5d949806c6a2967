// SPDX-License-Identifier: Apache-2.0
// Reading single codes out of memory: 4-bit codes two to a byte with the even index in the low nibble, others in
// words of 8, 16, 32 or 64 bits, little endian.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <cstdint>
#include <cstring>

namespace nvfp4 {

/// A row of codes. Unaligned memory is fine.
struct CodeView {
  const uint8_t *data = nullptr;
  int bits = 8; ///< 4, 8, 16, 32 or 64

  [[nodiscard]] NVFP4_HD uint64_t operator[](int64_t i) const {
    switch (bits) {
    case 4: return (data[i >> 1] >> ((i & 1) * 4)) & 0xF;
    case 8: return data[i];
    case 16: return load<uint16_t>(i);
    case 32: return load<uint32_t>(i);
    default: return load<uint64_t>(i);
    }
  }
  /// The view that starts n codes further on; n must be even for 4-bit codes.
  [[nodiscard]] NVFP4_HD CodeView from(int64_t n) const { return {data + n * bits / 8, bits}; }

private:
  template <class T> [[nodiscard]] NVFP4_HD T load(int64_t i) const {
    T word;
    memcpy(&word, data + i * int64_t(sizeof(T)), sizeof(T));
    return word;
  }
};

} // namespace nvfp4
