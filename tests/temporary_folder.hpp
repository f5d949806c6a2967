// SPDX-License-Identifier: Apache-2.0
// A folder of a test's own, empty at first and gone afterwards.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <filesystem>
#include <stdlib.h>
#include <string>

namespace nvfp4::test {

struct TemporaryFolder {
  std::filesystem::path path;

  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "nvfp4-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw Error("cannot create " + name);
    path = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;
  [[nodiscard]] std::string file(const char *name) const { return (path / name).string(); }
};

} // namespace nvfp4::test
