// SPDX-License-Identifier: Apache-2.0
// The definition of gated linear attention on tensor cores: against the recurrence in FP64 within bounds that
// count its BF16 roundings, exactly where nothing rounds, and by a digest that an H200 gives as well.
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/bf16_mixers/gla_example.hpp"
#include "tests/reference_models/kernels/support.hpp"

using namespace nvfp4;
using namespace nvfp4::models::bf16_gla;
using namespace nvfp4::test;

namespace {

const Unit &hopper() { return find_unit("sm_90:mma.m16n8k16.f32.bf16"); }

/// o and gradients token after token in FP64. `absolute`: of the absolute values, which bounds every sum's
/// terms. S H is the product of state and gradient after each token, summed over the value.
struct Recurrence {
  Reals o, dq, dk, dv, dg, sh;

  Recurrence(const Example &x, bool absolute) {
    const Shape &s = x.shape;
    const auto real = [&](const std::vector<uint16_t> &from) {
      Reals to(from.size());
      for (size_t i = 0; i < to.size(); ++i) {
        to[i] = double(bf16_value(from[i]));
        if (absolute) to[i] = std::fabs(to[i]);
      }
      return to;
    };
    const Reals q = real(x.q), k = real(x.k), v = real(x.v), go = real(x.grad_o);
    o.resize(v.size()), dv.resize(v.size());
    dq.resize(q.size()), dk.resize(q.size()), dg.resize(q.size()), sh.resize(q.size());
    const auto key = size_t(s.key), value = size_t(s.value), size = key * value;
    for (int64_t team = 0; team < s.teams(); ++team) {
      const auto row = [&](int64_t t) {
        return size_t((team / s.heads * s.length + t) * s.heads + team % s.heads);
      };
      Reals states(size_t(s.length + 1) * size), h(size);
      for (int64_t t = 0; t < s.length; ++t)
        for (size_t d = 0; d < key; ++d)
          for (size_t e = 0; e < value; ++e) {
            const size_t i = row(t) * key + d, j = row(t) * value + e, at = size_t(t) * size + d * value + e;
            states[at + size] = std::exp(double(x.g[i])) * states[at] + k[i] * v[j];
            o[j] += double(s.scale) * q[i] * states[at + size];
          }
      for (int64_t t = s.length - 1; t >= 0; --t)
        for (size_t d = 0; d < key; ++d)
          for (size_t e = 0; e < value; ++e) {
            const size_t i = row(t) * key + d, j = row(t) * value + e, at = size_t(t) * size + d * value + e;
            double &grad = h[d * value + e];
            const double decay = std::exp(double(x.g[i]));
            sh[i] += states[at + size] * grad; // before this token's own contribution
            grad += double(s.scale) * q[i] * go[j];
            dq[i] += double(s.scale) * states[at + size] * go[j];
            dk[i] += grad * v[j];
            dv[j] += grad * k[i];
            dg[i] += grad * decay * states[at];
            grad *= decay;
          }
    }
  }
};

/// Largest |got - want| / bound; Inf when something is not finite.
double worst(const std::vector<float> &got, const Reals &want, const Reals &bound) {
  double most = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::fabs(double(got[i]) - want[i]);
    if (!std::isfinite(error)) return INFINITY;
    if (error > 1e-30) most = std::fmax(most, error / bound[i]);
  }
  return most;
}

/// What dg's error is measured against: all |q dq| and |k dk| of the chunk, and S H at the chunk's end.
Reals gate_bound(const Example &x, const Recurrence &a) {
  const Shape &s = x.shape;
  Reals bound(x.g.size());
  const auto width = size_t(s.heads * s.key);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t c = 0; c < s.length; c += kChunk)
      for (size_t d = 0; d < width; ++d) {
        const int64_t end = std::min(c + kChunk, s.length);
        const auto at = [&](int64_t t) { return size_t(b * s.length + t) * width + d; };
        double sum = a.sh[at(end - 1)];
        for (int64_t t = c; t < end; ++t)
          sum += std::fabs(double(bf16_value(x.q[at(t)]))) * a.dq[at(t)] +
                 std::fabs(double(bf16_value(x.k[at(t)]))) * a.dk[at(t)];
        for (int64_t t = c; t < end; ++t) bound[at(t)] = sum;
      }
  return bound;
}

std::string digest(const Forward &f, const Backward &b) {
  std::vector<std::byte> bytes;
  for (const auto *x : {&f.o, &b.dq, &b.dk, &b.dv, &b.dg}) {
    const auto *const from = reinterpret_cast<const std::byte *>(x->data());
    bytes.insert(bytes.end(), from, from + 4 * x->size());
  }
  return io::sha256_hex(bytes);
}

