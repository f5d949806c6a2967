// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: golden text files. Whatever parses must print to the same file again; nothing else may escape than
// an Error, and verifying must never crash.
#include "nvfp4/golden/text.hpp"
#include "nvfp4/golden/verify.hpp"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace nvfp4;
  try {
    const golden::TextFile f = golden::parse_text({reinterpret_cast<const char *>(data), size}, "fuzz");
    const std::string text = golden::format_text(f);
    if (golden::format_text(golden::parse_text(text, "fuzz")) != text) std::abort();
    if (f.get("kind") != "convert-digest") (void)golden::verify_text(f, {}); // a digest takes seconds
  } catch (const Error &) {
  }
  return 0;
}
