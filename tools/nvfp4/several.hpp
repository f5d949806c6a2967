// SPDX-License-Identifier: Apache-2.0
// Several tensors of one file at once: a pattern such as "*.weight" chooses them, and a folder takes one file
// for each.
#pragma once
#include "nvfp4/golden/io/tensor.hpp"

#include <string>
#include <vector>

namespace nvfp4::tool {

/// A tensor that a pattern chose, its place in the file, and what the '*' stood for in it.
struct Chosen {
  std::string name, star;
  size_t index = 0;
};

[[nodiscard]] inline bool is_pattern(const std::string &name) { return name.find('*') != std::string::npos; }

/// The tensors whose names have the pattern's beginning and end, in the file's order. Throws Error for a
/// pattern without exactly one '*', and where nothing matches.
[[nodiscard]] std::vector<Chosen> choose(const std::vector<io::TensorHeader> &tensors,
                                         const std::string &pattern, const std::string &file);

/// The pattern with `star` in place of its '*'.
[[nodiscard]] std::string fill(std::string pattern, const std::string &star);

/// Makes the folder if it is not there; the file in it for a tensor of that name. Throws Error for a name
/// that cannot be one of a file, and where `folder` is a file.
[[nodiscard]] std::string file_in(const std::string &folder, const std::string &name);

} // namespace nvfp4::tool
