// SPDX-License-Identifier: Apache-2.0
// SHA-256 by way of OpenSSL's EVP interface.
#include "golden/io/sha256.hpp"
#include "emulator/config.hpp"

#include <openssl/evp.h>

#include <array>
#include <string_view>

namespace nvfp4::io {

std::string sha256_hex(std::span<const std::byte> bytes) {
  std::array<unsigned char, 32> digest{};
  unsigned length = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr) != 1 ||
      length != digest.size())
    throw Error("OpenSSL refuses to compute SHA-256: expected a library with the default provider");

  constexpr std::string_view digits = "0123456789abcdef";
  std::string hex;
  for (const unsigned byte : digest) hex += {digits[byte >> 4], digits[byte & 15]};
  return hex;
}

} // namespace nvfp4::io
