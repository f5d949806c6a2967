// SPDX-License-Identifier: Apache-2.0
// The digest by which golden files and their provenance name each other.
#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace nvfp4::io {

/// SHA-256 (FIPS 180-4) of the bytes, as 64 lower-case hexadecimal digits.
[[nodiscard]] std::string sha256_hex(std::span<const std::byte> bytes);

} // namespace nvfp4::io
