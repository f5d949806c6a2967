// SPDX-License-Identifier: Apache-2.0
// What the tests of tensor files share: files put together by hand, and a look at the message of an Error.
#pragma once
#include "tests/catch.hpp"

#include "nvfp4/golden/io/npy.hpp"

#include <string>
#include <vector>

namespace nvfp4::io {

inline std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// The message of the Error that `call` has to throw.
template <class Call> inline std::string error_of(Call call) {
  try {
    call();
  } catch (const nvfp4::Error &error) {
    return error.what();
  }
  return "no error";
}

inline void check_message(const std::string &message, const std::vector<std::string> &parts) {
  INFO(message);
  CHECK(message.find('\n') == std::string::npos);
  for (const std::string &part : parts) {
    INFO("expected: " << part);
    CHECK(message.find(part) != std::string::npos);
  }
}

/// A .safetensors file: the length, the header as it is, the data.
inline std::vector<std::byte> raw_safetensors(std::string_view header, std::string_view data) {
  const uint64_t size = header.size();
  std::string file(reinterpret_cast<const char *>(&size), sizeof size);
  return bytes_of(file.append(header).append(data));
}

/// A .npy file of version `major`.0.
inline std::vector<std::byte> raw_npy(std::string_view header, std::string_view data, char major = 1) {
  const uint32_t size = uint32_t(header.size());
  std::string file(npy_magic);
  file += {major, '\0'};
  file.append(reinterpret_cast<const char *>(&size), major == 1 ? 2 : 4);
  return bytes_of(file.append(header).append(data));
}

inline Tensor npy(std::string_view header, std::string_view data, char major = 1) {
  return parse_npy(raw_npy(header, data, major), "a.npy");
}

} // namespace nvfp4::io
