// SPDX-License-Identifier: Apache-2.0
// Elementwise kernels: sums, SwiGLU, output gates, AdamW, rounding to BF16. A team takes kChunk elements.
#pragma once
#include "nvfp4/reference_models/kernels/team.hpp"

namespace nvfp4::models {

inline constexpr int64_t kChunk = 4096;

NVFP4_INLINE int64_t chunks(int64_t n) { return (n + kChunk - 1) / kChunk; }

/// f(i) for the elements of chunk `index` of n.
template <class Team, class F>
NVFP4_INLINE void each_in_chunk(const Team &team, int64_t n, int64_t index, F f) {
  const int64_t first = index * kChunk;
  team.each(numerics::min(kChunk, n - first), [=](int64_t i) { f(first + i); });
}

/// store(i, value(i)) for the elements of chunk `index` of n; values are read before others are stored.
template <class Team, class Value, class Store>
NVFP4_INLINE void map_in_chunk(const Team &team, int64_t n, int64_t index, Value value, Store store) {
  const int64_t first = index * kChunk;
  team.map(1, numerics::min(kChunk, n - first), [=](int64_t, int64_t i) { return value(first + i); },
           [=](int64_t, int64_t i, auto x) { store(first + i, x); });
}

/// y = a + b. y may be a or b.
template <class T> struct Add {
  int64_t n;
  const T *a, *b;
  T *y;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    map_in_chunk(team, n, index, [=](int64_t i) { return s.a[i] + s.b[i]; }, [=](int64_t i, T value) { s.y[i] = value; });
  }
};

/// y (rows, cols) += bias (cols).
template <class T> struct AddBias {
  int64_t rows, cols;
  const T *bias;
  T *y;

  [[nodiscard]] int64_t teams() const { return rows; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t r) const {
    const auto s = *this;
    team.each(cols, [=](int64_t j) { s.y[r * s.cols + j] = s.y[r * s.cols + j] + s.bias[j]; });
  }
};

/// y (cols) += sum over rows of x (rows, cols): the gradient of a bias or a norm's weight. Teams of 16
/// columns.
template <class T> struct AccumulateColumns {
  int64_t rows, cols;
  const T *x;
  T *y;

  [[nodiscard]] int64_t teams() const { return (cols + 15) / 16; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const int64_t first = index * 16;
    team.column_sums(
        rows, numerics::min<int64_t>(16, cols - first),
        [=](int64_t r, int64_t j) { return s.x[r * s.cols + first + j]; },
        [=](int64_t j, T sum) { s.y[first + j] = s.y[first + j] + sum; });
  }
};

/// h = swish(gate) * up.
template <class T> struct SwigluForward {
  int64_t n;
  const T *gate, *up;
  T *h;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    map_in_chunk(team, n, index, [=](int64_t i) { return numerics::silu(s.gate[i]) * s.up[i]; },
                 [=](int64_t i, T value) { s.h[i] = value; });
  }
};

template <class T> struct SwigluBackward {
  int64_t n;
  const T *dh, *gate, *up;
  T *dgate, *dup;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    map_in_chunk(
        team, n, index,
        [=](int64_t i) -> Two<T> {
          const T g = s.gate[i];
          const T sig = numerics::sigmoid(g);
          return {s.dh[i] * (g * sig), (s.dh[i] * s.up[i]) * (sig * (T(1) + g * (T(1) - sig)))};
        },
        [=](int64_t i, const Two<T> &d) {
          s.dup[i] = d.first;
          s.dgate[i] = d.second;
        });
  }
};

/// h = gelu(gate) * up, with GELU's form in tanh (Gemma).
template <class T> struct GegluForward {
  int64_t n;
  const T *gate, *up;
  T *h;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, n, index, [=](int64_t i) { s.h[i] = numerics::gelu_tanh(s.gate[i]) * s.up[i]; });
  }
};

/// g = logsigmoid(x) / normalizer: the log of GLA's decay.
template <class T> struct GateForward {
  int64_t n;
  const T *x;
  T *g;
  T normalizer = T(16);

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, n, index, [=](int64_t i) { s.g[i] = numerics::logsigmoid(s.x[i]) / s.normalizer; });
  }
};

/// dx = dg * sigmoid(-x) / normalizer.
template <class T> struct GateBackward {
  int64_t n;
  const T *dg, *x;
  T *dx;
  T normalizer = T(16);

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, n, index,
                  [=](int64_t i) { s.dx[i] = s.dg[i] * numerics::sigmoid(-s.x[i]) / s.normalizer; });
  }
};

/// x <- x * factor.
template <class T> struct Scale {
  int64_t n;
  T factor;
  T *x;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, n, index, [=](int64_t i) { s.x[i] = s.x[i] * s.factor; });
  }
};

/// One AdamW step (Loshchilov and Hutter 2019): decoupled decay, bias correction by the two given factors.
template <class T> struct AdamW {
  int64_t n;
  const T *gradient;
  T *value, *m, *v;
  T beta1, beta2, epsilon;
  T rate;        ///< learning rate
  T decay;       ///< rate * weight decay, 0 where the parameter does not decay
  T correction1; ///< 1 / (1 - beta1^step)
  T correction2; ///< 1 / (1 - beta2^step)
  T clip;        ///< factor on the gradient

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, n, index, [=](int64_t i) {
      const T g = s.gradient[i] * s.clip;
      const T m1 = s.beta1 * s.m[i] + (T(1) - s.beta1) * g;
      const T v1 = s.beta2 * s.v[i] + (T(1) - s.beta2) * (g * g);
      s.m[i] = m1;
      s.v[i] = v1;
      const T step = s.rate * (m1 * s.correction1) / (numerics::sqrt(v1 * s.correction2) + s.epsilon);
      s.value[i] = s.value[i] - s.decay * s.value[i] - step;
    });
  }
};

/// partial[chunk] = sum of x^2 over a chunk, in FP64; the host adds the chunks in order.
template <class T> struct SquareSums {
  int64_t n;
  const T *x;
  double *partial;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const int64_t first = index * kChunk;
    const int64_t length = numerics::min(kChunk, n - first);
    team.rows(1, [=](int64_t, const auto &lane) {
      const double sum =
          lane.sum(length, [=](int64_t i) { return double(s.x[first + i]) * double(s.x[first + i]); });
      lane.one([=] { s.partial[index] = sum; });
    });
  }
};

} // namespace nvfp4::models
