// SPDX-License-Identifier: Apache-2.0
// SHA-256 by way of OpenSSL's EVP interface.
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/emulator/config.hpp"

#include <openssl/evp.h>

#include <array>
#include <string_view>

namespace nvfp4::io {

namespace {

void check(bool good) {
  if (!good) throw Error("OpenSSL refuses to compute SHA-256: expected a library with the default provider");
}

} // namespace

struct Sha256::State {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context{EVP_MD_CTX_new(), EVP_MD_CTX_free};
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  check(state_->context && EVP_DigestInit_ex(state_->context.get(), EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::add(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()) == 1);
}

std::string Sha256::hex() {
  std::array<unsigned char, 32> digest{};
  unsigned length = 0;
  check(EVP_DigestFinal_ex(state_->context.get(), digest.data(), &length) == 1 && length == digest.size());
  constexpr std::string_view digits = "0123456789abcdef";
  std::string hex;
  for (const unsigned byte : digest) hex += {digits[byte >> 4], digits[byte & 15]};
  return hex;
}

std::string Sha256::hex_so_far() const {
  Sha256 copy;
  check(EVP_MD_CTX_copy_ex(copy.state_->context.get(), state_->context.get()) == 1);
  return copy.hex();
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 digest;
  digest.add(bytes);
  return digest.hex();
}

} // namespace nvfp4::io
