// SPDX-License-Identifier: Apache-2.0
// Scales that give groups of a quantized operand their length back, and carry the stochastic rounding in place of the elements
// (ScaleCorrection::eden). Source: MS-EDEN, IST-DASLab/Quartet-II kernels/python/quartet2/linear.py @8776a90, whose simulation
// computes the factor per group of 128; here with the scales and the headroom of the operand's convention, under which a scale
// at the format's largest cannot grow.
#pragma once
#include "nvfp4/emulator/quantize/quantize.hpp"

namespace nvfp4::models {

/// q is what quantize() made of x (rounded to the source, padded) with blocks of 16 elements of one row; its scales are
/// replaced. Sums run in FP64 in the order of the elements; the random word of block b of row r is that of index
/// r * blocks + b under the key with the highest bit of its offset flipped.
void correct_scales(BlockScaled &q, MatrixView<const float> x, RandomKey key);

} // namespace nvfp4::models
