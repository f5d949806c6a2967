// SPDX-License-Identifier: Apache-2.0
// The catalogue: which units exist, under which names, with which parameters and evidence.
#pragma once
#include "nvfp4/emulator/tensorcore/unit.hpp"

#include <span>
#include <string>
#include <string_view>

namespace nvfp4 {

/// A catalogue entry. `arch` is "sm_90", `instruction` is "wgmma.k32.f32.e4m3.e5m2"; both operands' formats are
/// written when they differ, once when they are equal.
struct Unit {
  std::string arch;
  std::string instruction;
  UnitRule rule;
  Evidence evidence;
  std::string source; ///< where the parameters come from, one line

  [[nodiscard]] std::string name() const { return arch + ":" + instruction; }
};

/// All units, ordered by architecture, then instruction.
[[nodiscard]] std::span<const Unit> catalogue();

/// The unit of a name `ARCH:INSTRUCTION`, or of a product and what it multiplies (products.hpp): "H100:bf16", "B200" (then
/// nvfp4); equal operand formats may also be written twice. Throws Error with the nearest names when there is none.
[[nodiscard]] const Unit &find_unit(std::string_view name);

} // namespace nvfp4
