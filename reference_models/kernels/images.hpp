// SPDX-License-Identifier: Apache-2.0
// What a convolutional network needs beside its products: patches of images, batch normalization with ReLU,
// max-pooling. Images are (images, height, width, channels): a pixel's channels lie together, and a batch of
// them is a matrix of (pixels, channels).
#pragma once
#include "nvfp4/reference_models/kernels/norm.hpp"

namespace nvfp4::models {

/// Where a row of a patch matrix looks: of output (y, x), tap (i, j) sees pixel ((y mul + sign i + off) / div,
/// likewise in x), or 0 where that is outside or no whole number. Convolutions have sign 1, off -padding, div
/// 1; their gradients sign -1, off padding, div the stride.
struct Taps {
  int64_t height = 0, width = 0; ///< of the images that are read
  int64_t rows = 0, cols = 0;    ///< of the outputs: a row of the matrix each
  int64_t kernel_rows = 0, kernel_cols = 0;
  int64_t mul = 1, sign = 1, off = 0, div = 1;

  /// -1 where the tap sees 0.
  [[nodiscard]] NVFP4_INLINE int64_t place(int64_t at, int64_t tap, int64_t length) const {
    const int64_t p = at * mul + sign * tap + off;
    return p >= 0 && p % div == 0 && p / div < length ? p / div : -1;
  }
};

/// out (rows, cols) = rows [first_row, + rows) and columns [first_col, + cols) of the patch matrix of x: row
/// (image, y, x), column (i, j, channel).
template <class T> struct GatherPatches {
  Taps taps;
  int64_t channels;
  int64_t first_row, rows, first_col, cols;
  const T *x; // (images, taps.height, taps.width, channels)
  T *out;

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      const int64_t at = s.first_row + r, pixels = s.taps.rows * s.taps.cols;
      const int64_t image = at / pixels, line = at % pixels / s.taps.cols, column = at % s.taps.cols;
      const T *const base = s.x + image * s.taps.height * s.taps.width * s.channels;
      T *const to = s.out + r * s.cols;
      for (int64_t done = 0; done < s.cols;) {
        const int64_t k = s.first_col + done, tap = k / s.channels, channel = k % s.channels;
        const int64_t n = numerics::min(s.channels - channel, s.cols - done);
        const int64_t py = s.taps.place(line, tap / s.taps.kernel_cols, s.taps.height),
                      px = s.taps.place(column, tap % s.taps.kernel_cols, s.taps.width);
        const bool inside = py >= 0 && px >= 0;
        const T *const from = base + (inside ? (py * s.taps.width + px) * s.channels + channel : 0);
        T *const here = to + done;
        if (inside)
          lane.each(n, [=](int64_t j) { here[j] = from[j]; });
        else
          lane.each(n, [=](int64_t j) { here[j] = T(0); });
        done += n;
      }
    });
  }
};

/// out (taps, outputs, channels) from a convolution's filters (outputs, taps, channels): the weight of the
/// product that gives the gradient of its input.
template <class T> struct TurnFilters {
  int64_t outputs, taps, channels;
  const T *filters;
  T *out;

  [[nodiscard]] int64_t teams() const { return row_teams(taps * outputs); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, taps * outputs, index, [=](int64_t r, const auto &lane) {
      const T *const from = s.filters + ((r % s.outputs) * s.taps + r / s.outputs) * s.channels;
      lane.each(s.channels, [=](int64_t j) { s.out[r * s.channels + j] = from[j]; });
    });
  }
};

/// to (rows, width) = from (rows, width), rows `to_row` and `from_row` elements apart.
template <class T> struct CopyColumns {
  int64_t rows, width;
  const T *from;
  int64_t from_row;
  T *to;
  int64_t to_row;

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      lane.each(s.width, [=](int64_t j) { s.to[r * s.to_row + j] = s.from[r * s.from_row + j]; });
    });
  }
};

/// mean and rstd = 1 / sqrt(variance + epsilon) of each column of x (rows, cols): two sums in the order of
/// column_sums, the variance over rows. The running ones become (1 - momentum) old + momentum new, the
/// variance over rows - 1 (Ioffe and Szegedy 2015, as PyTorch has it). Teams of 16 columns.
template <class T> struct BatchStatistics {
  int64_t rows, cols;
  T epsilon, momentum;
  const T *x;
  T *mean, *rstd;                 // (cols)
  T *running_mean, *running_variance; // (cols)

  [[nodiscard]] int64_t teams() const { return (cols + 15) / 16; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const int64_t first = index * 16, width = numerics::min<int64_t>(16, cols - first);
    team.column_sums(
        rows, width, [=](int64_t r, int64_t j) { return s.x[r * s.cols + first + j]; },
        [=](int64_t j, T sum) {
          const T m = sum / T(s.rows);
          s.mean[first + j] = m;
          T &running = s.running_mean[first + j];
          running = (T(1) - s.momentum) * running + s.momentum * m;
        });
    team.column_sums(
        rows, width,
        [=](int64_t r, int64_t j) {
          const T d = s.x[r * s.cols + first + j] - s.mean[first + j];
          return d * d;
        },
        [=](int64_t j, T sum) {
          s.rstd[first + j] = T(1) / numerics::sqrt(sum / T(s.rows) + s.epsilon);
          const T unbiased = sum / T(s.rows > 1 ? s.rows - 1 : 1);
          T &running = s.running_variance[first + j];
          running = (T(1) - s.momentum) * running + s.momentum * unbiased;
        });
  }
};

/// The same from running ones, for evaluation.
template <class T> struct StoredStatistics {
  int64_t cols;
  T epsilon;
  const T *running_mean, *running_variance;
  T *mean, *rstd;

  [[nodiscard]] int64_t teams() const { return 1; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t) const {
    const auto s = *this;
    team.each(cols, [=](int64_t j) {
      s.mean[j] = s.running_mean[j];
      s.rstd[j] = T(1) / numerics::sqrt(s.running_variance[j] + s.epsilon);
    });
  }
};

