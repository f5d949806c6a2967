// SPDX-License-Identifier: Apache-2.0
// What the functions of the C interface share: no exception leaves them, arguments are what they say, rows
// lie a stride apart. Internal.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/nvfp4.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <string>

namespace nvfp4::c_api {

/// As much of a text as fits, ended by a zero.
inline void put(std::string_view text, char *to, int64_t bytes) {
  if (to == nullptr || bytes <= 0) return;
  const size_t n = std::min(text.size(), size_t(bytes) - 1);
  std::memcpy(to, text.data(), n);
  to[n] = '\0';
}

/// The status of body(), or that of what it throws.
template <class Body> nvfp4_status guarded(nvfp4_message *message, const Body &body) noexcept {
  const auto failed = [&](nvfp4_status status, const char *text) {
    if (message != nullptr) put(text, message->text, sizeof message->text);
    return status;
  };
  try {
    const nvfp4_status status = body();
    failed(status, "");
    return status;
  } catch (const Error &e) {
    return failed(NVFP4_BAD_INPUT, e.what());
  } catch (const std::bad_alloc &) {
    return failed(NVFP4_FAILED, "out of memory");
  } catch (const std::length_error &) {
    return failed(NVFP4_FAILED, "out of memory: a size is beyond what this machine can hold");
  } catch (const std::exception &e) {
    return failed(NVFP4_FAILED, e.what());
  } catch (...) {
    return failed(NVFP4_FAILED, "unknown failure");
  }
}

/// Throws Error where a pointer that must be given is NULL.
template <class T> T &given(T *pointer, const char *name) {
  if (pointer == nullptr) throw Error(std::string(name) + " is NULL; expected a pointer");
  return *pointer;
}
inline const char *given_text(const char *text, const char *name) { return &given(text, name); }

[[nodiscard]] FormatId format_named(const char *name, const char *what);
/// The name of a format, for as long as the program runs.
[[nodiscard]] const char *name_of(FormatId id);

/// Rows of `row_bytes`, `stride` apart (0: row_bytes), without the gaps. Throws Error where the shape is
/// negative, the pointer missing or the stride too small.
[[nodiscard]] std::vector<uint8_t> gather(const void *data, int64_t rows, int64_t row_bytes, int64_t stride,
                                          const char *name);
/// The way back.
void scatter(std::span<const uint8_t> words, void *data, int64_t rows, int64_t row_bytes, int64_t stride,
             const char *name);

/// The number of bytes of `count` elements of a row; Error where that is no size a memory has.
[[nodiscard]] int64_t row_bytes(int64_t rows, int64_t count, int bits, const char *name);

[[nodiscard]] inline bool scaled(const nvfp4_operand &o) { return o.scale != nullptr; }
/// An operand with scales.
[[nodiscard]] BlockScaled block_scaled(const nvfp4_operand &o, const char *name);
/// Either kind, made the unit's.
[[nodiscard]] GemmOperand operand(const nvfp4_operand &o, const Unit &unit, Side side);

/// Options and format of a product.
[[nodiscard]] const Unit &unit_of(const nvfp4_product &p);
[[nodiscard]] GemmOptions options_of(const nvfp4_product &p, const Unit &unit);

} // namespace nvfp4::c_api
