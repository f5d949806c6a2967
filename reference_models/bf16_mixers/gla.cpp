// SPDX-License-Identifier: Apache-2.0
// Forward of gated linear attention on tensor cores: the definition.
#include "nvfp4/reference_models/bf16_mixers/gla.hpp"

#include "nvfp4/reference_models/bf16_mixers/gla_decays.hpp"

namespace nvfp4::models::bf16_gla {
namespace {

/// Scores of a sub-chunk's rows among themselves: A_ij = sum over d of q_i k_j e_{j+1} ... e_i in parts of 32
/// channels, each a chain of fused multiply-adds, the parts added in increasing order.
void scores_inside(const ChunkDecays &x, int64_t key, int64_t sub, Matrix &a) {
  for (int64_t j = sub * kSub; j < (sub + 1) * kSub; ++j) {
    std::array<float, kSub> sum{};
    for (int64_t part = 0; part < key; part += kPart) {
      std::array<float, kSub> partial{};
      for (int64_t d = part; d < std::min(part + kPart, key); ++d) {
        float decayed = x.k(j, d);
        for (int64_t i = j; i < (sub + 1) * kSub; ++i) {
          if (i > j) decayed = decayed * x.gate(i, d);
          float &p = partial[size_t(i % kSub)];
          p = numerics::fma(x.q(i, d), decayed, p);
        }
      }
      for (size_t i = 0; i < size_t(kSub); ++i) sum[i] = part == 0 ? partial[i] : sum[i] + partial[i];
    }
    for (int64_t i = j; i < (sub + 1) * kSub; ++i) a(i, j) = sum[size_t(i % kSub)];
  }
}

/// Scores of sub-chunk t's rows with those of sub-chunk r < t: a chain over the key.
void scores_across(const ChunkDecays &x, int64_t key, int64_t r, int64_t t, const ChainUnit &unit,
                   Matrix &a) {
  ChainOperand q(kSub, key), k(kSub, key);
  for (int64_t i = 0; i < kSub; ++i)
    for (int64_t d = 0; d < key; ++d) {
      q(i, d) = bf16_of(x.q(t * kSub + i, d) * x.from_start(t * kSub + i, d));
      k(i, d) = x.k_to(t, r * kSub + i, d);
    }
  const std::vector<float> block = chain(unit, q, k);
  for (int64_t i = 0; i < kSub; ++i)
    for (int64_t j = 0; j < kSub; ++j) a(t * kSub + i, r * kSub + j) = block[size_t(i * kSub + j)];
}

void forward_chunk(const Shape &s, const Inputs &in, const ChainUnit &unit, int64_t team, int64_t c,
                   Matrix &state, Forward &out) {
  const ChunkRows rows(s, team, c);
  const ChunkDecays x(s, in, rows);
  const int64_t index = team * s.chunks() + c;
  Matrix a(kChunk, kChunk);
  for (int64_t t = 0; t < kSubs; ++t) {
    scores_inside(x, s.key, t, a);
    for (int64_t r = 0; r < t; ++r) scores_across(x, s.key, r, t, unit, a);
  }
  // o = scale (q_decayed S + A v): one chain over the key and then over the chunk's rows
  ChainOperand left(kChunk, s.key + kChunk), right(s.value, s.key + kChunk);
  ChainOperand k_columns(s.key, kChunk), v_columns(s.value, kChunk);
  for (int64_t i = 0; i < kChunk; ++i) {
    for (int64_t d = 0; d < s.key; ++d) {
      const size_t at = size_t((index * kChunk + i) * s.key + d);
      left(i, d) = out.q_decayed[at] = bf16_of((x.q(i, d) * x.from_start(i, d)) * x.before(i / kSub, d));
      k_columns(d, i) = out.k_decayed[at] = bf16_of((x.k(i, d) * x.to_end(i, d)) * x.after(i / kSub, d));
    }
    for (int64_t j = 0; j < kChunk; ++j)
      left(i, s.key + j) = out.scores[size_t((index * kChunk + i) * kChunk + j)] = bf16_of(a(i, j));
    for (int64_t e = 0; e < s.value && i < rows.count; ++e)
      right(e, s.key + i) = v_columns(e, i) = in.v[rows.at(s, s.value, i, e)];
  }
  for (int64_t d = 0; d < s.key; ++d) {
    out.decay[size_t(index * s.key + d)] = x.whole(0, d);
    for (int64_t e = 0; e < s.value; ++e)
      right(e, d) = out.states[size_t((index * s.key + d) * s.value + e)] = bf16_of(state(d, e));
  }
  const std::vector<float> o = chain(unit, left, right);
  for (int64_t i = 0; i < rows.count; ++i)
    for (int64_t e = 0; e < s.value; ++e)
      out.o[rows.at(s, s.value, i, e)] = s.scale * o[size_t(i * s.value + e)];
  // the state after the chunk stays in FP32
  const std::vector<float> update = chain(unit, k_columns, v_columns);
  for (int64_t d = 0; d < s.key; ++d)
    for (int64_t e = 0; e < s.value; ++e)
      state(d, e) = numerics::fma(x.whole(0, d), state(d, e), update[size_t(d * s.value + e)]);
}

void expect(const char *name, size_t got, int64_t want) {
  if (int64_t(got) != want)
    throw Error(std::string("GLA: ") + name + " needs " + std::to_string(want) + " elements, got " +
                std::to_string(got));
}

} // namespace

void check(const Shape &s) {
  const auto fits = [](int64_t width) { return width >= 16 && width <= 256 && width % 16 == 0; };
  if (!fits(s.key) || !fits(s.value))
    throw Error("GLA: key and value must be multiples of 16 from 16 to 256, got " + std::to_string(s.key) +
                " and " + std::to_string(s.value) + "; pad the heads with zeros");
  constexpr int64_t most = int64_t{1} << 31;
  if (s.batch < 1 || s.length < 1 || s.heads < 1 || s.batch >= most || s.length >= most || s.heads >= most ||
      s.batch * s.length >= most || s.teams() >= most || s.all_chunks() >= most)
    throw Error("GLA: batch, length and heads must be at least 1 with fewer than 2^31 rows and chunks, got " +
                std::to_string(s.batch) + ", " + std::to_string(s.length) + ", " + std::to_string(s.heads) +
                "; split the batch");
}

void check(const Shape &s, const Inputs &in, const Unit &unit) {
  check(s);
  expect("q", in.q.size(), s.keys()), expect("k", in.k.size(), s.keys());
  expect("v", in.v.size(), s.values()), expect("g", in.g.size(), s.keys());
  (void)chain(unit, ChainOperand(1, 16), ChainOperand(1, 16)); // refuses other units before threads start
}

Forward forward(const Shape &s, const Inputs &in, const Unit &unit, std::optional<Isa> isa) {
  check(s, in, unit);
  const size_t n = size_t(s.all_chunks());
  Forward out;
  out.o.resize(in.v.size());
  out.q_decayed.resize(n * size_t(kChunk * s.key)), out.k_decayed.resize(n * size_t(kChunk * s.key));
  out.decay.resize(n * size_t(s.key)), out.scores.resize(n * size_t(kChunk * kChunk));
  out.states.resize(n * size_t(s.key * s.value));
#pragma omp parallel for schedule(dynamic)
  for (int64_t team = 0; team < s.teams(); ++team) {
    Matrix state(s.key, s.value);
    for (int64_t c = 0; c < s.chunks(); ++c) forward_chunk(s, in, {unit, isa}, team, c, state, out);
  }
  return out;
}

} // namespace nvfp4::models::bf16_gla
