// SPDX-License-Identifier: Apache-2.0
// What training windows are cut from: a long row of tokens in files, of a text its bytes. Internal.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace nvfp4::models {

/// Safe to use from several threads. Errors are one line each and name the file.
class TokenStream {
public:
  TokenStream() = default;
  TokenStream(const TokenStream &) = delete;
  TokenStream &operator=(const TokenStream &) = delete;
  virtual ~TokenStream() = default;

  [[nodiscard]] virtual uint64_t size() const = 0; ///< tokens
  /// Tokens `first` and on; Error where a file has become shorter.
  virtual void read(uint64_t first, std::span<int32_t> out) const = 0;
  /// Error if a file is not what it was. Call it after reading.
  virtual void check_unchanged() const = 0;
  /// What tokens may be at most; for token files the largest one that is there, for which all are read once.
  [[nodiscard]] virtual int32_t largest() const = 0;
  /// SHA-256 of the contents, whatever holds them.
  [[nodiscard]] virtual std::string digest() const = 0;
  [[nodiscard]] virtual bool bytes() const = 0;       ///< whether a token is a byte of text
  [[nodiscard]] virtual std::string name() const = 0; ///< of the files, as it was given
};

/// A text, a token a byte.
[[nodiscard]] std::unique_ptr<TokenStream> open_text_stream(const std::string &path);

/// Token files (tokens.hpp).
[[nodiscard]] std::unique_ptr<TokenStream> open_token_stream(const std::string &spec);

} // namespace nvfp4::models
