// SPDX-License-Identifier: Apache-2.0
// What the verbs that make quantized files read alike: names of enumerators, and the shape of a block.
#pragma once
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/golden/quantized_tensor.hpp"
#include "tools/nvfp4/command.hpp"

#include <charconv>

namespace nvfp4::tool {

/// Takes the names of an enumeration and no others.
template <NamedEnum E> OneOf member() {
  constexpr auto table = names_of(E{});
  return {std::vector<std::string>(table.names.begin(), table.names.end())};
}

/// Rows that share a scale, from "1x16" or "16x16" ("1x32" for MX); checks the block against the convention.
[[nodiscard]] inline int block_rows(const std::string &text, const Convention &convention) {
  int64_t rows = 0, length = 0;
  const char *const end = text.data() + text.size();
  const auto [x, error] = std::from_chars(text.data(), end, rows);
  if (error != std::errc() || x == end || *x != 'x' || std::from_chars(x + 1, end, length).ptr != end)
    throw Error("--block " + text + ": expected ROWSxLENGTH, such as 1x16");
  try {
    return golden::block_rows_of(convention, rows, length);
  } catch (const Error &e) {
    throw Error(std::string("--") + e.what());
  }
}

} // namespace nvfp4::tool
