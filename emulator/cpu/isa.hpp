// SPDX-License-Identifier: Apache-2.0
// Which instruction set the vector engines use: the best that the CPU has, or what NVFP4_ISA asks for.
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

/// NVFP4_ISA=scalar|avx2|avx512|neon|neon_dot when set, the best supported one otherwise. Reads the
/// environment at every call. Throws Error when the name is unknown or the CPU lacks the instructions.
[[nodiscard]] Isa choose_isa();

} // namespace nvfp4
