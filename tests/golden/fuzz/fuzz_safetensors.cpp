// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: whatever parses as .safetensors is written, read and written again, and must not change.
#include "nvfp4/golden/io/safetensors.hpp"

#include <cstdlib>

using namespace nvfp4::io;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  TensorFile file;
  try {
    file = parse_safetensors(std::as_bytes(std::span(data, size)), "fuzz.safetensors");
  } catch (const nvfp4::Error &error) {
    // The one exception there may be; its message is one line.
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
    return 0;
  }
  const auto written = to_safetensors(file);
  const TensorFile again = parse_safetensors(written, "again.safetensors");
  if (again.metadata != file.metadata || again.tensors.size() != file.tensors.size()) std::abort();
  for (const Tensor &tensor : file.tensors)
    if (again.at(tensor.name) != tensor) std::abort();
  if (to_safetensors(again) != written) std::abort();
  return 0;
}
