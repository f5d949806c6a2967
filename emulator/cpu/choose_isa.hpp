// SPDX-License-Identifier: Apache-2.0
// Which instruction set a call uses. It is an argument everywhere, and changes no bit.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"

#include <optional>
#include <string_view>

namespace nvfp4 {

/// What was asked for, or else the best that is supported. Throws Error when the CPU lacks the instructions.
[[nodiscard]] Isa choose_isa(std::optional<Isa> asked = {});

/// By name, as to_string() gives it. Throws Error that lists the names.
[[nodiscard]] Isa parse_isa(std::string_view name);

} // namespace nvfp4
