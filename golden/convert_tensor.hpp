// SPDX-License-Identifier: Apache-2.0
// A tensor through one conversion instruction, element by element: what `nvfp4 convert` computes.
#pragma once
#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/golden/io/tensor.hpp"

#include <functional>

namespace nvfp4::golden {

/// How many inputs and outputs were not numbers: what a conversion that saturates hides.
struct ConversionCounts {
  int64_t nan_in = 0, infinity_in = 0, nan_out = 0, infinity_out = 0;
};

struct ConvertedTensor {
  io::Tensor tensor; ///< the codes, in the dtype of their format, or one to a byte in U8 where there is none
  ConversionCounts counts;
};

/// `in` is of the type that the conversion reads, or U8 with one code a byte of a format without a dtype.
/// as_values: F32 values instead of codes. `source` names the file in messages. `progress` gets the fraction
/// done; what it throws ends the work. Throws Error for a tensor of another type.
[[nodiscard]] ConvertedTensor convert_tensor(const Conversion &conversion, const io::Tensor &in,
                                             const std::string &source, bool as_values = false,
                                             const std::function<void(double)> &progress = {});

} // namespace nvfp4::golden
