// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a .safetensors or .gguf file as a checkpoint, down to the values and statistics of its weights.
#include "nvfp4/golden/checkpoint/inspect.hpp"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace nvfp4;
  try {
    checkpoint::Checkpoint c;
    checkpoint::add_tensors(c, {reinterpret_cast<const std::byte *>(data), size}, "fuzz");
    const checkpoint::Weights weights = checkpoint::find_weights(c);
    std::vector<checkpoint::Finding> findings;
    for (const checkpoint::Weight &w : weights.all) (void)checkpoint::inspect_weight(w, findings, 1);
    for (checkpoint::Finding &f : checkpoint::inspect_together(c, weights)) findings.push_back(std::move(f));
    for (const checkpoint::Finding &f : findings)
      if (f.text.find('\n') != std::string::npos) std::abort();
  } catch (const Error &error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
