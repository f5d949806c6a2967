// SPDX-License-Identifier: Apache-2.0
// The matrix-multiply instructions that an architecture has, as data. Layouts are plain matrices, never register
// fragments. Internal.
#pragma once
#include "nvfp4/golden/cases/element.hpp"

#include <cstdint>
#include <string_view>
#include <vector>

namespace nvfp4::golden::cases {

enum class Engine : uint8_t { mma_sync, wgmma, tcgen05 };

/// Which `.kind` an instruction is spelled with. `dense` has none (or, for tcgen05, the kind its types
/// imply).
enum class Spelling : uint8_t { dense, f8f6f4, mxf8f6f4, mxf4, mxf4nvf4 };

/// One instruction. A buffer element takes `*_bits` bits: 4-bit elements two per byte with the even k in the
/// low nibble, 6-bit elements one per byte in its low bits, tf32 in an f32 word.
struct MmaKind {
  const char *unit; ///< "sm_90:wgmma.k32.f32.e4m3"; storage lives as long as the program
  int m, n, k;
  int a_bits, b_bits, acc_bits;
  int scale_block; ///< elements per scale factor, 0 without scales
  Element a, b, acc, scale;
  Engine engine;
  Spelling spelling;
};

/// Bytes of one tile's operands.
[[nodiscard]] constexpr int64_t a_bytes(const MmaKind &x) { return int64_t(x.m) * x.k * x.a_bits / 8; }
[[nodiscard]] constexpr int64_t b_bytes(const MmaKind &x) { return int64_t(x.n) * x.k * x.b_bits / 8; }
[[nodiscard]] constexpr int64_t c_bytes(const MmaKind &x) { return int64_t(x.m) * x.n * x.acc_bits / 8; }
[[nodiscard]] constexpr int scales_per_row(const MmaKind &x) {
  return x.scale_block ? x.k / x.scale_block : 0;
}

/// Bytes of one of them.
[[nodiscard]] inline int scale_bytes(const MmaKind &x) { return x.scale_block ? format_of(x.scale).bits / 8 : 1; }

/// Which instructions a build has for a device; a bit set.
enum Feature : uint32_t {
  kMma16 = 1,      ///< f16, bf16, tf32, m8n8k4 f64 mma.sync (sm_80)
  kMmaFp8 = 2,     ///< e4m3, e5m2 mma.sync (sm_89)
  kMmaF64Wide = 4, ///< f64 m16n8k4/k8/k16 mma.sync (sm_90)
  kWgmma = 8,      ///< sm_90a
  kTcgen05 = 16,   ///< sm_100a, 103a, 110a
  kMmaBlock = 32,  ///< kind::f8f6f4 and block-scaled mma.sync (sm_120a, 121a)
  kCvtNarrow = 64, ///< e2m1, e2m3, e3m2, ue8m0 conversions (sm_100a and later)
  kCvtRs = 128,    ///< stochastic rounding (sm_100a, 103a)
  kCvtSm90 = 256,  ///< cvt.rn/rz.tf32 (sm_90)
  kCvtSm100 = 512, ///< cvt.rn/rz.satfinite.tf32 (sm_100)
};

/// The instructions of an architecture ("sm_90") restricted to `features`. Pure host code, needs no device.
[[nodiscard]] std::vector<MmaKind> kinds_for(std::string_view arch, uint32_t features);
/// All features of an architecture when built with its `a` suffix; 0 for an unknown name.
[[nodiscard]] uint32_t features_of_arch(std::string_view arch);

} // namespace nvfp4::golden::cases
