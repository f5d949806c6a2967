// SPDX-License-Identifier: Apache-2.0
// Quantizer cases of every convention: ordinary and degenerate inputs under every option that the convention takes.
#pragma once
#include <string>

namespace nvfp4::golden {

/// Writes one .safetensors per convention into the folder; returns how many.
size_t generate_quantize(const std::string &folder);

} // namespace nvfp4::golden
