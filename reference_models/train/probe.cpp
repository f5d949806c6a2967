// SPDX-License-Identifier: Apache-2.0
// Device tensors to host matrices, and those to the recorder. A tensor is measured under the recipe's FP4
// convention, or as if quantized to NVFP4 where the recipe keeps it in higher precision.
#include "nvfp4/reference_models/train/probe.hpp"

#include <algorithm>
#include <cmath>

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

/// "model.layers.3.attn.q_proj" -> 3 and "attn.q_proj"; false for tensors outside the layers.
bool split(const std::string &name, int &layer, std::string &op) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return false;
  const size_t dot = name.find('.', kPrefix.size());
  if (dot == std::string::npos) return false;
  layer = std::stoi(name.substr(kPrefix.size(), dot - kPrefix.size()));
  op = name.substr(dot + 1);
  if (op.starts_with("self_attn.")) op = op.substr(5);
  return true;
}

/// The second of GLA's gk_proj layers has the name of both.
std::string role_of(const std::string &op) { return op == "attn.gk_proj" ? "attn.gk_proj.1" : op; }

bool is_linear_output(const std::string &op) {
  return std::ranges::find(linear_roles(), role_of(op)) != linear_roles().end();
}

} // namespace

Probe::Probe(Model<float> &model, Backend<float> &backend, Recorder &recorder, int64_t step)
    : model_(model), backend_(backend), recorder_(recorder) {
  recorder_.begin_step(step);
  const int64_t rows = model.batch() * model.length();
  model_.output_observer = [this, rows](int64_t layer, std::string_view role, const float *output) {
    recorder_.output(int(layer), role, HostMatrix(backend_, output, rows, model_.config().hidden).view());
  };
  model_.observer = [this](const LinearObservation<float> &o) {
    const int layer = o.role == "lm_head" ? -1 : int(o.layer);
    recorder_.tensor(layer, o.role, TensorKind::activation,
                     HostMatrix(backend_, o.input, o.rows, o.weight->in).view(),
                     info_of(o.recipe->fprop.a, 1));
    recorder_.tensor(layer, o.role, TensorKind::weight,
                     HostMatrix(backend_, o.weight->weight, o.weight->out, o.weight->in).view(),
                     info_of(o.recipe->fprop.b, 16));
    recorder_.tensor(layer, o.role, TensorKind::gradient,
                     HostMatrix(backend_, o.output_grad, o.rows, o.weight->out).view(),
                     info_of(o.recipe->dgrad.a, 1));
  };
}

Probe::~Probe() {
  model_.observer = nullptr;
  model_.output_observer = nullptr;
}

void Probe::after_forward() {
  const ModelConfig &config = model_.config();
  std::vector<std::vector<float>> inner(size_t(config.layers));
  for (const Activation<float> &a : model_.activations()) {
    int layer = 0;
    std::string op;
    if (!split(a.name, layer, op)) continue;
    const int64_t cols = a.shape.back(), rows = model_.batch() * model_.length();
    if (op == "mlp.swiglu") {
      inner[size_t(layer)] = channel_magnitudes(HostMatrix(backend_, a.data, rows, cols).view()).mean;
      continue;
    }
    if (!is_linear_output(op)) continue;
    const HostMatrix matrix(backend_, a.data, rows, cols);
    recorder_.output(layer, role_of(op), matrix.view());
    if (op == "attn.gk_proj") {
      const float *first = matrix.view().data, *last = first + rows * cols;
      const auto [low, high] = std::minmax_element(first, last);
      recorder_.gate(layer, double(*low), double(*high),
                     std::max(std::fabs(double(*low)), std::fabs(double(*high))));
    }
  }
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string path = "model.layers." + std::to_string(layer) + ".mlp.";
    const auto weight = [&](const char *name) {
      return HostMatrix(backend_, model_.parameters().value(path + name + ".weight"), config.intermediate,
                        config.hidden);
    };
    const HostMatrix up = weight("up_proj"), gate = weight("gate_proj");
    const SwigluAlignment alignment = swiglu_alignment(up.view(), gate.view(), inner[size_t(layer)]);
    recorder_.swiglu(int(layer), alignment.mean_abs, alignment.p99_abs, alignment.weighted);
    const std::vector<AttentionMoments> heads = model_.attention_moments(layer);
    if (heads.empty()) continue;
    double entropy = 0, largest = heads.front().largest, s1 = 0, s2 = 0, s3 = 0, s4 = 0;
    for (const AttentionMoments &h : heads) {
      entropy += h.entropy;
      largest = std::max(largest, h.largest);
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
                        fourth / (variance * variance) - 3);
  }
}

void Probe::finish() { recorder_.end_step(); }

} // namespace nvfp4::models
