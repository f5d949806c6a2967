// SPDX-License-Identifier: Apache-2.0
// Operands come from one pass under bf16, the same for every recipe, so that errors are a recipe's own.
#include "nvfp4/reference_models/lab/operators.hpp"

#include "nvfp4/reference_models/lab/operand_error.hpp"
#include "nvfp4/reference_models/linear/product_recipe.hpp"
#include "nvfp4/reference_models/slice/step.hpp"
#include "nvfp4/reference_models/train/checkpoint.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::models {
namespace {

constexpr auto kProducts = enumerators<Product>();
constexpr uint64_t kFirstSeed = 1000; ///< of draws: 1000, 1001, ...

std::vector<float> bf16_gaussian(int64_t count, uint64_t seed, uint64_t number) {
  std::vector<float> x = gaussian_values(count, seed, number);
  for (float &v : x) v = round_to_bf16(v);
  return x;
}

/// An operator's operands on the device.
struct OnDevice {
  Array<float> x, weight, dy;
  OperatorInput input;

  OnDevice(Backend<float> &backend, const LabOperator &o)
      : x(backend, int64_t(o.x.size())), weight(backend, int64_t(o.weight.size())),
        dy(backend, int64_t(o.dy.size())) {
    const auto upload = [&](const Array<float> &to, const std::vector<float> &from) {
      backend.upload(to.data(), from.data(), from.size() * sizeof(float));
    };
    upload(x, o.x);
    upload(weight, o.weight);
    upload(dy, o.dy);
    LinearWeight<float> &w = input.weight;
    w.role = o.role;
    w.layer = o.layer;
    w.layers = o.layers;
    w.in = o.in;
    w.out = o.out;
    w.id = o.id;
    w.weight = weight.data();
    input.rows = o.rows;
    input.input = x.data();
    input.output_grad = dy.data();
  }
};

Session session_of(const TrainedModel &m, const Recipe &recipe, const StepInput &batch,
                   const std::string &device, int threads) {
  Session session = make_session(device, threads, m.config, recipe, batch.batch, batch.sequence, true);
  load_checkpoint(read_checkpoint(m.checkpoint), session.model->parameters(), m.config, false);
  session.model->parameters_changed();
  return session;
}

std::vector<float> gradients_of(const Session &session) {
  const Parameters<float> &p = session.model->parameters();
  std::vector<float> all;
  for (const ParameterSpec &spec : p.list()) {
    const std::vector<float> g = to_host(*session.backend, p.gradient(spec.name), spec.count());
    all.insert(all.end(), g.begin(), g.end());
  }
  session.backend->zero(p.gradients(), size_t(p.total()) * sizeof(float));
  return all;
}

} // namespace

std::vector<LabOperator> record_operators(const TrainedModel &m, size_t batch, const std::string &device,
                                          int threads) {
  const StepInput &input = m.batches.at(batch);
  const Session session = session_of(m, load_recipe("bf16"), input, device, threads);
  std::vector<LabOperator> out;
  session.model->observer = [&](const LinearObservation<float> &o) {
    const LinearWeight<float> &w = *o.weight;
    if (w.layer >= w.layers) return; // the head
    const auto copy = [&](const float *data, int64_t n) { return to_host(*session.backend, data, n); };
    out.push_back({w.role, w.layer, w.layers, w.id, o.rows, w.in, w.out, copy(o.input, o.rows * w.in),
                   copy(w.weight, w.out * w.in), copy(o.output_grad, o.rows * w.out)});
  };
  (void)accumulate_gradients(*session.model, input);
  return out;
}

LabOperator gaussian_operator(int64_t rows, int64_t in, int64_t out, uint64_t seed) {
  return {"attn.q_proj",
          0,
          100,
          0,
          rows,
          in,
          out,
          bf16_gaussian(rows * in, seed, 0),
          bf16_gaussian(out * in, seed, 1),
          bf16_gaussian(rows * out, seed, 2)};
}

LabDevice make_lab_device(const std::string &device, int threads) {
  Session parts = make_device(device, threads);
  return {std::move(parts.backend), std::move(parts.engine)};
}

ProductMeter::ProductMeter(LabDevice &device, const std::vector<LabOperator> &operators)
    : device_(device), operators_(operators) {
  for (const LabOperator &o : operators_)
    exact_.push_back(exact_products(*device_.backend, OnDevice(*device_.backend, o).input));
}

