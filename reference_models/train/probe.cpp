// SPDX-License-Identifier: Apache-2.0
// Device tensors to host matrices, and those to the recorder. A tensor is measured under the recipe's FP4
// convention, or as if quantized to NVFP4 where the recipe keeps it in higher precision.
#include "nvfp4/reference_models/train/probe.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nvfp4::models {
namespace {

/// A device matrix on the host; copies only where it must.
class HostMatrix {
public:
  HostMatrix(Backend<float> &backend, const float *data, int64_t rows, int64_t cols)
      : rows_(rows), cols_(cols), data_(data) {
    if (backend.shares_memory()) return;
    copy_ = to_host(backend, data, rows * cols);
    data_ = copy_.data();
  }
  [[nodiscard]] MatrixView<const float> view() const { return {data_, rows_, cols_}; }

private:
  int64_t rows_, cols_;
  std::vector<float> copy_;
  const float *data_;
};

OperandInfo info_of(const OperandRecipe &operand, int block_rows) {
  OperandInfo info;
  info.quantized = operand.format != OperandFormat::f32 && operand.format != OperandFormat::bf16;
  if (info.quantized) info.convention = operand.convention;
  info.block_rows = info.quantized ? operand.block_rows : block_rows;
  return info;
}

bool is_linear(const std::string &role) {
  return std::ranges::find(linear_roles(), role) != linear_roles().end();
}

} // namespace

Probe::Probe(Model<float> &model, Backend<float> &backend, Recorder &recorder, int64_t step, int64_t tokens)
    : model_(model), backend_(backend), recorder_(recorder), rows_(model.batch() * model.length()) {
  if (tokens > 0) rows_ = std::min(rows_, tokens);
  recorder_.begin_step(step);
  model_.output_observer = [this](int64_t layer, std::string_view role, const float *output) {
    recorder_.output(int(layer), role, HostMatrix(backend_, output, rows_, model_.config().hidden).view());
  };
  model_.observer = [this](const LinearObservation<float> &o) {
    const int layer = o.role == "lm_head" ? -1 : int(o.layer);
    recorder_.tensor(layer, o.role, TensorKind::activation,
                     HostMatrix(backend_, o.input, std::min(o.rows, rows_), o.weight->in).view(),
                     info_of(o.recipe->fprop.a, 1));
    recorder_.tensor(layer, o.role, TensorKind::weight,
                     HostMatrix(backend_, o.weight->weight, o.weight->out, o.weight->in).view(),
                     info_of(o.recipe->fprop.b, 16));
    recorder_.tensor(layer, o.role, TensorKind::gradient,
                     HostMatrix(backend_, o.output_grad, std::min(o.rows, rows_), o.weight->out).view(),
                     info_of(o.recipe->dgrad.a, 1));
  };
  model_.observe_operators(
      [this](const LinearObservation<float> &o) {
        if (o.sequence > 0) return;
        const int64_t in = o.weight->in, out = o.weight->out;
        stack(o, TensorKind::activation, o.input, o.rows, in, info_of(o.recipe->fprop.a, 1));
        stack(o, TensorKind::weight, o.weight->weight, out, in, info_of(o.recipe->fprop.b, 1));
        stack(o, TensorKind::gradient, o.output_grad, o.rows, out, info_of(o.recipe->dgrad.a, 1));
      },
      true);
}

Probe::~Probe() {
  model_.observer = nullptr;
  model_.output_observer = nullptr;
  model_.observe_operators(nullptr);
}

void Probe::stack(const LinearObservation<float> &o, TensorKind kind, const float *data, int64_t rows,
                  int64_t cols, const OperandInfo &info) {
  Stack &s = stacks_[{o.layer, std::string(o.role), kind}];
  if (cols < s.cols) return;
  if (cols > s.cols) s = {cols, {}, info};
  const HostMatrix matrix(backend_, data, rows, cols);
  s.values.insert(s.values.end(), matrix.view().data, matrix.view().data + rows * cols);
}

