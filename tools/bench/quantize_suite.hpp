// SPDX-License-Identifier: Apache-2.0
// What is measured of quantization, and one measurement: memcpy of the same matrix and quantization by turns.
#pragma once
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <span>

namespace nvfp4::bench {

struct QuantizeWork {
  const char *name;
  const char *convention;
  QuantizeOptions options = {};
  bool fresh = false; ///< into new memory each time, as quantize() does
};

[[nodiscard]] std::span<const QuantizeWork> quantize_works();

struct MatrixShape {
  const char *name;
  int64_t rows, cols;
  int repeats;
};
inline constexpr MatrixShape kMemoryShape{"4096x4096", 4096, 4096, 21}; ///< 64 MiB: larger than the caches
inline constexpr MatrixShape kCacheShape{"256x512", 256, 512, 1001};    ///< 512 KiB: the arithmetic alone

/// Seconds of one copy and one quantization of the same FP32 matrix.
struct QuantizeSample {
  double copy, quantize;
};

/// Normal values in memory, reused by all samples of a process.
class QuantizeBench {
public:
  QuantizeBench(const QuantizeWork &work, const MatrixShape &shape, int threads);
  [[nodiscard]] QuantizeSample sample();
  [[nodiscard]] double bytes() const { return double(shape_.rows * shape_.cols) * sizeof(float); }

private:
  const QuantizeWork &work_;
  MatrixShape shape_;
  int threads_;
  QuantizeOptions options_;
  BlockScaled out_;
};

} // namespace nvfp4::bench
