// SPDX-License-Identifier: Apache-2.0
// Patterns and folders.
#include "tools/nvfp4/several.hpp"

#include "nvfp4/golden/io/message.hpp"

#include <algorithm>
#include <filesystem>

namespace nvfp4::tool {

std::vector<Chosen> choose(const std::vector<io::TensorHeader> &tensors, const std::string &pattern,
                           const std::string &file) {
  const size_t at = pattern.find('*');
  if (std::count(pattern.begin(), pattern.end(), '*') != 1)
    throw Error("tensors " + io::in_quotes(pattern) + ": expected one '*', as in '*.weight'");
  const std::string before = pattern.substr(0, at), after = pattern.substr(at + 1);
  std::vector<Chosen> chosen;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const io::TensorHeader &t = tensors[i];
    if (t.name.size() >= before.size() + after.size() && t.name.starts_with(before) &&
        t.name.ends_with(after))
      chosen.push_back({t.name, t.name.substr(at, t.name.size() - before.size() - after.size()), i});
  }
  if (chosen.empty())
    throw Error(io::printable(file) + ": none of its " + std::to_string(tensors.size()) +
                " tensors is like " + io::in_quotes(pattern) +
                (tensors.empty() ? "" : "; the first is " + io::in_quotes(tensors.front().name)));
  return chosen;
}

std::string fill(std::string pattern, const std::string &star) {
  const size_t at = pattern.find('*');
  return at == std::string::npos ? pattern : pattern.replace(at, 1, star);
}

std::string file_in(const std::string &folder, const std::string &name) {
  if (name.empty() || name.front() == '.' || name.find('/') != std::string::npos)
    throw Error("tensor " + io::in_quotes(name) + ": its name cannot be one of a file; choose it alone");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!std::filesystem::is_directory(folder))
    throw Error("-o " + io::printable(folder) + ": several tensors go into a folder" +
                (error ? ": " + error.message() : ""));
  return (std::filesystem::path(folder) / (name + ".safetensors")).string();
}

} // namespace nvfp4::tool
