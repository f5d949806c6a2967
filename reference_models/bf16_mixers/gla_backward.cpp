// SPDX-License-Identifier: Apache-2.0
// Backward of gated linear attention on tensor cores: the definition. Gradients of scores and states are kept
// without the factor `scale`, which comes last.
#include "nvfp4/emulator/numerics/reduce.hpp"
#include "nvfp4/reference_models/bf16_mixers/gla_decays.hpp"

namespace nvfp4::models::bf16_gla {
namespace {

/// One chunk on its way backward.
struct Chunk {
  const Shape &s;
  const Inputs &in;
  std::span<const uint16_t> grad_o;
  const Forward &saved;
  ChainUnit unit;
  ChunkRows rows;
  ChunkDecays x;
  int64_t index;

  Chunk(const Shape &shape, const Inputs &inputs, std::span<const uint16_t> grad, const Forward &kept,
        const ChainUnit &u, int64_t team, int64_t c)
      : s(shape), in(inputs), grad_o(grad), saved(kept), unit(u), rows(s, team, c), x(s, in, rows),
        index(team * s.chunks() + c) {}

  [[nodiscard]] uint16_t v(int64_t i, int64_t e) const {
    return i < rows.count ? in.v[rows.at(s, s.value, i, e)] : uint16_t(0);
  }
  [[nodiscard]] uint16_t go(int64_t i, int64_t e) const {
    return i < rows.count ? grad_o[rows.at(s, s.value, i, e)] : uint16_t(0);
  }
  [[nodiscard]] size_t state_at(int64_t d, int64_t e) const {
    return size_t((index * s.key + d) * s.value + e);
  }
};

/// dA = do v^T for j <= i: a chain over the value.
Matrix score_grads(const Chunk &c) {
  ChainOperand left(kChunk, c.s.value), right(kChunk, c.s.value);
  for (int64_t i = 0; i < kChunk; ++i)
    for (int64_t e = 0; e < c.s.value; ++e) left(i, e) = c.go(i, e), right(i, e) = c.v(i, e);
  Matrix da(kChunk, kChunk);
  da.data = chain(c.unit, left, right);
  for (int64_t i = 0; i < kChunk; ++i)
    for (int64_t j = i + 1; j < kChunk; ++j) da(i, j) = 0.0f;
  return da;
}

/// dv = scale (k_decayed H + A^T do): one chain over the key and then over the chunk's rows. H is the rounded
/// gradient of the state after the chunk.
void value_grads(const Chunk &c, Backward &out) {
  const int64_t key = c.s.key;
  ChainOperand left(kChunk, key + kChunk), right(c.s.value, key + kChunk);
  for (int64_t i = 0; i < kChunk; ++i) {
    for (int64_t d = 0; d < key; ++d)
      left(i, d) = c.saved.k_decayed[size_t((c.index * kChunk + i) * key + d)];
    for (int64_t j = 0; j < kChunk; ++j)
      left(j, key + i) = c.saved.scores[size_t((c.index * kChunk + i) * kChunk + j)];
    for (int64_t e = 0; e < c.s.value; ++e) right(e, key + i) = c.go(i, e);
  }
  for (int64_t d = 0; d < key; ++d)
    for (int64_t e = 0; e < c.s.value; ++e) right(e, d) = out.state_grads[c.state_at(d, e)];
  const std::vector<float> dv = chain(c.unit, left, right);
  for (int64_t i = 0; i < c.rows.count; ++i)
    for (int64_t e = 0; e < c.s.value; ++e)
      out.dv[c.rows.at(c.s, c.s.value, i, e)] = c.s.scale * dv[size_t(i * c.s.value + e)];
}

/// X (64, value) times a rounded state (key, value) transposed: a chain over the value.
template <class Rows>
Matrix through_state(const Chunk &c, const Rows &x, const std::vector<uint16_t> &states) {
  ChainOperand left(kChunk, c.s.value), right(c.s.key, c.s.value);
  for (int64_t e = 0; e < c.s.value; ++e) {
    for (int64_t i = 0; i < kChunk; ++i) left(i, e) = x(i, e);
    for (int64_t d = 0; d < c.s.key; ++d) right(d, e) = states[c.state_at(d, e)];
  }
  Matrix out(kChunk, c.s.key);
  out.data = chain(c.unit, left, right);
  return out;
}

/// Sum over earlier sub-chunks' rows of dA_ij k_j for q, over later ones' of dA_ij q_i for k, decayed to the
/// boundary of the row's own sub-chunk: chains over those rows in increasing order.
void across(const Chunk &c, const Matrix &da, Matrix &for_q, Matrix &for_k) {
  for (int64_t t = 0; t < kSubs; ++t) {
    const int64_t first = t * kSub, last = first + kSub, later = kChunk - last;
    if (t > 0) {
      ChainOperand left(kSub, first), right(c.s.key, first);
      for (int64_t j = 0; j < first; ++j) {
        for (int64_t i = 0; i < kSub; ++i) left(i, j) = bf16_of(da(first + i, j));
        for (int64_t d = 0; d < c.s.key; ++d) right(d, j) = c.x.k_to(t, j, d);
      }
      const std::vector<float> sum = chain(c.unit, left, right);
      std::copy(sum.begin(), sum.end(), for_q.data.begin() + first * c.s.key);
    }
    if (later > 0) {
      ChainOperand left(kSub, later), right(c.s.key, later);
      for (int64_t i = 0; i < later; ++i) {
        for (int64_t j = 0; j < kSub; ++j) left(j, i) = bf16_of(da(last + i, first + j));
        for (int64_t d = 0; d < c.s.key; ++d) right(d, i) = c.x.q_since(t, last + i, d);
      }
      const std::vector<float> sum = chain(c.unit, left, right);
      std::copy(sum.begin(), sum.end(), for_k.data.begin() + first * c.s.key);
    }
  }
}

/// One channel inside sub-chunk t: chains of fused multiply-adds in increasing row.
void inside(const Chunk &c, const Matrix &da, int64_t t, int64_t d, std::array<float, kSub> &for_q,
            std::array<float, kSub> &for_k) {
  const int64_t first = t * kSub;
  for_q.fill(0.0f), for_k.fill(0.0f);
  // q_i decayed since row j, k_j decayed to row i: nearest gate first in both
  std::array<float, kSub> q{}, k{};
  for (size_t i = 0; i < size_t(kSub); ++i) {
    const auto row = [&](size_t j) { return first + int64_t(j); };
    for (size_t j = 0; j < i; ++j) k[j] = k[j] * c.x.gate(row(i), d);
    k[i] = c.x.k(row(i), d), q[i] = c.x.q(row(i), d);
    for (size_t j = i; j > 0; --j) q[j - 1] = q[j] * c.x.gate(row(j), d);
    for (size_t j = 0; j <= i; ++j) {
      const float a = da(row(i), row(j));
      for_q[i] = numerics::fma(a, k[j], for_q[i]);
      for_k[j] = numerics::fma(a, q[j], for_k[j]);
    }
  }
}

/// Sum over e of S H for channel d: 32 partial sums, lane l taking the e with e / 2 % 32 = l, then a
/// butterfly.
float state_product(const Chunk &c, const Backward &out, int64_t d) {
  float lanes[numerics::kLanes] = {};
  for (int64_t e = 0; e < c.s.value; ++e) {
    float &sum = lanes[e / 2 % numerics::kLanes];
    sum = numerics::fma(float_of_bf16(c.saved.states[c.state_at(d, e)]),
                        float_of_bf16(out.state_grads[c.state_at(d, e)]), sum);
  }
  return numerics::butterfly_sum(lanes);
}

void input_grads(const Chunk &c, const Matrix &da, Backward &out) {
  const Shape &s = c.s;
  const Matrix q_state = through_state(
                   c, [&](int64_t i, int64_t e) { return c.go(i, e); }, c.saved.states),
               k_state = through_state(
                   c, [&](int64_t i, int64_t e) { return c.v(i, e); }, out.state_grads);
  Matrix q_across(kChunk, s.key), k_across(kChunk, s.key);
  across(c, da, q_across, k_across);
  for (int64_t d = 0; d < s.key; ++d) {
    Matrix suffix(kChunk, 1); // of q dq - k dk inside each sub-chunk
    float through = 0.0f;     // sum of k dk through the state
    for (int64_t t = 0; t < kSubs; ++t) {
      std::array<float, kSub> q_inside, k_inside;
      inside(c, da, t, d, q_inside, k_inside);
      float sum = 0.0f, part = 0.0f;
      for (int64_t i = (t + 1) * kSub - 1; i >= t * kSub; --i) {
        const float h = c.x.before(t, d) * q_state(i, d), u = c.x.after(t, d) * k_state(i, d);
        const float dq =
            s.scale * numerics::fma(c.x.from_start(i, d), h + q_across(i, d), q_inside[size_t(i % kSub)]);
        const float dk =
            s.scale * numerics::fma(c.x.to_end(i, d), u + k_across(i, d), k_inside[size_t(i % kSub)]);
        part = numerics::fma(c.x.k(i, d), c.x.to_end(i, d) * u, part);
        sum = sum + (c.x.q(i, d) * dq - c.x.k(i, d) * dk);
        suffix(i, 0) = sum;
        if (i >= c.rows.count) continue;
        out.dq[c.rows.at(s, s.key, i, d)] = dq;
        out.dk[c.rows.at(s, s.key, i, d)] = dk;
      }
      through = t == 0 ? part : through + part;
    }
    float carry = s.scale * numerics::fma(c.x.whole(0, d), state_product(c, out, d), through);
    for (int64_t t = kSubs - 1; t >= 0; --t) {
      for (int64_t i = t * kSub; i < std::min((t + 1) * kSub, c.rows.count); ++i)
        out.dg[c.rows.at(s, s.key, i, d)] = carry + suffix(i, 0);
      carry = carry + suffix(t * kSub, 0);
    }
  }
}

/// H before the chunk from H after it, in FP32: decay H + q_decayed^T do.
void state_step(const Chunk &c, Matrix &h) {
  ChainOperand left(c.s.key, kChunk), right(c.s.value, kChunk);
  for (int64_t i = 0; i < kChunk; ++i) {
    for (int64_t d = 0; d < c.s.key; ++d)
      left(d, i) = c.saved.q_decayed[size_t((c.index * kChunk + i) * c.s.key + d)];
    for (int64_t e = 0; e < c.s.value; ++e) right(e, i) = c.go(i, e);
  }
  const std::vector<float> update = chain(c.unit, left, right);
  for (int64_t d = 0; d < c.s.key; ++d)
    for (int64_t e = 0; e < c.s.value; ++e)
      h(d, e) = numerics::fma(c.x.whole(0, d), h(d, e), update[size_t(d * c.s.value + e)]);
}

} // namespace

Backward backward(const Shape &s, const Inputs &in, std::span<const uint16_t> grad_o, const Forward &saved,
                  const Unit &unit, std::optional<Isa> isa) {
  check(s, in, unit);
  const int64_t rows = s.all_chunks() * kChunk;
  if (int64_t(grad_o.size()) != s.values() ||
      int64_t(saved.states.size()) != s.all_chunks() * s.key * s.value ||
      int64_t(saved.q_decayed.size()) != rows * s.key || int64_t(saved.k_decayed.size()) != rows * s.key ||
      int64_t(saved.scores.size()) != rows * kChunk)
    throw Error("GLA backward: grad_o needs " + std::to_string(s.values()) + " elements, got " +
                std::to_string(grad_o.size()) + "; `saved` must be what forward gave for this shape");
  const size_t n = size_t(s.all_chunks());
  Backward out;
  out.dq.resize(in.q.size()), out.dk.resize(in.q.size()), out.dg.resize(in.q.size());
  out.dv.resize(in.v.size());
  out.state_grads.resize(n * size_t(s.key * s.value)), out.score_grads.resize(n * size_t(kChunk * kChunk));
#pragma omp parallel for schedule(dynamic)
  for (int64_t team = 0; team < s.teams(); ++team) {
    Matrix h(s.key, s.value);
    for (int64_t i = s.chunks() - 1; i >= 0; --i) {
      const Chunk c(s, in, grad_o, saved, {unit, isa}, team, i);
      for (int64_t d = 0; d < s.key; ++d)
        for (int64_t e = 0; e < s.value; ++e) out.state_grads[c.state_at(d, e)] = bf16_of(h(d, e));
      const Matrix da = score_grads(c);
      std::copy(da.data.begin(), da.data.end(), out.score_grads.begin() + c.index * kChunk * kChunk);
      value_grads(c, out);
      input_grads(c, da, out);
      state_step(c, h);
    }
  }
  return out;
}

} // namespace nvfp4::models::bf16_gla
