// SPDX-License-Identifier: Apache-2.0
// The digest by which golden files and their provenance name each other.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace nvfp4::io {

/// SHA-256 (FIPS 180-4) of the bytes, as 64 lower-case hexadecimal digits.
[[nodiscard]] std::string sha256_hex(std::span<const std::byte> bytes);

/// The same of bytes that come piece by piece.
class Sha256 {
public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256 &) = delete;
  Sha256 &operator=(const Sha256 &) = delete;
  void add(std::span<const std::byte> bytes);
  /// Of all that was added; nothing may be added after it.
  [[nodiscard]] std::string hex();
  /// Of what was added so far; more may follow.
  [[nodiscard]] std::string hex_so_far() const;

private:
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace nvfp4::io
