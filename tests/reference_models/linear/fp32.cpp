// SPDX-License-Identifier: Apache-2.0
// The fp32 recipe in both precisions against plain loops, and what groups refuse.
#include "tests/reference_models/linear/support.hpp"

namespace nvfp4::test {
namespace {

template <class T> std::vector<T> random_values(int64_t n, uint64_t seed) {
  const Floats f = normal(n, 1, seed);
  return {f.begin(), f.end()};
}

template <class T> void compare_with_loops(Backend<T> &backend, const Recipe &recipe) {
  const int64_t rows = 21, in = 37, outs[] = {19, 40};
  const std::vector<T> x = random_values<T>(rows * in, 1);
  std::vector<T> w[2], b[2], dw[2], db[2], y[2], dy[2], dx(x.size());
  std::vector<LinearWeight<T>> members;
  for (size_t i = 0; i < 2; ++i) {
    w[i] = random_values<T>(outs[i] * in, 2 + i);
    b[i] = random_values<T>(outs[i], 4 + i);
    dw[i] = random_values<T>(outs[i] * in, 6 + i);
    db[i] = random_values<T>(outs[i], 8 + i);
    dy[i] = random_values<T>(rows * outs[i], 10 + i);
    y[i].resize(size_t(rows * outs[i]));
    members.push_back({.role = "mlp.up_proj",
                       .layer = 0,
                       .layers = 1,
                       .in = in,
                       .out = outs[i],
                       .weight = w[i].data(),
                       .bias = i == 1 ? b[i].data() : nullptr,
                       .weight_grad = dw[i].data(),
                       .bias_grad = i == 1 ? db[i].data() : nullptr,
                       .id = i});
  }
  LinearGroup<T> group(backend, nullptr, members, recipe);
  const std::vector<T> dw_before[2] = {dw[0], dw[1]};
  const std::vector<T> db_before = db[1];
  T *const to[] = {y[0].data(), y[1].data()};
  const T *const from[] = {dy[0].data(), dy[1].data()};
  group.forward({}, x.data(), rows, to);
  group.backward({}, x.data(), rows, from, dx.data());
  bool same = true;
  std::vector<T> expected_dx(x.size(), T(0));
  for (size_t i = 0; i < 2; ++i) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < outs[i]; ++j) {
        T acc = 0;
        for (int64_t q = 0; q < in; ++q) acc = std::fma(x[size_t(r * in + q)], w[i][size_t(j * in + q)], acc);
        if (i == 1) acc = acc + b[i][size_t(j)];
        same = same && acc == y[i][size_t(r * outs[i] + j)];
      }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t q = 0; q < in; ++q)
        for (int64_t j = 0; j < outs[i]; ++j) {
          T &acc = expected_dx[size_t(r * in + q)];
          acc = std::fma(dy[i][size_t(r * outs[i] + j)], w[i][size_t(j * in + q)], acc);
        }
    for (int64_t j = 0; j < outs[i]; ++j)
      for (int64_t q = 0; q < in; ++q) {
        T acc = dw_before[i][size_t(j * in + q)];
        for (int64_t r = 0; r < rows; ++r)
          acc = std::fma(dy[i][size_t(r * outs[i] + j)], x[size_t(r * in + q)], acc);
        same = same && acc == dw[i][size_t(j * in + q)];
      }
  }
  CHECK(same);
  CHECK(dx == expected_dx);
  for (int64_t j = 0; j < outs[1]; ++j) {
    double sum = double(db_before[size_t(j)]);
    for (int64_t r = 0; r < rows; ++r) sum += double(dy[1][size_t(r * outs[1] + j)]);
    CHECK(double(db[1][size_t(j)]) == Approx(sum).margin(1e-5));
  }
}

} // namespace

TEST_CASE("fp32 layers are plain chains of fused multiply-adds", "[linear]") {
  compare_with_loops<float>(*make_cpu_backend(2), load_recipe("fp32"));
  compare_with_loops<double>(*make_double_backend(2), load_recipe("fp32"));
}

TEST_CASE("groups refuse what they cannot do with one line", "[linear]") {
  const auto doubles = make_double_backend(1);
  const auto floats = make_cpu_backend(1);
  const LinearWeight<double> d{.role = "attn.q_proj", .layers = 1, .in = 16, .out = 16};
  CHECK_THROWS_WITH((LinearGroup<double>(*doubles, nullptr, {d}, uniform_recipe("bf16", "bf16"))),
                    Catch::Contains("double precision"));
  const LinearWeight<float> f{.role = "attn.q_proj", .layers = 1, .in = 16, .out = 16};
  CHECK_THROWS_WITH((LinearGroup<float>(*floats, nullptr, {f}, uniform_recipe("bf16", "bf16"))),
                    Catch::Contains("operand engine"));
  LinearWeight<float> other = f;
  other.in = 32;
  CHECK_THROWS_WITH((LinearGroup<float>(*floats, nullptr, {f, other}, load_recipe("fp32"))),
                    Catch::Contains("share"));
  CHECK_THROWS_WITH((LinearGroup<float>(*floats, nullptr, {f}, load_recipe("chon"))),
                    Catch::Contains("for_family"));
}

TEST_CASE("a group may mix f32 and quantized members", "[linear]") {
  Recipe recipe = uniform_recipe("nvfp4", "nvfp4");
  recipe.linears["f32"] = load_recipe("fp32").linears.at("f32");
  recipe.rules = {{.roles = {"attn.q_proj"}, .use = "nvfp4"}, {.roles = {"attn.k_proj"}, .use = "f32"}};
  Group g(recipe, 32, 64, {48, 32});
  std::vector<LinearWeight<float>> members(g.layers->members().begin(), g.layers->members().end());
  members[1].role = "attn.k_proj";
  g.layers = std::make_unique<LinearGroup<float>>(*g.backend, g.engine.get(), members, recipe);
  g.forward({});
  g.backward({});
  const std::vector<double> y = exact_product(g.x, g.weights[1], 64);
  double worst = 0;
  for (size_t i = 0; i < y.size(); ++i) worst = std::fmax(worst, std::fabs(y[i] - double(g.y[1][i])));
  CHECK(worst < 1e-5); // the f32 member is not quantized
  Group alone(uniform_recipe("nvfp4", "nvfp4"), 32, 64, {48});
  alone.forward({});
  CHECK(same_bits(alone.y[0], g.y[0]));
  alone.backward({});
  Floats dx = alone.dx;
  for (int64_t r = 0; r < 32; ++r)
    for (int64_t q = 0; q < 64; ++q)
      for (int64_t j = 0; j < 32; ++j)
        dx[size_t(r * 64 + q)] =
            std::fma(g.dy[1][size_t(r * 32 + j)], g.weights[1][size_t(j * 64 + q)], dx[size_t(r * 64 + q)]);
  CHECK(same_bits(g.dx, dx));
}

} // namespace nvfp4::test
