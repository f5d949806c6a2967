// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: whatever parses as .npy is written, read and written again, and must not change.
#include "nvfp4/golden/io/npy.hpp"

#include <cstdlib>

using namespace nvfp4::io;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Tensor tensor;
  try {
    tensor = parse_npy(std::as_bytes(std::span(data, size)), "fuzz.npy");
  } catch (const nvfp4::Error &error) {
    // The one exception there may be; its message is one line.
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
    return 0;
  }
  const auto written = to_npy(tensor);
  const Tensor again = parse_npy(written, "again.npy");
  if (again != tensor || to_npy(again) != written) std::abort();
  return 0;
}
