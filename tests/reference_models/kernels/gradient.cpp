// SPDX-License-Identifier: Apache-2.0
// The backward kernels of norms, gates, SwiGLU, embedding, cross-entropy and column sums against central
// differences in FP64.
#include "tests/reference_models/kernels/support.hpp"

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

struct Matrix {
  int64_t rows, cols;
};
const Matrix kMatrices[] = {{1, 1}, {3, 15}, {17, 64}, {65, 33}, {130, 7}, {33, 130}};

/// What AccumulateColumns makes of the terms of a weight's gradient.
Reals column_sums(Backend<double> &backend, const Reals &terms, int64_t cols) {
  Reals sums = zeros<double>(cols);
  backend.run(AccumulateColumns<double>{int64_t(terms.size()) / cols, cols, terms.data(), sums.data()});
  return sums;
}

} // namespace

TEST_CASE("RMSNorm") {
  const auto backend = make_double_backend(1);
  for (const auto &[m, n] : kMatrices) {
    const int64_t rows = m,
                  cols = n; // for lambdas: clang 16 captures no structured binding where OpenMP is on
    CAPTURE(rows, cols);
    Random random(1);
    const double epsilon = 1e-2;
    Reals x = random.values(rows * cols), weight = random.values(cols, 0.5, 1.5);
    const Reals dy = random.values(rows * cols), residual = random.values(rows * cols);
    Reals y(x.size()), rstd = zeros<double>(rows), dx(x.size()), with_residual = residual, terms(x.size());
    const auto loss = [&] {
      backend->run(
          RmsNormForward<double>{rows, cols, epsilon, x.data(), weight.data(), y.data(), rstd.data()});
      return dot(y, dy);
    };
    loss();
    backend->run(RmsNormBackward<double>{rows, cols, dy.data(), x.data(), weight.data(), rstd.data(), nullptr,
                                         dx.data(), terms.data()});
    backend->run(RmsNormBackward<double>{rows, cols, dy.data(), x.data(), weight.data(), rstd.data(),
                                         with_residual.data(), with_residual.data(), terms.data()});
    check_gradients(loss, {{"x", &x, dx}, {"weight", &weight, column_sums(*backend, terms, cols)}}, random);
    for (size_t i = 0; i < dx.size(); ++i) CHECK(with_residual[i] == residual[i] + dx[i]);
  }
}

TEST_CASE("RMSNorm with a swish gate") {
  const auto backend = make_double_backend(1);
  for (const auto &[m, n] : kMatrices) {
    const int64_t rows = m, cols = n;
    CAPTURE(rows, cols);
    Random random(2);
    Reals x = random.values(rows * cols), weight = random.values(cols, 0.5, 1.5),
          gate = random.values(rows * cols, -4, 4);
    const Reals dy = random.values(rows * cols);
    Reals y(x.size()), rstd = zeros<double>(rows), dx(x.size()), dgate(x.size()), terms(x.size());
    const auto loss = [&] {
      backend->run(GatedNormForward<double>{rows, cols, 1e-2, x.data(), weight.data(), gate.data(), y.data(),
                                            rstd.data()});
      return dot(y, dy);
    };
    loss();
    backend->run(GatedNormBackward<double>{rows, cols, dy.data(), x.data(), weight.data(), gate.data(),
                                           rstd.data(), dx.data(), dgate.data(), terms.data()});
    check_gradients(
        loss,
        {{"x", &x, dx}, {"gate", &gate, dgate}, {"weight", &weight, column_sums(*backend, terms, cols)}},
        random);
  }
}

TEST_CASE("SwiGLU") {
  const auto backend = make_double_backend(1);
  for (const int64_t n : {1, 15, 4096, 4097, 9000}) {
    CAPTURE(n);
    Random random(3);
    Reals gate = random.values(n, -6, 6), up = random.values(n, -2, 2), h = zeros<double>(n), dgate = h,
          dup = h;
    const Reals dh = random.values(n);
    const auto loss = [&] {
      backend->run(SwigluForward<double>{n, gate.data(), up.data(), h.data()});
      return dot(h, dh);
    };
    loss();
    backend->run(SwigluBackward<double>{n, dh.data(), gate.data(), up.data(), dgate.data(), dup.data()});
    check_gradients(loss, {{"gate", &gate, dgate}, {"up", &up, dup}}, random);
    loss();
    CHECK(h[0] == Approx(gate[0] / (1 + std::exp(-gate[0])) * up[0]).epsilon(1e-14));
  }
}

