// SPDX-License-Identifier: Apache-2.0
// What an optimizer keeps of its tensors between steps (OptimizerRecipe): largest values, scales, and rounding in place.
#pragma once
#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/reference_models/kernels/elementwise.hpp"

namespace nvfp4::models {

/// How an optimizer keeps a tensor: `fraction` bits behind the leading one of numbers from 2^least on, under a power of two
/// that leaves its amax below `most`; most = 0: under none.
struct KeptFormat {
  int fraction, least;
  float most;
};

/// 2^floor(log2(most / amax)) within 2^-126 and 2^126; 1 for an amax of 0 or most = 0, 0 for an infinite amax.
[[nodiscard]] NVFP4_INLINE float kept_scale(const KeptFormat &f, float amax) {
  const auto bits = [](float x) { return bit_cast<uint32_t>(x); };
  if (bits(amax) >= bits(__builtin_inff())) return 0.0f;
  if (amax == 0.0f || f.most == 0.0f) return 1.0f;
  int lift = 0;
  if (amax < 0x1p-126f) amax *= 0x1p24f, lift = 24;
  const bool wider = (bits(amax) & 0x7FFFFF) > (bits(f.most) & 0x7FFFFF);
  const int exponent = int(bits(f.most) >> 23) - int(bits(amax) >> 23) + lift - (wider ? 1 : 0);
  return bit_cast<float>(uint32_t(numerics::max(-126, numerics::min(126, exponent)) + 127) << 23);
}

/// x rounded in the format under the scale, a power of two. |x scale| is at most the format's largest.
[[nodiscard]] NVFP4_INLINE float kept_value(const KeptFormat &f, float scale, float x) {
  if (f.most == 0.0f) return round_to_bf16(x);
  const float y = x * scale, size = bit_cast<float>(bit_cast<uint32_t>(y) & 0x7FFFFFFFu);
  const int exponent = numerics::max(int(bit_cast<uint32_t>(size) >> 23) - 127, f.least);
  // to whole units of its last place: adding 1.5 * 2^23 of them leaves no bit below
  const float magic = bit_cast<float>(uint32_t(exponent - f.fraction + 23 + 127) << 23 | 0x400000u);
  const float rounded = (size + magic) - magic;
  return (bit_cast<uint32_t>(y) >> 31 != 0 ? -rounded : rounded) * (1.0f / scale);
}

/// partial[chunk] = the largest |x| of a chunk, infinite where one is not finite.
template <class T> struct LargestChunks {
  int64_t n;
  const T *x;
  T *partial;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const int64_t first = index * kChunk;
    const int64_t length = numerics::min(kChunk, n - first);
    team.rows(1, [=](int64_t, const auto &lane) {
      const T largest = lane.max(length, [=](int64_t i) {
        const T value = s.x[first + i], size = value < T(0) ? -value : value;
        return size <= T(3.4028234663852886e38f) ? size : T(__builtin_inff());
      });
      lane.one([=] { s.partial[index] = largest; });
    });
  }
};

/// The power of two for a tensor, from the largest of its chunks; 0 where it stays as it is.
template <class T> struct KeptScale {
  int64_t n; ///< chunks
  KeptFormat format;
  const T *partial;
  T *scale;

  [[nodiscard]] int64_t teams() const { return 1; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t) const {
    const auto s = *this;
    team.rows(1, [=](int64_t, const auto &lane) {
      const auto amax = float(lane.max(s.n, [=](int64_t i) { return s.partial[i]; }));
      lane.one([=] { s.scale[0] = T(kept_scale(s.format, amax)); });
    });
  }
};

/// x in the format and back, to nearest even, where the scale is not 0.
template <class T> struct Keep {
  int64_t n;
  KeptFormat format;
  const T *scale;
  T *x;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const auto power = float(s.scale[0]);
    if (power == 0.0f) return; // of all teams
    map_in_chunk(team, n, index, [=](int64_t i) { return T(kept_value(s.format, power, float(s.x[i]))); },
                 [=](int64_t i, T value) { s.x[i] = value; });
  }
};

} // namespace nvfp4::models
