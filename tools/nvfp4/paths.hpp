// SPDX-License-Identifier: Apache-2.0
// "-" in place of a file: standard input, or standard output, which then carries the file and nothing else.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <string>

namespace nvfp4::tool {

[[nodiscard]] inline std::string input_path(const std::string &path) {
  return path == "-" ? "/dev/stdin" : path;
}

/// True where the result goes to standard output, whatever its name is.
[[nodiscard]] inline bool is_standard_output(const std::string &path) {
  return path == "-" || path == "/dev/stdout";
}

/// Where a result is written. Throws Error where `json` would share standard output with it.
[[nodiscard]] inline std::string output_path(const std::string &path, bool json) {
  if (!is_standard_output(path)) return path;
  if (json) throw Error("-o " + path + ": standard output cannot carry the file and --json; leave one out");
  return "/dev/stdout";
}

} // namespace nvfp4::tool
