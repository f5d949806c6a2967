// SPDX-License-Identifier: Apache-2.0
// The columns of golden text as tensors, for those who compute with the cases themselves.
#pragma once
#include "nvfp4/golden/io/tensor.hpp"
#include "nvfp4/golden/text.hpp"

namespace nvfp4::golden {

/// One tensor a column but `class`, in unsigned words of its format: operands (cases, K), scales (cases, K /
/// block), other words (cases); 4-bit operands two to a byte, 4-bit results one. The header is the metadata.
/// Throws Error for a kind that is none and for rows of different length.
[[nodiscard]] io::TensorFile to_tensors(const TextFile &text);

} // namespace nvfp4::golden
