// SPDX-License-Identifier: Apache-2.0
// What the verbs that make quantized files read alike: names of enumerators, and the shape of a block.
#pragma once
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"

#include <CLI/CLI.hpp>

namespace nvfp4::tool {

/// Takes the names of an enumeration and no others.
template <NamedEnum E> CLI::IsMember member() {
  constexpr auto table = names_of(E{});
  return CLI::IsMember(std::vector<std::string>(table.names.begin(), table.names.end()));
}

/// Rows that share a scale, from "1x16" or "16x16" ("1x32" for MX); checks the block length against the
/// convention.
[[nodiscard]] inline int block_rows(const std::string &text, const Convention &c) {
  const std::string length = std::to_string(c.rule.block);
  if (text == "1x" + length || (text == "1x16" && c.rule.block != 16)) return 1;
  if (text == length + "x" + length) return c.rule.block;
  throw Error("--block " + text + ": convention '" + std::string(c.name) + "' has 1x" + length + " and " +
              length + "x" + length);
}

} // namespace nvfp4::tool