const Gates kAllGates[] = {Gates::mild, Gates::strong, Gates::resets, Gates::none};

} // namespace

TEST_CASE("tensor-core GLA stays within its BF16 roundings") {
  const Shape shapes[] = {{1, 1, 1, 16, 16}, {2, 70, 2, 32, 16}, {1, 150, 1, 48, 64}, {1, 200, 1, 128, 32}};
  for (const Shape &shape : shapes)
    for (const Gates gates : kAllGates) {
      CAPTURE(shape.length, shape.key, shape.value, int(gates));
      const Example x = make_example(shape, gates, 5);
      const Recurrence want(x, false), size(x, true);
      const Forward f = forward(x.shape, x.inputs(), hopper());
      const Backward b = backward(x.shape, x.inputs(), x.grad_o, f, hopper());
      // Half an ulp is 2^-9. o: q, k and state, or q, k and score; dv alike; dq: state and k, or score
      // gradient and k; dk alike; dg: two for S, two for H, else those of dq and dk. The rest is FP32 and
      // truncation.
      constexpr double u = 0x1p-9;
      CHECK(worst(f.o, want.o, size.o) < 3.1 * u);
      CHECK(worst(b.dv, want.dv, size.dv) < 3.1 * u);
      CHECK(worst(b.dq, want.dq, size.dq) < 2.1 * u);
      CHECK(worst(b.dk, want.dk, size.dk) < 2.1 * u);
      CHECK(worst(b.dg, want.dg, gate_bound(x, size)) < 4.2 * u);
    }
}

TEST_CASE("tensor-core GLA is exact where nothing rounds") {
  for (const Shape &shape : {Shape{1, 150, 2, 16, 32}, Shape{1, 64, 1, 80, 16}}) {
    Example x = make_example(shape, Gates::none, 7);
    x.shape.scale = 1.0f;
    for (auto *values : {&x.q, &x.k, &x.v, &x.grad_o})
      for (uint16_t &w : *values) w = bf16_word(std::round(bf16_value(w) * 0.6f)); // -1, 0, 1
    const Recurrence want(x, false);
    const Forward f = forward(x.shape, x.inputs(), hopper());
    const Backward b = backward(x.shape, x.inputs(), x.grad_o, f, hopper());
    CHECK(largest(want.o) > 8);
    CHECK(Reals(f.o.begin(), f.o.end()) == want.o);
    CHECK(Reals(b.dq.begin(), b.dq.end()) == want.dq);
    CHECK(Reals(b.dk.begin(), b.dk.end()) == want.dk);
    CHECK(Reals(b.dv.begin(), b.dv.end()) == want.dv);
    CHECK(Reals(b.dg.begin(), b.dg.end()) == want.dg);
  }
}

TEST_CASE("tensor-core GLA is causal") {
  const Shape shape{1, 150, 1, 32, 32};
  Example x = make_example(shape, Gates::mild, 8);
  const Forward before = forward(x.shape, x.inputs(), hopper());
  const Backward grads = backward(x.shape, x.inputs(), x.grad_o, before, hopper());
  for (const size_t token : {size_t(1), size_t(37), size_t(64), size_t(130)}) {
    CAPTURE(token);
    Example y = x;
    for (size_t i = token * 32; i < y.q.size(); ++i) {
      y.q[i] ^= 0x8000, y.k[i] ^= 0x40, y.v[i] ^= 0x8000;
      y.g[i] *= 2;
    }
    const Forward after = forward(y.shape, y.inputs(), hopper());
    const auto equal = [&](const std::vector<float> &a, const std::vector<float> &b, size_t first,
                           size_t last) {
      return std::equal(a.begin() + int64_t(first), a.begin() + int64_t(last), b.begin() + int64_t(first));
    };
    CHECK(equal(before.o, after.o, 0, token * 32));
    CHECK(!equal(before.o, after.o, token * 32, token * 32 + 32));
    // gradients of q see nothing later, gradients of k and v nothing earlier
    Example z = x;
    for (size_t i = 0; i < token * 32; ++i) z.grad_o[i] ^= 0x8000;
    const Backward other = backward(z.shape, z.inputs(), z.grad_o, before, hopper());
    CHECK(equal(grads.dq, other.dq, token * 32, grads.dq.size()));
    CHECK(equal(grads.dk, other.dk, token * 32, grads.dk.size()));
    CHECK(equal(grads.dv, other.dv, token * 32, grads.dv.size()));
    CHECK(!equal(grads.dq, other.dq, 0, token * 32));
  }
}

