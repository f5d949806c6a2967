// SPDX-License-Identifier: Apache-2.0
// The instruction sets of the vector engines. Plain data: files of one instruction set include it.
#pragma once
#include <cstdint>

namespace nvfp4 {

enum class Isa : uint8_t {
  scalar,   ///< the definition itself, one output after the other
  avx2,     ///< AVX2 and FMA
  avx512,   ///< AVX-512 F, BW, VL, DQ and VNNI
  neon,     ///< Advanced SIMD, which every 64-bit ARM CPU has
  neon_dot, ///< the same with the dot-product instructions (SDOT)
};

/// Of each architecture the lesser before the better.
inline constexpr Isa kIsas[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon, Isa::neon_dot};
inline constexpr Isa kVectorIsas[] = {Isa::avx2, Isa::avx512, Isa::neon, Isa::neon_dot};

[[nodiscard]] const char *to_string(Isa isa);

/// Whether this build and this CPU can run it.
[[nodiscard]] bool supported(Isa isa);

} // namespace nvfp4
