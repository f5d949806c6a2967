// SPDX-License-Identifier: Apache-2.0
// The short convolution of Gated DeltaNet and Mamba-2: causal, one filter of four taps a channel, then SiLU.
#pragma once
#include "nvfp4/reference_models/kernels/norm.hpp"

namespace nvfp4::models {

inline constexpr int64_t kTaps = 4;

/// Token t of one channel, from its bias; taps before `first` see 0.
template <class T>
NVFP4_INLINE T convolve(int64_t channels, const T *x, const T *weight, int64_t t, int64_t first, T bias) {
  T z = bias;
  for (int64_t w = 0; w < kTaps; ++w) {
    const T value = x[(w < first ? t : t - (kTaps - 1) + w) * channels];
    z = numerics::fma(weight[w], w < first ? T(0) : value, z);
  }
  return z;
}

/// y = silu(z), z_t = bias[c] + sum over w of weight[c, w] x[t - 3 + w], where x is 0 before its sequence:
/// fused multiply-adds from the bias, or from 0 without one, w increasing. As in PyTorch, the last tap is the
/// current token's.
template <class T> struct ConvolutionForward {
  int64_t tokens, length, channels; ///< tokens is a multiple of length
  const T *x, *weight;              // (tokens, channels), (channels, 4)
  T *y;                             // not x
  const T *bias = nullptr;          // (channels); null: none

  [[nodiscard]] NVFP4_INLINE T bias_of(int64_t c) const { return bias != nullptr ? bias[c] : T(0); }
  [[nodiscard]] int64_t teams() const { return row_teams(tokens); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, tokens, index, [=](int64_t t, const auto &lane) {
      const int64_t first = numerics::max<int64_t>(0, kTaps - 1 - t % s.length);
      lane.each(s.channels, [=](int64_t c) {
        s.y[t * s.channels + c] =
            numerics::silu(convolve(s.channels, s.x + c, s.weight + c * kTaps, t, first, s.bias_of(c)));
      });
    });
  }
};

/// dz = dy silu'(z); z is computed again. The gradient of a bias is the sum of dz over tokens.
template <class T> struct ConvolutionSlopes {
  int64_t tokens, length, channels;
  const T *dy, *x, *weight;
  T *dz; // (tokens, channels)
  const T *bias = nullptr;

  [[nodiscard]] NVFP4_INLINE T bias_of(int64_t c) const { return bias != nullptr ? bias[c] : T(0); }
  [[nodiscard]] int64_t teams() const { return row_teams(tokens); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, tokens, index, [=](int64_t t, const auto &lane) {
      const int64_t first = numerics::max<int64_t>(0, kTaps - 1 - t % s.length);
      lane.each(s.channels, [=](int64_t c) {
        const T z = convolve(s.channels, s.x + c, s.weight + c * kTaps, t, first, s.bias_of(c));
        s.dz[t * s.channels + c] = s.dy[t * s.channels + c] * numerics::silu_derivative(z);
      });
    });
  }
};

/// dx, a chain of fused multiply-adds from 0 over this token and the three after it.
template <class T> struct ConvolutionInputs {
  int64_t tokens, length, channels;
  const T *dz, *weight;
  T *dx;

  [[nodiscard]] int64_t teams() const { return row_teams(tokens); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, tokens, index, [=](int64_t t, const auto &lane) {
      const int64_t left = s.length - t % s.length; // tokens from here to the sequence's end
      lane.each(s.channels, [=](int64_t c) {
        T d = T(0);
        for (int64_t w = 0; w < kTaps; ++w) { // tap 3 - w of the token w later
          const T later = s.dz[(w < left ? t + w : t) * s.channels + c];
          d = numerics::fma(s.weight[c * kTaps + kTaps - 1 - w], w < left ? later : T(0), d);
        }
        s.dx[t * s.channels + c] = d;
      });
    });
  }
};

/// dweight += its gradient. Teams of one tap of 16 channels.
template <class T> struct ConvolutionWeights {
  int64_t tokens, length, channels;
  const T *dz, *x;
  T *dweight;

  [[nodiscard]] int64_t teams() const { return (channels + 15) / 16 * kTaps; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const int64_t begin = index / kTaps * 16, width = numerics::min<int64_t>(16, channels - begin),
                  tap = index % kTaps, back = kTaps - 1 - tap;
    team.column_sums(
        tokens, width,
        [=](int64_t t, int64_t j) {
          const bool inside = int64_t(uint32_t(t) % uint32_t(s.length)) >= back;
          const int64_t at = t * s.channels + begin + j;
          const T term = s.dz[at] * s.x[inside ? at - back * s.channels : at];
          return inside ? term : T(0);
        },
        [=](int64_t j, T sum) {
          T &to = s.dweight[(begin + j) * kTaps + tap];
          to = to + sum;
        });
  }
};

/// dx, and dweight += its gradient, by three kernels.
template <class T> struct ConvolutionBackward {
  int64_t tokens, length, channels; ///< tokens below 2^32
  const T *dy, *x, *weight;
  T *dx, *dweight; // (tokens, channels), (channels, 4)
  T *dz;           // (tokens, channels), scratch
  const T *bias = nullptr;

  /// Runner has run(kernel): a backend.
  template <class Runner> void run_on(Runner &runner) const {
    runner.run(ConvolutionSlopes<T>{tokens, length, channels, dy, x, weight, dz, bias});
    runner.run(ConvolutionInputs<T>{tokens, length, channels, dz, weight, dx});
    runner.run(ConvolutionWeights<T>{tokens, length, channels, dz, x, dweight});
  }
};

} // namespace nvfp4::models
