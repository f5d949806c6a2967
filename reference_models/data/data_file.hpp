// SPDX-License-Identifier: Apache-2.0
// A file of training data whose bytes are asked for when they are needed, through pread: it may be larger
// than the memory, and one that shrinks is an error, where memory mapped from it would be a signal. Internal.
#pragma once
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/posix.hpp"

#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <string>

namespace nvfp4::models {

/// "book.txt: cannot open: No such file or directory".
[[noreturn]] void refuse_data(const std::string &path, const std::string &why);

/// "1 byte", "12 tokens".
[[nodiscard]] inline std::string count_of(uint64_t n, const char *unit) {
  return std::to_string(n) + " " + unit + (n == 1 ? "" : "s");
}

/// An open file. What was opened stays readable when its name is given to another file or taken away; that
/// its content stays is checked. Safe to use from several threads.
class DataFile {
public:
  /// Throws Error, which calls it "a KIND file", if it cannot be read, is none or is empty.
  explicit DataFile(const std::string &path, const std::string &kind = "text");

  [[nodiscard]] const std::string &path() const { return path_; }
  [[nodiscard]] size_t size() const { return size_; }

  /// Error where the file has become shorter.
  void read(size_t offset, std::span<uint8_t> out) const;
  /// All bytes from `from` on, piece by piece; a piece is of a multiple of 8 bytes but for the last.
  void each_piece(size_t from, const std::function<void(std::span<const uint8_t>)> &take) const;

  /// SHA-256 of all bytes.
  [[nodiscard]] std::string digest() const;
  /// Error if the file was written to and is not what it was. Call it after reading.
  void check_unchanged() const;

private:
  [[nodiscard]] struct stat stat_now() const;
  [[nodiscard]] std::string read_digest() const;

  std::string path_;
  io::Descriptor fd_;
  size_t size_ = 0;
  mutable std::mutex mutex_;
  mutable timespec written_{};
  mutable std::string digest_; ///< empty until it is asked for
};

} // namespace nvfp4::models