TEST_CASE("GLA's gate") {
  const auto backend = make_double_backend(1);
  const int64_t n = 4100;
  Random random(4);
  Reals x = random.values(n, -30, 30), g = zeros<double>(n), dx = g;
  const Reals dg = random.values(n);
  const auto loss = [&] {
    backend->run(GateForward<double>{n, x.data(), g.data(), 16.0});
    return dot(g, dg);
  };
  loss();
  for (size_t i = 0; i < x.size(); ++i)
    CHECK(g[i] == Approx(-std::log1p(std::exp(-x[i])) / 16).epsilon(1e-13).margin(1e-300));
  backend->run(GateBackward<double>{n, dg.data(), x.data(), dx.data(), 16.0});
  check_gradients(loss, {{"x", &x, dx}}, random);
}

TEST_CASE("cross-entropy") {
  const auto backend = make_double_backend(1);
  for (const auto &[m, n] : kMatrices) {
    const int64_t rows = m, vocabulary = n;
    if (vocabulary == 1) continue; // the loss is 0
    CAPTURE(rows, vocabulary);
    Random random(5);
    Reals logits = random.values(rows * vocabulary, -5, 5), losses = zeros<double>(rows),
          dlogits(logits.size());
    std::vector<int32_t> targets;
    Reals weights;
    for (int64_t r = 0; r < rows; ++r) {
      targets.push_back(int32_t(random.below(vocabulary)));
      weights.push_back(r % 3 == 2 ? 0.0 : 1.0);
    }
    const double scale = 1.0 / double(rows);
    backend->run(CrossEntropy<double>{rows, vocabulary, logits.data(), targets.data(), weights.data(), scale,
                                      losses.data(), dlogits.data()});
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t j = 0; j < vocabulary; ++j) sum += std::exp(logits[size_t(r * vocabulary + j)]);
      const double z = logits[size_t(r * vocabulary + targets[size_t(r)])];
      CHECK(losses[size_t(r)] == Approx(std::log(sum) - z).epsilon(1e-12));
    }
    const auto loss = [&] {
      backend->run(CrossEntropy<double>{rows, vocabulary, logits.data(), targets.data(), weights.data(),
                                        scale, losses.data(), nullptr});
      return scale * dot(losses, weights);
    };
    check_gradients(loss, {{"logits", &logits, dlogits}}, random);
    Reals in_place = logits;
    backend->run(CrossEntropy<double>{rows, vocabulary, in_place.data(), targets.data(), weights.data(),
                                      scale, losses.data(), in_place.data()});
    CHECK(in_place == dlogits);
  }
}

TEST_CASE("embedding") {
  const auto backend = make_double_backend(1);
  const int64_t rows = 130, cols = 33, vocabulary = 20;
  Random random(6);
  Reals table = random.values(vocabulary * cols), y = zeros<double>(rows * cols);
  const Reals dy = random.values(rows * cols), start = random.values(vocabulary * cols);
  std::vector<int32_t> tokens, starts, positions;
  for (int64_t r = 0; r < rows; ++r)
    tokens.push_back(int32_t(random.below(vocabulary - 2))); // two never occur
  for (int32_t v = 0; v < vocabulary; ++v) {
    starts.push_back(int32_t(positions.size()));
    for (size_t r = 0; r < tokens.size(); ++r)
      if (tokens[r] == v) positions.push_back(int32_t(r));
  }
  starts.push_back(int32_t(positions.size()));
  const auto loss = [&] {
    backend->run(EmbeddingForward<double>{rows, cols, tokens.data(), table.data(), y.data()});
    return dot(y, dy);
  };
  loss();
  Reals gradient = start, zero(table.size());
  backend->run(EmbeddingBackward<double>{vocabulary, cols, starts.data(), positions.data(), dy.data(),
                                         gradient.data()});
  backend->run(
      EmbeddingBackward<double>{vocabulary, cols, starts.data(), positions.data(), dy.data(), zero.data()});
  check_gradients(loss, {{"table", &table, zero}}, random);
  for (size_t i = 0; i < start.size(); ++i) CHECK(gradient[i] == Approx(start[i] + zero[i]).margin(1e-14));
}

TEST_CASE("a wrong gradient is noticed") {
  // the check itself: x^2 + y with a gradient that is wrong by one part in a million
  Random random(7);
  Reals x = random.values(10, 1, 2);
  const auto error = [&](double factor) {
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double start = x[i];
      const double measured = derivative([&](double t) { return (start + t) * (start + t); }, 1e-3);
      worst = std::fmax(worst, std::fabs(measured - 2 * start * factor) / (2 * start));
    }
    return worst;
  };
  CHECK(error(1.0) < 1e-11);
  CHECK(error(1.0 + 1e-6) > 1e-7);
}
