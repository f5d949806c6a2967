// SPDX-License-Identifier: Apache-2.0
// One layer at a time: exact products in FP64 on the host, the recipe's and BF16's on the device's engine.
#include "nvfp4/reference_models/slice/operators.hpp"
#include "nvfp4/reference_models/family/config.hpp"
#include "nvfp4/reference_models/family/mixer_operators.hpp"
#include "nvfp4/reference_models/linear/operator_products.hpp"
#include "nvfp4/reference_models/linear/product_recipe.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nvfp4::models {
namespace {

constexpr auto kProducts = enumerators<Product>();

/// On the host, rounded to BF16.
std::vector<double> operand(Backend<float> &backend, const float *data, int64_t n) {
  std::vector<double> out(static_cast<size_t>(n));
  const std::vector<float> values = to_host(backend, data, n);
  for (size_t i = 0; i < out.size(); ++i) out[i] = double(round_to_bf16(values[i]));
  return out;
}

std::vector<double> transposed(const std::vector<double> &x, int64_t rows, int64_t cols) {
  std::vector<double> out(x.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) out[size_t(c * rows + r)] = x[size_t(r * cols + c)];
  return out;
}

/// a (m, k) b (k, n).
std::vector<double> product(const std::vector<double> &a, const std::vector<double> &b, int64_t m, int64_t k,
                            int64_t n) {
  std::vector<double> out(size_t(m * n), 0.0);
#pragma omp parallel for
  for (int64_t i = 0; i < m; ++i) {
    double *const row = out.data() + i * n;
    for (int64_t j = 0; j < k; ++j) {
      const double factor = a[size_t(i * k + j)];
      const double *const from = b.data() + j * n;
      for (int64_t c = 0; c < n; ++c) row[c] += factor * from[c];
    }
  }
  return out;
}

double relative(double error, double reference, int64_t outputs) {
  if (outputs == 0) return std::numeric_limits<double>::quiet_NaN();
  return error == 0 && reference == 0 ? 0.0 : std::sqrt(error / reference);
}

/// Adds what is not finite, once a tensor; false if it is not.
bool note(std::vector<NotFinite> &list, std::span<const float> values, const std::string &tensor,
          StepTensor what, std::vector<int64_t> shape) {
  const std::optional<NotFinite> found = find_not_finite(values, tensor, what, std::move(shape));
  if (!found) return true;
  const auto same = [&](const NotFinite &n) { return n.tensor == tensor && n.what == what; };
  if (std::none_of(list.begin(), list.end(), same)) list.push_back(*found);
  return false;
}

OperatorOutputs run_in_mixer(Backend<float> &backend, OperandEngine &engine, const OperatorInput &o, const Recipe &recipe,
                             const StepContext &step) {
  const LinearWeight<float> &w = o.weight;
  const OperatorProducts products(backend, &engine, recipe.resolve(w.role, w.layer, w.layers), w.id);
  const OperatorMatrices of{o.rows, w.in, w.out, o.input, w.weight, o.output_grad, o.stream, o.weight_stream};
  OperatorOutputs result;
  for (const Product p : kProducts) {
    result.formats[size_t(p)] = std::string(to_string(gemm_of(products.recipe(), p).a.format));
    if (p != Product::fprop && o.output_grad == nullptr) continue;
    const Array<float> y(backend, p == Product::fprop   ? o.rows * w.out
                                   : p == Product::dgrad ? o.rows * w.in
                                                         : w.out * w.in);
    float *const to[] = {y.data()};
    products.run(step, p, {&of, 1}, to, p == Product::wgrad);
    result.values[size_t(p)] = to_host(backend, y.data(), y.size());
  }
  return result;
}

} // namespace

std::array<std::vector<double>, 3> exact_products(Backend<float> &backend, const OperatorInput &o) {
  const LinearWeight<float> &w = o.weight;
  const std::vector<double> x = operand(backend, o.input, o.rows * w.in),
                            weight = operand(backend, w.weight, w.out * w.in);
  std::array<std::vector<double>, 3> out;
  out[0] = product(x, transposed(weight, w.out, w.in), o.rows, w.in, w.out);
  if (w.bias != nullptr) {
    const std::vector<float> bias = to_host(backend, w.bias, w.out);
    for (size_t i = 0; i < out[0].size(); ++i) out[0][i] += double(bias[i % bias.size()]);
  }
  if (o.output_grad == nullptr) return out;
  const std::vector<double> dy = operand(backend, o.output_grad, o.rows * w.out);
  out[1] = product(dy, weight, o.rows, w.out, w.in);
  out[2] = product(transposed(dy, o.rows, w.out), x, w.out, o.rows, w.in);
  return out;
}

