// SPDX-License-Identifier: Apache-2.0
// The options of one quantizer case as the JSON text that golden files carry. Internal.
#pragma once
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <string>

namespace nvfp4::golden {

[[nodiscard]] std::string to_json(const QuantizeOptions &options);
/// Throws Error naming `where` when the text is not such an object.
[[nodiscard]] QuantizeOptions options_from_json(const std::string &text, const std::string &where);

} // namespace nvfp4::golden