TEST_CASE("a ragged tail is zeros") {
  const Example x = make_example({1, 100, 2, 16, 32}, Gates::strong, 9);
  Example padded = x;
  padded.shape.length = 192;
  for (auto *keys : {&padded.q, &padded.k}) keys->resize(size_t(padded.shape.keys()));
  for (auto *values : {&padded.v, &padded.grad_o}) values->resize(size_t(padded.shape.values()));
  padded.g.resize(size_t(padded.shape.keys()));
  const Forward f = forward(x.shape, x.inputs(), hopper()),
                pf = forward(padded.shape, padded.inputs(), hopper());
  const Backward b = backward(x.shape, x.inputs(), x.grad_o, f, hopper()),
                 pb = backward(padded.shape, padded.inputs(), padded.grad_o, pf, hopper());
  const auto starts = [](const std::vector<float> &longer, const std::vector<float> &shorter) {
    return std::equal(shorter.begin(), shorter.end(), longer.begin());
  };
  CHECK(starts(pf.o, f.o));
  CHECK(starts(pb.dq, b.dq));
  CHECK(starts(pb.dk, b.dk));
  CHECK(starts(pb.dv, b.dv));
  CHECK(starts(pb.dg, b.dg));
}

TEST_CASE("the unit shows in the bits") {
  const Example x = make_example({1, 150, 1, 64, 64}, Gates::mild, 10);
  const Forward f = forward(x.shape, x.inputs(), hopper());
  CHECK(f.o == forward(x.shape, x.inputs(), find_unit("sm_90:wgmma.k16.f32.bf16")).o);
  CHECK(f.o != forward(x.shape, x.inputs(), find_unit("sm_80:mma.m16n8k16.f32.bf16")).o);
  CHECK(f.o != forward(x.shape, x.inputs(), find_unit("sm_90:mma.m16n8k8.f32.bf16")).o);
  CHECK_THROWS_AS(forward(x.shape, x.inputs(), find_unit("sm_90:wgmma.k32.f32.e4m3")), Error);
}

TEST_CASE("digests that nvfp4-gpu gla prints") {
  struct Case {
    Shape shape;
    Gates gates;
    uint64_t seed;
    const char *sha256;
  };
  // the words of an H200: golden/evidence/h200-hopper-gla.txt
  const Case cases[] = {
      {{1, 1, 1, 16, 16}, Gates::mild, 1, "4ce4af19edb96675"},
      {{2, 130, 3, 32, 16}, Gates::mild, 3, "440081da58086c5a"},
      {{1, 200, 2, 48, 80}, Gates::strong, 4, "550b9c06922f694c"},
      {{2, 257, 2, 64, 64}, Gates::resets, 5, "256388fa11641395"},
      {{1, 300, 2, 128, 256}, Gates::mild, 6, "137a221c98478343"},
  };
  for (const Case &c : cases) {
    CAPTURE(c.shape.length, c.shape.key, c.shape.value);
    const Example x = make_example(c.shape, c.gates, c.seed);
    const Forward f = forward(x.shape, x.inputs(), hopper());
    CHECK(digest(f, backward(x.shape, x.inputs(), x.grad_o, f, hopper())).substr(0, 16) == c.sha256);
  }
}

TEST_CASE("tensor-core GLA refuses what it cannot do") {
  for (const Shape &shape : {Shape{1, 4, 1, 24, 16}, Shape{1, 4, 1, 16, 272}, Shape{1, 0, 1, 16, 16}})
    CHECK_THROWS_AS(check(shape), Error);
  Example x = make_example({1, 4, 1, 16, 16}, Gates::mild, 1);
  x.v.pop_back();
  CHECK_THROWS_WITH(forward(x.shape, x.inputs(), hopper()), Catch::Contains("v needs 64 elements, got 63"));
  Example y = make_example({1, 4, 1, 16, 16}, Gates::mild, 1);
  Forward saved = forward(y.shape, y.inputs(), hopper());
  const std::vector<uint16_t> grad_o(size_t(y.shape.values()));
  const Unit &fp8 = find_unit("sm_90:wgmma.k32.f32.e4m3");
  CHECK_THROWS_AS(forward(y.shape, y.inputs(), fp8), Error);
  CHECK_THROWS_AS(backward(y.shape, y.inputs(), grad_o, saved, fp8), Error);
  CHECK_THROWS_AS(backward(x.shape, x.inputs(), grad_o, saved, hopper()), Error);
  saved.scores.pop_back();
  CHECK_THROWS_WITH(backward(y.shape, y.inputs(), grad_o, saved, hopper()),
                    Catch::Contains("what forward gave"));
}