/// y = max(0, ((x - mean) rstd) weight + bias); NaN stays.
template <class T> struct BatchNormForward {
  int64_t rows, cols;
  const T *x, *mean, *rstd, *weight, *bias;
  T *y;

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      lane.each(s.cols, [=](int64_t j) {
        const T z = ((s.x[r * s.cols + j] - s.mean[j]) * s.rstd[j]) * s.weight[j] + s.bias[j];
        s.y[r * s.cols + j] = z < T(0) ? T(0) : z;
      });
    });
  }
};

/// With dz = dy where y > 0, else 0: sums (2, cols) of dz and of dz x', x' = (x - mean) rstd; both are added
/// to the gradients of bias and weight. Teams of 16 columns.
template <class T> struct BatchNormSums {
  int64_t rows, cols;
  const T *dy, *y, *x, *mean, *rstd;
  T *sums, *dweight, *dbias;

  [[nodiscard]] int64_t teams() const { return (cols + 15) / 16; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const int64_t first = index * 16, width = numerics::min<int64_t>(16, cols - first);
    team.column_sums(
        rows, width,
        [=](int64_t r, int64_t j) {
          const int64_t i = r * s.cols + first + j;
          return s.y[i] > T(0) ? s.dy[i] : T(0);
        },
        [=](int64_t j, T sum) {
          s.sums[first + j] = sum;
          s.dbias[first + j] = s.dbias[first + j] + sum;
        });
    team.column_sums(
        rows, width,
        [=](int64_t r, int64_t j) {
          const int64_t i = r * s.cols + first + j;
          const T dz = s.y[i] > T(0) ? s.dy[i] : T(0);
          return dz * ((s.x[i] - s.mean[first + j]) * s.rstd[first + j]);
        },
        [=](int64_t j, T sum) {
          s.sums[s.cols + first + j] = sum;
          s.dweight[first + j] = s.dweight[first + j] + sum;
        });
  }
};

/// dx = weight rstd (dz - (sum dz + x' sum(dz x')) / rows). dx may be dy.
template <class T> struct BatchNormBackward {
  int64_t rows, cols;
  const T *dy, *y, *x, *mean, *rstd, *weight, *sums;
  T *dx;

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      lane.each(s.cols, [=](int64_t j) {
        const int64_t i = r * s.cols + j;
        const T dz = s.y[i] > T(0) ? s.dy[i] : T(0);
        const T normal = (s.x[i] - s.mean[j]) * s.rstd[j];
        const T common = (s.sums[j] + normal * s.sums[s.cols + j]) / T(s.rows);
        s.dx[i] = (s.weight[j] * s.rstd[j]) * (dz - common);
      });
    });
  }
};

/// A window of 2 x 2 pixels: the largest value, of equal ones the first in rows, and NaN wins, as in PyTorch.
template <class T> struct PoolWindow {
  T value;
  int place; ///< 2 row + column

  NVFP4_INLINE static PoolWindow of(const T *first, int64_t right, int64_t down) {
    PoolWindow w{first[0], 0};
    w.take(first[right], 1);
    w.take(first[down], 2);
    w.take(first[down + right], 3);
    return w;
  }
  NVFP4_INLINE void take(T v, int at) {
    const bool better = v > value || v != v;
    value = better ? v : value;
    place = better ? at : place;
  }
};

/// y (images, height / 2, width / 2, channels) from x (images, height, width, channels), sizes rounded down.
template <class T> struct MaxPoolForward {
  int64_t images, height, width, channels;
  const T *x;
  T *y;

  [[nodiscard]] NVFP4_INLINE int64_t rows() const { return images * (height / 2) * (width / 2); }
  [[nodiscard]] int64_t teams() const { return row_teams(rows()); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows(), index, [=](int64_t r, const auto &lane) {
      const int64_t across = s.width / 2, column = r % across, lines = r / across,
                    line = lines % (s.height / 2), image = lines / (s.height / 2);
      const T *const from = s.x + ((image * s.height + 2 * line) * s.width + 2 * column) * s.channels;
      lane.each(s.channels, [=](int64_t j) {
        s.y[r * s.channels + j] = PoolWindow<T>::of(from + j, s.channels, s.width * s.channels).value;
      });
    });
  }
};

/// dx: dy where forward took the value, else 0. The places are found again.
template <class T> struct MaxPoolBackward {
  int64_t images, height, width, channels;
  const T *dy, *x;
  T *dx;

  [[nodiscard]] NVFP4_INLINE int64_t rows() const { return images * height * width; }
  [[nodiscard]] int64_t teams() const { return row_teams(rows()); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows(), index, [=](int64_t r, const auto &lane) {
      const int64_t column = r % s.width, lines = r / s.width, line = lines % s.height, image = lines / s.height;
      const bool pooled = line / 2 < s.height / 2 && column / 2 < s.width / 2;
      const T *const from = s.x + ((image * s.height + line / 2 * 2) * s.width + column / 2 * 2) * s.channels;
      const T *const came = s.dy + ((image * (s.height / 2) + line / 2) * (s.width / 2) + column / 2) * s.channels;
      T *const to = s.dx + r * s.channels;
      const int place = int(line % 2 * 2 + column % 2);
      if (pooled)
        lane.each(s.channels, [=](int64_t j) {
          to[j] = PoolWindow<T>::of(from + j, s.channels, s.width * s.channels).place == place ? came[j] : T(0);
        });
      else
        lane.each(s.channels, [=](int64_t j) { to[j] = T(0); });
    });
  }
};

} // namespace nvfp4::models