OperatorOutputs run_operator(Backend<float> &backend, OperandEngine &engine, const OperatorInput &o, const Recipe &recipe,
                             const StepContext &step) {
  if (mixer_operator_or_null(o.weight.role) != nullptr) return run_in_mixer(backend, engine, o, recipe, step);
  LinearWeight<float> w = o.weight;
  Array<float> y(backend, o.rows * w.out), dx(backend, o.rows * w.in), dw(backend, w.out * w.in);
  w.weight_grad = dw.data();
  w.bias_grad = nullptr;
  LinearGroup<float> layer(backend, &engine, {w}, recipe);
  layer.at_step(step.step);
  const LinearRecipe &linear = layer.recipe(0);
  float *const out[] = {y.data()};
  const float *const dy[] = {o.output_grad};
  const bool backward = o.output_grad != nullptr;
  if (linear.hcp.enabled) {
    // a choice falls due at the recipe's first step
    const StepContext first{step.seed, linear.hcp.start, 0, true};
    layer.forward(first, o.input, o.rows, out);
    if (backward && linear.hcp.dgrad) layer.backward(first, o.input, o.rows, dy, dx.data());
    backend.zero(dw.data(), size_t(dw.size()) * sizeof(float));
    if (o.hot && o.hot->indices.size() == layer.hot_channels(0).indices.size())
      layer.set_hot_channels(0, *o.hot);
  }
  StepContext then = step;
  then.training = false;
  layer.forward(then, o.input, o.rows, out);
  if (backward) layer.backward(then, o.input, o.rows, dy, dx.data());
  OperatorOutputs result;
  result.values[0] = to_host(backend, y.data(), y.size());
  if (backward) {
    result.values[1] = to_host(backend, dx.data(), dx.size());
    result.values[2] = to_host(backend, dw.data(), dw.size());
  }
  for (const Product p : kProducts) {
    const bool patched =
        linear.hcp.enabled && (p == Product::fprop || (p == Product::dgrad && linear.hcp.dgrad));
    result.formats[size_t(p)] = std::string(to_string(gemm_of(linear, p).a.format)) + (patched ? "+hcp" : "");
  }
  return result;
}

void ErrorSums::add(const ErrorSums &o) {
  against_bf16 += o.against_bf16;
  bf16 += o.bf16;
  against_exact += o.against_exact;
  exact += o.exact;
  outputs += o.outputs;
}

double ErrorSums::relative_to_bf16() const { return relative(against_bf16, bf16, outputs); }
double ErrorSums::relative_to_exact() const { return relative(against_exact, exact, outputs); }

double signal_to_noise(double relative_error) {
  return relative_error == 0 ? std::numeric_limits<double>::infinity() : -20 * std::log10(relative_error);
}

OperatorMeter::OperatorMeter(Backend<float> &backend, OperandEngine &engine, std::vector<Recipe> recipes,
                             std::vector<std::string> roles)
    : backend_(backend), engine_(engine), recipes_(std::move(recipes)), roles_(std::move(roles)),
      cells_(recipes_.size()), results_(recipes_.size()) {}

std::array<bool, 3> OperatorMeter::note_operands(const OperatorInput &o, const std::string &module) {
  const LinearWeight<float> &w = o.weight;
  const auto finite = [&](const float *data, StepTensor what, std::vector<int64_t> shape,
                          const char *part = "") {
    if (data == nullptr) return true;
    int64_t n = 1;
    for (const int64_t length : shape) n *= length;
    return note(operands_, to_host(backend_, data, n), module + part, what, std::move(shape));
  };
  const bool x = finite(o.input, StepTensor::input, {o.rows, w.in}),
             weight = finite(w.weight, StepTensor::weight, {w.out, w.in}),
             bias = finite(w.bias, StepTensor::weight, {w.out}, ".bias"),
             dy = finite(o.output_grad, StepTensor::output_grad, {o.rows, w.out});
  return {!x || !weight || !bias, !dy || !weight, !dy || !x};
}