void Probe::after_forward() {
  const ModelConfig &config = model_.config();
  std::vector<std::vector<float>> inner(size_t(config.layers));
  for (const Activation<float> &a : model_.activations()) {
    const auto [place_layer, role] = module_place(a.name);
    if (a.name == config.family->modules.embedding || (place_layer >= 0 && role.empty()))
      recorder_.residual(int(place_layer), HostMatrix(backend_, a.data, rows_, config.hidden).view());
    if (place_layer < 0 || role.empty()) continue;
    const auto layer = int(place_layer);
    const int64_t cols = a.shape.back(), rows = rows_;
    if (role == "mlp.swiglu") {
      inner[size_t(layer)] = channel_magnitudes(HostMatrix(backend_, a.data, rows, cols).view()).mean;
      continue;
    }
    if (!is_linear(role)) continue;
    const HostMatrix matrix(backend_, a.data, rows, cols);
    recorder_.output(layer, role, matrix.view());
    if (role == "attn.gk_proj.1") {
      const float *first = matrix.view().data, *last = first + rows * cols;
      const double nan = std::numeric_limits<double>::quiet_NaN(); // has no order
      const bool ordered = scan_finite({first, last}).nan == 0;
      const auto [least, greatest] = std::minmax_element(first, last);
      const double low = ordered ? double(*least) : nan, high = ordered ? double(*greatest) : nan;
      recorder_.gate(layer, low, high, ordered ? std::max(std::fabs(low), std::fabs(high)) : nan);
    }
  }
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    if (config.family->has_mlp()) {
      const std::string path = block_path(config, layer) + "mlp.";
      const auto weight = [&](const char *name) {
        return HostMatrix(backend_, model_.parameters().value(path + name + ".weight"), config.intermediate,
                          config.hidden);
      };
      const HostMatrix up = weight("up_proj"), gate = weight("gate_proj");
      const SwigluAlignment alignment = swiglu_alignment(up.view(), gate.view(), inner[size_t(layer)]);
      recorder_.swiglu(int(layer), alignment.mean_abs, alignment.p99_abs, alignment.weighted);
    }
    const std::vector<AttentionMoments> heads = model_.attention_moments(layer);
    if (heads.empty()) continue;
    double sink = 0, sink_heads = 0;
    double entropy = 0, largest = heads.front().largest, s1 = 0, s2 = 0, s3 = 0, s4 = 0;
    for (const AttentionMoments &h : heads) {
      entropy += h.entropy;
      largest = std::isnan(h.largest) || std::isnan(h.entropy) ? std::numeric_limits<double>::quiet_NaN()
                                                               : std::max(h.largest, largest);
      const double share = h.first / double(model_.length() - 1);
      sink += share / double(heads.size());
      sink_heads += (share > 0.3 ? 1.0 : 0.0) / double(heads.size());
      s1 += h.z1;
      s2 += h.z2;
      s3 += h.z3;
      s4 += h.z4;
    }
    const double length = double(model_.length()), n = double(heads.size()) * length * (length + 1) / 2;
    const double mean = s1 / n, variance = s2 / n - mean * mean;
    const double fourth =
        s4 / n - 4 * mean * s3 / n + 6 * mean * mean * s2 / n - 3 * mean * mean * mean * mean;
    recorder_.attention(int(layer), entropy / (double(heads.size()) * length), largest,
                        fourth / (variance * variance) - 3, sink, std::isnan(sink) ? sink : sink_heads);
  }
}

void Probe::finish() {
  for (const auto &[key, s] : stacks_) {
    const auto &[layer, role, kind] = key;
    recorder_.tensor(int(layer), role, kind, {s.values.data(), int64_t(s.values.size()) / s.cols, s.cols},
                     s.info);
  }
  stacks_.clear();
  recorder_.end_step();
}

} // namespace nvfp4::models
