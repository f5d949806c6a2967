// SPDX-License-Identifier: Apache-2.0
// The cosines and sines of rotary position embedding, computed on the host without the C library: the same
// bits on every IEEE machine.
#pragma once
#include <cstdint>
#include <vector>

namespace nvfp4::models {

template <class T> struct RopeTable {
  std::vector<T> cosine, sine; // (length, dim / 2)
};

/// How frequencies are changed for texts longer than those of training, as in Hugging Face transformers,
/// modeling_rope_utils.py. Each operation is one of FP32.
struct RopeScaling {
  enum class Kind : uint8_t {
    none,
    linear, ///< f / factor
    /// f where the wavelength 2 pi / f is below original / high, f / factor where it is above original / low,
    /// and between them (1 - s) f / factor + s f with s = (original / wavelength - low) / (high - low)
    llama3,
  };
  Kind kind = Kind::none;
  double factor = 1, low_frequency_factor = 1, high_frequency_factor = 4;
  int64_t original_positions = 8192;
};

/// Angle of position t and pair i: t / base^(2i / dim). As in Hugging Face's Qwen, 2i / dim, the power, its
/// inverse and the angle are each rounded to FP32; the power itself is within 1e-14 and cosine and sine
/// within 1e-14 before they are rounded to T. Throws Error unless length >= 1, dim is even and >= 2, base >=
/// 1 and angles stay below 1e6.
template <class T>
[[nodiscard]] RopeTable<T> rope_table(int64_t length, int64_t dim, double base,
                                      const RopeScaling &scaling = {});

/// base^x for base in [1, 1e15] and x in [0, 1], from + - * / alone; relative error below 1e-14.
[[nodiscard]] double power_of(double base, double x);

} // namespace nvfp4::models
