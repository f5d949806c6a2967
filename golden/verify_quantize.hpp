// SPDX-License-Identifier: Apache-2.0
// Golden quantizer cases: safetensors with inputs, expected codes and scales, and the options of each case.
#pragma once
#include "nvfp4/golden/verify.hpp"

namespace nvfp4::golden {

/// Requantizes every case of a golden safetensors file and compares all bytes. isa as in QuantizeOptions.
[[nodiscard]] Verdict verify_quantize(const std::string &path, std::optional<Isa> isa = {});

} // namespace nvfp4::golden
