// SPDX-License-Identifier: Apache-2.0
// A tensor through one conversion instruction, or into a format of one's own, element by element: what `nvfp4 convert` computes.
#pragma once
#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/formats/number_format.hpp"
#include "nvfp4/emulator/formats/philox.hpp"
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

/// A rounding into a format that is no instruction's. Stochastic rounding takes bits32 of `key` by element.
struct NumberConversion {
  NumberFormat to;
  NumberRounding rounding = NumberRounding::nearest_even;
  bool saturate = false;
  RandomKey key;
};

/// The same for any dense floating-point tensor (F64, F32, BF16, F16, FP8). Codes are in U8, U16 or U32,
/// values, which as_values asks for, in F64, which holds them all.
[[nodiscard]] ConvertedTensor convert_tensor(const NumberConversion &conversion, const io::Tensor &in,
                                             const std::string &source, bool as_values = false,
                                             const std::function<void(double)> &progress = {});

} // namespace nvfp4::golden
