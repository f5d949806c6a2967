// SPDX-License-Identifier: Apache-2.0
// What the tests of convolutional networks share: hard images, the matrix of patches written out, words.
#pragma once
#include "nvfp4/reference_models/images/convolution.hpp"
#include "nvfp4/reference_models/images/recipes.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace nvfp4::test {

using namespace nvfp4::models;
using Floats = std::vector<float>;

/// Values of every size: lognormal scales pixel by pixel, outliers, runs of zeros.
inline Floats hard(int64_t n, double sigma, uint64_t seed) {
  std::mt19937_64 engine(seed);
  const auto unit = [&] { return double(engine() >> 11) * 0x1p-53; };
  const auto normal = [&] {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += unit();
    return sum;
  };
  Floats x(static_cast<size_t>(n));
  double scale = 1;
  for (size_t i = 0; i < x.size(); ++i) {
    if (i % 16 == 0) scale = std::exp2(2 * normal());
    const double u = unit();
    x[i] = float(u < 0.05 ? 0.0 : u < 0.06 ? 50 * sigma * normal() : sigma * scale * normal());
  }
  for (size_t i = x.size() / 3; i < x.size() / 3 + 40 && i < x.size(); ++i) x[i] = 0.0f;
  return x;
}

/// The whole matrix of patches: rows (image, y, x), columns (i, j, channel). Of a transposed convolution, whose rows are the
/// pixels that a gradient flows back to, where `back`.
inline Floats patches(const ConvolutionShape &s, const Floats &x, int64_t images, bool back = false) {
  const int64_t height = back ? s.out_height() : s.height, width = back ? s.out_width() : s.width,
                channels = back ? s.outputs : s.channels, rows = back ? s.height : s.out_height(),
                cols = back ? s.width : s.out_width();
  Floats out;
  for (int64_t n = 0; n < images; ++n)
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t c = 0; c < cols; ++c)
        for (int64_t i = 0; i < s.kernel; ++i)
          for (int64_t j = 0; j < s.kernel; ++j) {
            int64_t py = y * s.stride + i - s.padding, px = c * s.stride + j - s.padding;
            bool there = true;
            if (back) {
              py = y + s.padding - i, px = c + s.padding - j;
              there = py >= 0 && px >= 0 && py % s.stride == 0 && px % s.stride == 0;
              py /= s.stride, px /= s.stride;
            }
            there = there && py >= 0 && px >= 0 && py < height && px < width;
            for (int64_t q = 0; q < channels; ++q)
              out.push_back(there ? x[size_t(((n * height + py) * width + px) * channels + q)] : 0.0f);
          }
  return out;
}

inline bool same_words(const Floats &a, const Floats &b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// A recipe whose every layer takes its default linear.
inline Recipe everywhere(const std::string &name) {
  Recipe r = load_image_recipe(name);
  r.rules.clear();
  return r;
}

} // namespace nvfp4::test
