// SPDX-License-Identifier: Apache-2.0
// Independent dot products on one unit, raw words in and out: what `nvfp4 mma` computes.
#pragma once
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/golden/io/tensor.hpp"

#include <functional>

namespace nvfp4::golden {

struct DotProducts {
  int64_t n = 0, k = 0;
  io::TensorFile file; ///< `d` (n) in words of the accumulator; metadata: unit, evidence, accumulation model
};

/// `in` holds a, b (n, K) and, for a unit with block scales, scale_a, scale_b (n, K / block); c (n) may be
/// there, without it sums start at +0. Each is an unsigned integer of the format's size or of the format's
/// own dtype; 4-bit codes are packed, low nibble first. `progress` gets the fraction done; what it throws
/// ends the work. Throws Error for a tensor that is missing, unknown, or of another type or shape.
[[nodiscard]] DotProducts dot_products(const Unit &unit, const io::TensorFile &in, Accumulation accumulation,
                                       bool exact = false, const std::function<void(double)> &progress = {});

} // namespace nvfp4::golden
