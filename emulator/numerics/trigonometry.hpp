// SPDX-License-Identifier: Apache-2.0
// sin and cos in FP64 from +, -, * and / alone, for tables made once on the host (rotary embeddings, random
// normals). The same bits on every IEEE machine; error below 1e-14 for |x| up to 1e6.
#pragma once
#include <cstdint>

namespace nvfp4::numerics {

struct SinCos {
  double sin, cos;
};

/// |x| <= 1e6.
[[nodiscard]] inline SinCos sin_cos(double x) {
  // x = n pi/2 + r in three parts of pi/2 (fdlibm's), r in [-pi/4, pi/4]
  const double scaled = x * 0.63661977236758134308;
  const auto n = int64_t(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
  const auto d = double(n);
  const double r = ((x - d * 1.57079632673412561417e+00) - d * 6.07710050630396597660e-11) -
                   d * 2.02226624879595063154e-21;
  const double z = r * r;
  // Taylor series; the first term left out is below 2^-60 at pi/4
  double s = 0, c = 0;
  for (int k = 19; k >= 3; k -= 2) s = (1.0 - s) * z / double(k * (k - 1));
  for (int k = 20; k >= 2; k -= 2) c = (1.0 - c) * z / double(k * (k - 1));
  const double sine = r * (1.0 - s), cosine = 1.0 - c;
  switch (n & 3) {
  case 0: return {sine, cosine};
  case 1: return {cosine, -sine};
  case 2: return {-sine, -cosine};
  default: return {-cosine, sine};
  }
}

} // namespace nvfp4::numerics
