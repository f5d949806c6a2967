// SPDX-License-Identifier: Apache-2.0
// A file mapped into memory, read-only: its pages come when they are looked at.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace nvfp4::checkpoint {

/// Copies share the mapping. A file that another process cuts short while it is mapped ends this process
/// (SIGBUS).
class MappedFile {
public:
  /// An Error names the path: what cannot be opened, is no regular file, or is empty.
  explicit MappedFile(const std::string &path);
  [[nodiscard]] std::span<const std::byte> bytes() const;
  /// Lets go of the pages within a part of bytes(): they are read from the file again when they are looked
  /// at again, and until then count for nobody's memory.
  static void forget(std::span<const std::byte> part) noexcept;

private:
  struct Mapping;
  std::shared_ptr<const Mapping> mapping_;
};

} // namespace nvfp4::checkpoint