void ProductMeter::measure(Measures &to, const std::string &prefix, const Recipe &recipe, int draws) {
  std::array<std::map<std::string, Spread>, 3> by_role;
  for (size_t i = 0; i < operators_.size(); ++i) {
    const LabOperator &o = operators_[i];
    const OnDevice on(*device_.backend, o);
    const LinearRecipe linear = recipe.resolve(o.role, o.layer, o.layers);
    std::array<int, 3> counts{};
    std::vector<Draws> all;
    for (const Product p : kProducts) {
      counts[size_t(p)] = is_stochastic(gemm_of(linear, p)) ? draws : 1;
      all.emplace_back(exact_[i][size_t(p)]);
    }
    for (int d = 0; d < std::ranges::max(counts); ++d) {
      const OperatorOutputs y = run_operator(*device_.backend, *device_.engine, on.input, recipe,
                                             {kFirstSeed + uint64_t(d), 0, 0, false});
      for (size_t p = 0; p < 3; ++p)
        if (d < counts[p]) all[p].add(y.values[p]);
    }
    for (size_t p = 0; p < 3; ++p) by_role[p][o.role].add(all[p].spread());
  }
  for (const Product p : kProducts) {
    const std::string name = prefix + "/" + std::string(to_string(p)) + "/";
    Spread whole;
    for (const auto &[role, spread] : by_role[size_t(p)]) {
      whole.add(spread);
      to.add(name + role + "/error", spread.error());
      to.add(name + role + "/bias", spread.bias());
    }
    to.add(name + "error", whole.error());
    to.add(name + "bias", whole.bias());
    to.add(name + "deviation", whole.deviation());
    to.add(name + "gain", whole.gain());
    to.add(name + "mean64", whole.of_average(64));
  }
}

Measures gaussian_figures(int seeds, int draws, const std::string &device, int threads,
                          const std::function<void(double)> &progress) {
  struct Variation {
    const char *name;
    void (*change)(LinearRecipe &);
  };
  static constexpr Variation kVariations[] = {
      {"nvfp4", [](LinearRecipe &) {}},
      {"nearest",
       [](LinearRecipe &l) {
         for (GemmRecipe *g : {&l.dgrad, &l.wgrad}) g->a.rounding = g->b.rounding = ElementRounding::nearest;
       }},
      {"1x16", [](LinearRecipe &l) { l.dgrad.b.block_rows = 1; }},
      {"unrotated", [](LinearRecipe &l) { l.wgrad.a.hadamard = l.wgrad.b.hadamard = false; }}};
  // as published: how large amax is, and so where block scales stand between powers of two, follows from the
  // sizes
  constexpr int64_t kRows = 1024, kIn = 2048, kOut = 1408;
  Measures out;
  LabDevice parts = make_lab_device(device, threads);
  double done = 0;
  for (int seed = 0; seed < seeds; ++seed) {
    const std::vector<LabOperator> one = {gaussian_operator(kRows, kIn, kOut, uint64_t(seed) + 1)};
    ProductMeter meter(parts, one);
    for (const Variation &v : kVariations) {
      Recipe recipe = load_recipe("nvfp4");
      v.change(recipe.linears.at(recipe.default_linear));
      meter.measure(out, std::string("figure/") + v.name, recipe, draws);
      measure_operands(out, std::string("figure/") + v.name, recipe, one, threads);
      if (progress) progress(++done / double(seeds) / double(std::size(kVariations)));
    }
  }
  return out;
}

