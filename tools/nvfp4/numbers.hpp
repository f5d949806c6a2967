// SPDX-License-Identifier: Apache-2.0
// Numbers of the command line, read alike by every verb: decimal, whole where they count something, finite,
// none that its type cannot hold, and rounded once.
#pragma once
#include "tools/nvfp4/command.hpp"

#include <optional>
#include <string>

namespace nvfp4::tool {

/// What is wrong with `text` as a whole number in decimal (-12, 0, 7; no leading zero, sign + or exponent)
/// that fits 64 bits, signed or not; empty if nothing is.
[[nodiscard]] std::string whole_number_fault(const std::string &text, bool is_signed);
/// The same of a finite number in decimal (0.5, -3, 1e-3) that FP64 can hold without becoming 0 or Inf.
[[nodiscard]] std::string number_fault(const std::string &text);

/// Puts these checks before all others of every option that takes numbers, those of sub-verbs included. Call
/// it when all options are there.
void read_numbers_strictly(Command &program);

/// An FP32 number, finite and from `low` on, rounded from the decimal text at once.
Option *add_fp32(Command &verb, const std::string &name, float &number, const std::string &help,
                      std::optional<float> low = {});
Option *add_fp32(Command &verb, const std::string &name, std::optional<float> &number,
                      const std::string &help, std::optional<float> low = {});

/// --threads N from 0 to 1024; 0 means all.
Option *add_threads(Command &verb, int &threads);

} // namespace nvfp4::tool
