// SPDX-License-Identifier: Apache-2.0
// What a softmax's logits look like: entropy, largest, moments. Diagnostics of a forward pass.
#pragma once
#include "nvfp4/reference_models/kernels/attention.hpp"

namespace nvfp4::models {

/// What happens to the logits z = scale q_i k_j, j <= i, of one head, all sums in FP64: rows in increasing
/// order.
struct AttentionMoments {
  double entropy;        ///< sum over rows of -sum p log p, in nats
  double largest;        ///< largest z
  double z1, z2, z3, z4; ///< sums of powers of z over length (length + 1) / 2 logits
  double first;          ///< sum over all rows but the first of p of the first key
};

/// A team a head; kt is k turned, `saved` forward's.
template <class T> struct AttentionMomentSums {
  AttentionShape<T> shape;
  const T *q, *kt, *saved;
  AttentionMoments *rows, *heads; // (batch, heads, length) work, (batch, heads) result

  [[nodiscard]] int64_t teams() const { return shape.batch * shape.heads; }
  [[nodiscard]] int64_t scratch() const { return kQueryBlock * shape.length; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t sequence = index / sh.heads, head = index % sh.heads, stride = sh.length;
    const auto qs = sh.q_rows(q, sequence, head);
    const auto kts = sh.k_columns(kt, sequence, head / sh.group());
    T *const p = team.scratch;
    const T *const largest = saved + index * 2 * stride, *const inverse = largest + stride;
    AttentionMoments *const out = rows + index * stride, *const total = heads + index;
    const T scale = sh.scale;
    for (int64_t first = 0; first < sh.length; first += kQueryBlock) {
      const int64_t n = numerics::min(kQueryBlock, sh.length - first);
      team.matmul(n, first + n, sh.dim, qs.at(first, 0), kts, {p, stride});
      team.rows(n, [=](int64_t r, const auto &lane) {
        const T *const row = p + r * stride;
        const int64_t valid = first + r + 1;
        const T top = largest[first + r], factor = inverse[first + r];
        AttentionMoments m;
        // -sum p log p = -log factor - sum p (z - top)
        m.entropy = -double(numerics::log(factor)) - lane.sum(valid, [=](int64_t j) {
          const T d = row[j] * scale - top;
          return double(numerics::exp(d) * factor) * double(d);
        });
        m.largest = double(top);
        m.first = first + r > 0 ? double(numerics::exp(row[0] * scale - top) * factor) : 0.0;
        const auto z = [=](int64_t j) { return double(row[j] * scale); };
        m.z1 = lane.sum(valid, z);
        m.z2 = lane.sum(valid, [=](int64_t j) { return z(j) * z(j); });
        m.z3 = lane.sum(valid, [=](int64_t j) { return z(j) * z(j) * z(j); });
        m.z4 = lane.sum(valid, [=](int64_t j) { return (z(j) * z(j)) * (z(j) * z(j)); });
        lane.one([=] { out[first + r] = m; });
      });
    }
    team.each(1, [=](int64_t) {
      AttentionMoments sum = out[0];
      for (int64_t r = 1; r < sh.length; ++r) {
        sum.entropy += out[r].entropy;
        sum.largest = numerics::max(sum.largest, out[r].largest);
        sum.z1 += out[r].z1;
        sum.z2 += out[r].z2;
        sum.z3 += out[r].z3;
        sum.z4 += out[r].z4;
        sum.first += out[r].first;
      }
      *total = sum;
    });
  }
};

/// Costs about as much as a forward pass. `saved` is forward's.
template <class T> struct AttentionStatistics {
  AttentionShape<T> shape;
  const T *q, *k, *saved;
  T *work;                        // shape.work()
  AttentionMoments *rows, *heads; // (batch, heads, length) work, (batch, heads) result

  template <class Runner> void run_on(Runner &runner) const {
    runner.run(AttentionTurn<T>{shape, k, work});
    runner.run(AttentionMomentSums<T>{shape, q, work, saved, rows, heads});
  }
};

} // namespace nvfp4::models
