// SPDX-License-Identifier: Apache-2.0
// What the tests of mixers that run product by product share: a small model's step with what it showed, and
// single products by hand.
#pragma once
#include "nvfp4/emulator/numerics/elementary.hpp"
#include "nvfp4/reference_models/family/mixer_operators.hpp"
#include "nvfp4/reference_models/linear/operator_products.hpp"
#include "nvfp4/reference_models/model/model.hpp"
#include "tests/reference_models/linear/support.hpp"

#include <algorithm>
#include <map>

namespace nvfp4::test {

inline constexpr StepContext kStep{.seed = 11, .step = 4, .micro_batch = 1};

inline ModelConfig small_model(const char *family, int64_t key_dim = 64) {
  ModelConfig c = preset(find_family(family), "tiny");
  c.vocabulary = 61;
  c.hidden = 48;
  c.layers = 2;
  c.heads = 4;
  c.kv_heads = 2;
  c.key_dim = c.value_dim = key_dim;
  if (std::string_view(family) == "gsa") c.value_dim = c.hidden;
  c.intermediate = 80;
  c.init_std = 0.3; // logits that differ
  return c;
}

/// A built-in recipe with mixer rules that use one of its linears.
inline Recipe with_mixer_rules(const std::string &name, const std::string &linear,
                               std::vector<std::string> roles) {
  Recipe r = load_recipe(name);
  r.mixer_rules.push_back({.roles = std::move(roles), .use = linear});
  check_recipe(r, "test");
  return r;
}

/// A step of a model, with what it showed.
struct Step {
  std::unique_ptr<Backend<float>> backend;
  std::unique_ptr<OperandEngine> engine;
  Model<float> model;
  std::map<std::string, Floats> seen; // "0.attn.q_proj.output_grad", "0.attn.o_proj.input_grad"
  std::map<std::string, int> operators;
  float loss = 0;

  Step(const ModelConfig &c, const Recipe &recipe, int64_t batch, int64_t length, int threads = 1,
       std::optional<Isa> isa = {})
      : backend(make_cpu_backend(threads, isa)), engine(make_cpu_operand_engine(threads, isa)),
        model(*backend, engine.get(), c, recipe, batch, length, true) {
    initialise(model.parameters(), c, 5);
    model.parameters_changed();
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < batch * (length + 1); ++i)
      tokens.push_back(int32_t((i * i * 5 + i) % c.vocabulary));
    model.set_tokens(tokens);
    model.observer = [this](const LinearObservation<float> &o) {
      const int64_t n = o.rows * o.weight->out;
      seen[std::to_string(o.layer) + "." + std::string(o.role) + ".output_grad"].assign(o.output_grad,
                                                                                        o.output_grad + n);
    };
    model.tracer = [this](const std::string &module, StepTensor what, const std::vector<int64_t> &shape,
                          const float *data) {
      const auto is = [&](const char *end) { return module.ends_with(end); };
      if (what != StepTensor::output_grad || !(is(".gla") || is(".delta") || is(".gsa") || is(".scan")))
        return;
      seen[module + ".output_grad"].assign(data, data + shape[0] * shape[1] * shape[2]);
    };
    model.input_grad_observer = [this, batch, length](const LinearWeight<float> &w, const float *data) {
      seen[std::to_string(w.layer) + "." + w.role + ".input_grad"].assign(data, data + batch * length * w.in);
    };
  }
  void run() {
    model.forward(kStep);
    for (const Activation<float> &a : model.activations()) {
      int64_t n = 1;
      for (const int64_t s : a.shape) n *= s;
      seen[a.name].assign(a.data, a.data + n);
    }
    loss = float(model.loss(1.0));
    model.backward(kStep);
  }
  [[nodiscard]] uint64_t digest() {
    uint64_t h = bit_cast<uint32_t>(loss);
    for (int64_t i = 0; i < model.parameters().total(); ++i)
      h = splitmix64(h ^ bit_cast<uint32_t>(model.parameters().gradients()[i]));
    return h;
  }
};

/// Rows of one head out of (length, heads, dim).
inline Floats head_of(const Floats &x, int64_t sequence, int64_t length, int64_t heads, int64_t head,
                      int64_t dim) {
  Floats out;
  for (int64_t t = 0; t < length; ++t)
    for (int64_t d = 0; d < dim; ++d)
      out.push_back(x[size_t(((sequence * length + t) * heads + head) * dim + d)]);
  return out;
}

inline Floats transposed(const Floats &x, int64_t rows) {
  const int64_t cols = int64_t(x.size()) / rows;
  Floats out(x.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) out[size_t(c * rows + r)] = x[size_t(r * cols + c)];
  return out;
}

/// Sum of 32 strided partial sums and a butterfly.
inline float warp_sum(const Floats &x) {
  float p[32] = {};
  for (size_t i = 0; i < x.size(); ++i) p[i % 32] += x[i];
  for (int step = 16; step > 0; step /= 2)
    for (int l = 0; l < step; ++l) p[l] = p[l] + p[l + step];
  return p[0];
}

/// What the gates of block 0 read, which is `raw` where the recipe stores nothing.
inline const Floats &gate_input(const Step &step, const std::string &path, const Floats &raw) {
  const auto at = step.seen.find(path + "gate_input");
  return at == step.seen.end() ? raw : at->second;
}

inline Floats zeros(int64_t n) { return Floats(size_t(n), 0.0f); }

inline Floats rows_of(const Floats &x, int64_t first, int64_t n, int64_t width) {
  return Floats(x.begin() + first * width, x.begin() + (first + n) * width);
}