void OperatorMeter::measure(const OperatorInput &input, const StepContext &step) {
  const LinearWeight<float> &w = input.weight;
  if (std::find(roles_.begin(), roles_.end(), w.role) == roles_.end()) roles_.push_back(w.role);
  static const Recipe kBf16 = [] {
    Recipe r = load_recipe("bf16");
    r.mixer_rules.push_back({.use = r.default_linear});
    return r;
  }();
  const std::array<std::vector<double>, 3> exact = exact_products(backend_, input);
  const OperatorOutputs bf16 = run_operator(backend_, engine_, input, kBf16, step);
  const std::string module = w.layer < w.layers ? block_path(w.layer) + w.role : w.role;
  const std::array<bool, 3> sick = note_operands(input, module);
  const std::array<StepTensor, 3> made = {StepTensor::output, StepTensor::input_grad,
                                          StepTensor::weight_grad};
  const std::array<std::vector<int64_t>, 3> shapes = {
      std::vector{input.rows, w.out}, {input.rows, w.in}, {w.out, w.in}};
  for (size_t i = 0; i < recipes_.size(); ++i) {
    const OperatorOutputs mine = run_operator(backend_, engine_, input, recipes_[i], step);
    for (const Product p : kProducts) {
      const std::vector<float> &y = mine.values[size_t(p)], &reference = bf16.values[size_t(p)];
      if (y.empty()) continue;
      ErrorSums sums;
      sums.outputs = int64_t(y.size());
      for (size_t j = 0; j < y.size(); ++j) {
        const double a = double(y[j]), b = double(reference[j]), e = exact[size_t(p)][j];
        sums.against_bf16 += (a - b) * (a - b);
        sums.bf16 += b * b;
        sums.against_exact += (a - e) * (a - e);
        sums.exact += e * e;
      }
      Cell &cell = cells_[i][{w.role, w.layer, p}];
      cell.sums.add(sums);
      cell.format = mine.formats[size_t(p)];
      const size_t k = size_t(p);
      if (sick[k])
        cell.finite = false;
      else if (!note(results_[i], y, module, made[k], shapes[k]) ||
               !note(results_[i], reference, "the bf16 reference of " + module, made[k], shapes[k]))
        cell.finite = false;
    }
  }
}

std::vector<OperatorError> OperatorMeter::errors(size_t recipe, bool by_layer) const {
  std::vector<OperatorError> out;
  for (const std::string &role : roles_)
    for (const Product p : kProducts) {
      OperatorError all{.role = role, .format = {}, .layer = -1, .product = p, .sums = {}, .layers = 0};
      std::vector<std::pair<std::string, int>> formats;
      bool counted = false;
      for (const auto &[key, cell] : cells_.at(recipe)) {
        if (key.role != role || key.product != p) continue;
        const ErrorSums sums = cell.finite ? cell.sums : ErrorSums{};
        if (by_layer) {
          out.push_back({role, cell.format, key.layer, p, sums, {}});
          if (!cell.finite) out.back().not_finite_layers.push_back(key.layer);
        }
        all.sums.add(sums);
        if (!cell.finite) all.not_finite_layers.push_back(key.layer);
        ++all.layers;
        if (cell.finite && !counted) { // formats are those of the layers in the sums, if there are any
          formats.clear();
          counted = true;
        }
        if (counted && !cell.finite) continue;
        const auto at = std::find_if(formats.begin(), formats.end(),
                                     [&, &format = cell.format](const auto &f) { return f.first == format; });
        if (at == formats.end())
          formats.emplace_back(cell.format, 1);
        else
          ++at->second;
      }
      if (by_layer || formats.empty()) continue;
      for (const auto &[format, n] : formats)
        all.format += (all.format.empty() ? "" : ", ") + format +
                      (formats.size() > 1 && n > 1 ? " x" + std::to_string(n) : "");
      out.push_back(all);
    }
  return out;
}

std::vector<NotFinite> OperatorMeter::not_finite(size_t recipe) const {
  std::vector<NotFinite> all = operands_;
  all.insert(all.end(), results_.at(recipe).begin(), results_.at(recipe).end());
  return all;
}

} // namespace nvfp4::models
