// SPDX-License-Identifier: Apache-2.0
// The bridge from a catalogue unit to the input generator of the capture program: one output, the unit's shape.
// Internal.
#pragma once
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/golden/cases/inputs.hpp"

namespace nvfp4::golden {

/// The 1x1 tile of a unit. `name` must outlive the result; it seeds the generator.
[[nodiscard]] cases::MmaKind kind_of(const Unit &unit, const std::string &name);

} // namespace nvfp4::golden
