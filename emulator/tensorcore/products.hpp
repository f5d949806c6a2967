// SPDX-License-Identifier: Apache-2.0
// Units by the names that people know: which architecture a product has, and which instruction multiplies a
// kind of operand there. "B200:nvfp4" is sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16.
#pragma once
#include "nvfp4/emulator/tensorcore/catalogue.hpp"

namespace nvfp4 {

/// Source: developer.nvidia.com/cuda/gpus and NVIDIA's data sheets.
struct Product {
  std::string_view name; ///< "DGX Spark"
  std::string_view arch; ///< "sm_121"
};
[[nodiscard]] std::span<const Product> products();

/// What is multiplied, by the name of its format. Both operands are of it; accumulators are FP32 (f64: FP64).
struct UnitKind {
  std::string_view name; ///< "nvfp4"
  FormatId element;
  int scale_block = 0; ///< 0: no block scales
  FormatId scale = FormatId::ue8m0;
};
[[nodiscard]] std::span<const UnitKind> unit_kinds();

/// The row of a product, however its name is spelt: "RTX 5090", "rtx5090", "GeForce RTX-5090"; null if there
/// is none.
[[nodiscard]] const Product *find_product(std::string_view name);

/// The unit by which an architecture multiplies operands of a kind: its asynchronous instruction (tcgen05,
/// wgmma) where it has one, and of equals the longest K. Null where the architecture has none.
[[nodiscard]] const Unit *unit_of_kind(std::string_view arch, const UnitKind &kind);

/// The kinds that an architecture has: "bf16, f16, e4m3".
[[nodiscard]] std::string kinds_of(std::string_view arch);

} // namespace nvfp4
