// SPDX-License-Identifier: Apache-2.0
// The part of nvfp4 check that compares a quantizer's output with a convention.
#pragma once
#include "tools/nvfp4/command.hpp"

#include <optional>
#include <string>

namespace nvfp4::tool {

struct QuantizedCheck {
  std::string mine, source, tensor, convention;
  std::optional<float> amax;
};

void add_quantized_options(Command &verb, QuantizedCheck &o);
/// Exit code 0: every byte is equal; 1: some differ.
[[nodiscard]] int check_quantized(const QuantizedCheck &o, int threads, bool json);

} // namespace nvfp4::tool
