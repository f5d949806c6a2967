// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: quantized tensors in safetensors files, down to dequantization.
#include "emulator/quantize/dequantize.hpp"
#include "golden/io/safetensors.hpp"
#include "golden/quantized_file.hpp"

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