/// The key of an operand in block 0 (recipe/README.md): stream counts the heads' chunks and their four
/// sub-chunks.
inline RandomKey operator_key_by_hand(int number, int product, int use, int64_t stream) {
  return {splitmix64(kStep.seed) + ((1 + uint64_t(stream)) << 40) + 16 * uint64_t(number) +
              4 * uint64_t(product) + uint64_t(use),
          (uint64_t(kStep.step) << 24) + uint64_t(kStep.micro_batch)};
}

/// Decays (n, n + 1) of a chunk's gates: column 0 from its start, j + 1 from after token j.
inline Floats decays_by_hand(const Floats &g, int64_t n) {
  Floats d = zeros(n * (n + 1));
  for (int64_t j = 0; j <= n; ++j) {
    float sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (i >= j) sum = sum + g[size_t(i)];
      if (j <= i + 1) d[size_t(i * (n + 1) + j)] = numerics::exp(i >= j ? sum : 0.0f);
    }
  }
  return d;
}

/// Of pairs (n, n) those that gate t lets pass: sums over i >= t of sums over j < t, in increasing order.
inline Floats passed_by_hand(const Floats &pairs, int64_t n) {
  Floats passed = zeros(n), sums = zeros(n * n);
  for (int64_t i = 0; i < n; ++i) {
    float sum = 0;
    for (int64_t j = 0; j < i; ++j) sums[size_t(i * n + j)] = sum = sum + pairs[size_t(i * n + j)];
  }
  for (int64_t gate = 1; gate < n; ++gate)
    for (int64_t i = gate; i < n; ++i)
      passed[size_t(gate)] = passed[size_t(gate)] + sums[size_t(i * n + gate - 1)];
  return passed;
}

/// One product of the operator: FP32 as a chain of multiply-adds, or quantize and gemm; `added`: what it is
/// added to. Rows are padded for rotations along them as the linear layers' are.
inline Floats product(const GemmRecipe &g, Floats a, int64_t a_rows, Axis a_axis, RandomKey a_key, Floats b,
                      int64_t b_rows, Axis b_axis, RandomKey b_key, const Floats &added = {}) {
  if (g.a.format == OperandFormat::f32) {
    const Floats left = a_axis == Axis::row ? a : transposed(a, a_rows),
                 right = b_axis == Axis::row ? b : transposed(b, b_rows);
    const int64_t k = a_axis == Axis::row ? int64_t(a.size()) / a_rows : a_rows;
    const int64_t m = int64_t(left.size()) / k, n = int64_t(right.size()) / k;
    Floats y = added.empty() ? Floats(size_t(m * n), 0.0f) : added;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t q = 0; q < k; ++q)
          y[size_t(i * n + j)] =
              std::fma(left[size_t(i * k + q)], right[size_t(j * k + q)], y[size_t(i * n + j)]);
    return y;
  }
  a = in_bf16(a);
  b = in_bf16(b);
  const auto pad = [&](Floats &x, int64_t &rows, Axis axis) {
    if (!g.a.hadamard || axis == Axis::row) return;
    const int64_t cols = int64_t(x.size()) / rows;
    rows = (rows + 15) / 16 * 16;
    x.resize(size_t(rows * cols));
  };
  pad(a, a_rows, a_axis);
  pad(b, b_rows, b_axis);
  if (added.empty() || g.output == FormatId::f32)
    return product_by_hand(g, a, a_rows, a_axis, a_key, b, b_rows, b_axis, b_key, added);
  Floats y = product_by_hand(g, a, a_rows, a_axis, a_key, b, b_rows, b_axis, b_key);
  for (size_t i = 0; i < y.size(); ++i) y[i] = added[i] + y[i];
  return y;
}

/// FP32 products inside a mixer give the bits of its whole kernels, and so does who looks at them; `shown`
/// says how many matrices of an operator there are in a sequence of so many tokens.
template <class Shown> void check_fp32_products(const ModelConfig &config, const Shown &shown) {
  for (const int64_t length : {9, 64, 70, 150})
    for (const char *role : {"attn.av", "*"}) {
      CAPTURE(length, role);
      Recipe by_product = load_recipe("nvfp4");
      by_product.linears["f32"] = load_recipe("fp32").linears.at("f32");
      by_product.mixer_rules.push_back({.roles = {role}, .use = "f32"});
      Step whole(config, load_recipe("nvfp4"), 2, length), parts(config, by_product, 2, length);
      whole.run();
      parts.run();
      CHECK(parts.loss == whole.loss);
      CHECK(parts.digest() == whole.digest());
      Step watched(config, load_recipe("nvfp4"), 2, length);
      std::map<std::string, int64_t> seen;
      watched.model.observe_operators(
          [&](const LinearObservation<float> &o) { ++seen[std::string(o.role)]; });
      watched.run();
      CHECK(watched.digest() == whole.digest());
      for (const std::string &inside : mixer_operator_roles(*config.family)) {
        CAPTURE(inside);
        CHECK(seen[inside] == 2 * config.layers * shown(inside, length));
      }
    }
}

/// Products inside a mixer are the same on any number of threads and instruction set.
inline void check_same_everywhere(const ModelConfig &config) {
  const Recipe recipe = with_mixer_rules("nvfp4", "nvfp4", {"*"});
  const auto digest = [&](int threads, std::optional<Isa> isa = {}) {
    Step step(config, recipe, 1, 90, threads, isa);
    step.run();
    return step.digest();
  };
  const uint64_t expected = digest(1);
  CHECK(digest(3) == expected);
  for (const Isa isa : kIsas)
    if (supported(isa)) CHECK(digest(2, isa) == expected);
}

} // namespace nvfp4::test
