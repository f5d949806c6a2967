// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: quantized tensors in safetensors files, down to dequantization.
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/golden/io/safetensors.hpp"
#include "nvfp4/golden/quantized_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace nvfp4;
  try {
    const io::TensorFile f = io::parse_safetensors({reinterpret_cast<const std::byte *>(data), size}, "fuzz");
    DequantizeOptions options;
    options.threads = 1;
    (void)dequantize(golden::from_file(f), options);
  } catch (const Error &) {
  }
  return 0;
}