void measure_operands(Measures &to, const std::string &name, const Recipe &recipe,
                      const std::vector<LabOperator> &operators, int threads) {
  struct Side {
    const char *name;
    Product product;
    OperandRecipe GemmRecipe::*operand;
    std::vector<float> LabOperator::*data;
    Axis axis;
    RandomUse use;
  };
  static constexpr Side kSides[] = {
      {"fprop.x", Product::fprop, &GemmRecipe::a, &LabOperator::x, Axis::row, RandomUse::operand_a},
      {"fprop.w", Product::fprop, &GemmRecipe::b, &LabOperator::weight, Axis::row, RandomUse::operand_b},
      {"dgrad.dy", Product::dgrad, &GemmRecipe::a, &LabOperator::dy, Axis::row, RandomUse::operand_a},
      {"dgrad.w", Product::dgrad, &GemmRecipe::b, &LabOperator::weight, Axis::col, RandomUse::operand_b},
      {"wgrad.dy", Product::wgrad, &GemmRecipe::a, &LabOperator::dy, Axis::col, RandomUse::operand_a},
      {"wgrad.x", Product::wgrad, &GemmRecipe::b, &LabOperator::x, Axis::col, RandomUse::operand_b}};
  for (const Side &side : kSides) {
    QuantizeStatistics all;
    for (const LabOperator &o : operators) {
      const LinearRecipe linear = recipe.resolve(o.role, o.layer, o.layers);
      const std::vector<float> &data = o.*side.data;
      const int64_t cols = side.data == &LabOperator::dy ? o.out : o.in;
      const OperandRecipe &operand = gemm_of(linear, side.product).*side.operand;
      all.merge(operand_error(operand, linear.source,
                              {data.data(), int64_t(data.size()) / cols, cols}, side.axis,
                              random_key(kFirstSeed, o.id, side.product, side.use, 0, 0), threads,
                              rotation_signs(operand.hadamard_signs, kFirstSeed, side.product, 0)));
    }
    write_error(all, to, name + "/" + side.name);
  }
}

void measure_presets(Measures &to, const std::vector<LabOperator> &operators, int threads) {
  struct Kind {
    const char *name;
    std::vector<float> LabOperator::*data;
    int64_t LabOperator::*cols;
  };
  static constexpr Kind kKinds[] = {{"activation", &LabOperator::x, &LabOperator::in},
                                    {"weight", &LabOperator::weight, &LabOperator::in},
                                    {"gradient", &LabOperator::dy, &LabOperator::out}};
  for (const Convention &c : conventions())
    for (const bool hadamard : {false, true}) {
      if (hadamard && !c.can.hadamard) continue;
      const OperandRecipe operand{.convention = std::string(c.name), .hadamard = hadamard};
      for (const Kind &kind : kKinds) {
        QuantizeStatistics all;
        const LabOperator *before = nullptr;
        for (const LabOperator &o : operators) {
          const std::vector<float> &data = o.*kind.data;
          const bool again = before != nullptr && kind.data == &LabOperator::x && before->x == data;
          before = &o;
          if (again) continue;
          const int64_t cols = o.*kind.cols;
          all.merge(operand_error(operand, FormatId::bf16,
                                  {data.data(), std::min(kPresetRows, int64_t(data.size()) / cols), cols},
                                  Axis::row, {}, threads));
        }
        write_error(all, to, "preset/" + std::string(c.name) + (hadamard ? "+hadamard" : "") + "/" + kind.name);
      }
    }
}

void measure_gradient(Measures &to, const std::string &label, const Recipe &recipe, const TrainedModel &m,
                      size_t batch, int draws, const std::string &device, int threads) {
  SliceStep step;
  static_cast<StepInput &>(step) = m.batches.at(batch);
  const Session exact = session_of(m, load_recipe("fp32"), step, device, threads);
  (void)accumulate_gradients(*exact.model, step);
  const std::vector<float> reference = gradients_of(exact);
  const Session session = session_of(m, recipe, step, device, threads);
  complete_hot_channels(*session.model, recipe, step, {});
  Draws all(std::vector<double>(reference.begin(), reference.end()));
  bool stochastic = false;
  for (const auto &[name, linear] : recipe.linears)
    for (const Product p : kProducts) stochastic = stochastic || is_stochastic(gemm_of(linear, p));
  for (int d = 0; d < (stochastic ? draws : 1); ++d) {
    step.seed = kFirstSeed + uint64_t(d); // of the random words: the tokens are read
    (void)accumulate_gradients(*session.model, step);
    all.add(gradients_of(session));
  }
  const Spread s = all.spread();
  const std::string name = "gradient/" + label + "/";
  to.add(name + "error", s.error());
  to.add(name + "bias", s.bias());
  to.add(name + "deviation", s.deviation());
  // |m|^2 = |m - e|^2 + 2 <m, e> - |e|^2
  to.add(name + "cosine", s.along / std::sqrt(s.reference * (s.of_mean + 2 * s.along - s.reference)));
}

} // namespace nvfp4::models
