// SPDX-License-Identifier: Apache-2.0
// Mamba-2's mixer: one projection to z, x, B, C and dt, short convolution with SiLU of x, B and C, the scan
// of a state space per head, swish gate of z and RMSNorm, output projection. Source: mamba_ssm,
// modules/mamba2.py; Hugging Face transformers, models/mamba2.
#include "nvfp4/reference_models/model/scan_products.hpp"
#include "nvfp4/reference_models/model/stored_values.hpp"

namespace nvfp4::models {
namespace {

enum Slot : size_t {
  kWork,
  kDNormed,
  kTerms,
  kDh,
  kDz,
  kDy,
  kDxbc,
  kDConvolved,
  kDxbcIn,
  kDdt,
  kDg,
  kHeadTerms,
  kDIn,
  kOfProducts
};

template <class T> class ScanMixer final : public Mixer<T> {
public:
  ScanMixer(const BlockContext<T> &context, Scratch<T> &scratch)
      : c_(context), scratch_(scratch), path_(mixer_path(context.config, context.layer)),
        gate_in_(context, context.config.heads) {
    const ModelConfig &m = c_.config;
    if (m.convolution != kTaps)
      throw Error("model '" + m.name + "': expected convolution = " + std::to_string(kTaps) + ", got " +
                  std::to_string(m.convolution));
    const int64_t rows = c_.rows();
    inner_ = m.value_dim;
    convolved_ = m.value_dim + 2 * m.state;
    projected_ = inner_ + convolved_ + m.heads;
    shape_ = {c_.batch, c_.length, m.heads, m.state, m.value_head(), convolved_};
    in_.reset(c_.backend, rows * projected_);
    for (Array<T> *a : {&z_, &y_, &gated_, &normed_}) a->reset(c_.backend, rows * inner_);
    for (Array<T> *a : {&xbc_in_, &xbc_}) a->reset(c_.backend, rows * convolved_);
    for (Array<T> *a : {&raw_, &dt_, &g_}) a->reset(c_.backend, rows * m.heads);
    rstd_.reset(c_.backend, rows);
    saved_.reset(c_.backend, shape_.saved());
    scratch.reserve(kWork, shape_.states());
    if (has_mixer_rules(c_.recipe, *m.family, c_.layer, m.layers)) make_products();
    for (const size_t slot : {kDNormed, kTerms, kDh, kDz, kDy}) scratch.reserve(slot, rows * inner_);
    for (const size_t slot : {kDxbc, kDConvolved, kDxbcIn}) scratch.reserve(slot, rows * convolved_);
    for (const size_t slot : {kDdt, kDg, kHeadTerms}) scratch.reserve(slot, rows * m.heads);
    scratch.reserve(kDIn, rows * projected_);
    input_ = c_.linears({"in_proj"});
    output_ = c_.linears({"out_proj"});
  }

  void forward(const StepContext &step, const T *x, T *y) override {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows(), n = rows * inner_;
    T *const projected[] = {in_.data()};
    input_->forward(step, x, rows, projected);
    take(0, inner_, z_);
    take(inner_, convolved_, xbc_in_);
    take(inner_ + convolved_, m.heads, raw_);
    c_.backend.run(ConvolutionForward<T>{rows, c_.length, convolved_, xbc_in_.data(), value("conv1d.weight"),
                                         xbc_.data(), value("conv1d.bias")});
    gate_in_.read(raw_.data());
    c_.backend.run(ScanGateForward<T>{rows, m.heads, gate_in_.data(), value("A_log"), value("dt_bias"),
                                      dt_.data(), g_.data()});
    mix(step);
    c_.backend.run(SwigluForward<T>{n, z_.data(), y_.data(), gated_.data()});
    c_.backend.run(RmsNormForward<T>{rows, inner_, T(m.norm_epsilon), gated_.data(), value("norm.weight"),
                                     normed_.data(), rstd_.data()});
    T *const out[] = {y};
    output_->forward(step, normed_.data(), rows, out);
  }

  void backward(const StepContext &step, const T *x, const T *dy, T *dx) override {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows(), n = rows * inner_;
    const Scratch<T> &s = scratch_;
    const T *const grad[] = {dy};
    output_->backward(step, normed_.data(), rows, grad, s[kDNormed]);
    c_.backend.run(RmsNormBackward<T>{rows, inner_, s[kDNormed], gated_.data(), value("norm.weight"),
                                      rstd_.data(), nullptr, s[kDh], s[kTerms]});
    c_.backend.run(AccumulateColumns<T>{rows, inner_, s[kTerms], gradient("norm.weight")});
    c_.backend.run(SwigluBackward<T>{n, s[kDh], z_.data(), y_.data(), s[kDz], s[kDy]});
    T *const dxbc = s[kDxbc];
    mix_backward(step, dxbc);
    c_.backend.run(AccumulateColumns<T>{rows, m.heads, s[kHeadTerms], gradient("D")});
    c_.backend.run(ScanGateBackward<T>{rows, m.heads, s[kDdt], s[kDg], g_.data(), gate_in_.data(),
                                       value("A_log"), value("dt_bias"), s[kDdt], s[kHeadTerms]});
    c_.backend.run(AccumulateColumns<T>{rows, m.heads, s[kHeadTerms], gradient("A_log")});
    c_.backend.run(AccumulateColumns<T>{rows, m.heads, s[kDdt], gradient("dt_bias")});
    ConvolutionBackward<T>{rows,           c_.length,
                           convolved_,     dxbc,
                           xbc_in_.data(), value("conv1d.weight"),
                           s[kDxbcIn],     gradient("conv1d.weight"),
                           s[kDConvolved], value("conv1d.bias")}
        .run_on(c_.backend);
    c_.backend.run(AccumulateColumns<T>{rows, convolved_, s[kDConvolved], gradient("conv1d.bias")});
    put(s[kDz], 0, inner_);
    put(s[kDxbcIn], inner_, convolved_);
    put(s[kDdt], inner_ + convolved_, m.heads);
    const T *const projected[] = {s[kDIn]};
    input_->backward(step, x, rows, projected, dx);
    x_ = x;
    dy_ = dy;
  }

  void groups(const std::function<void(LinearGroup<T> &, const T *, std::span<const T *const>)> &f) override {
    const T *const projected[] = {scratch_[kDIn]};
    const T *const dy[] = {dy_};
    f(*input_, x_, projected);
    f(*output_, normed_.data(), dy);
  }

  void activations(std::vector<Activation<T>> &out) const override {
    const ModelConfig &m = c_.config;
    const auto add = [&](const char *name, const Array<T> &a, int64_t width) {
      out.push_back({path_ + name, {c_.batch, c_.length, width}, a.data()});
    };
    add("in_proj", in_, projected_);
    add("conv1d", xbc_, convolved_);
    gate_in_.activation(c_, "gate_input", out);
    add("dt", dt_, m.heads);
    add("gate", g_, m.heads);
    add("scan", y_, inner_);
    add("norm", normed_, inner_);
  }

private:
  void make_products() {
    if constexpr (std::is_same_v<T, float>)
      products_ = std::make_unique<ScanRuleProducts>(c_, shape_, scratch_, kOfProducts, saved_.data());
  }
  /// In FP32 the bits are the same product by product, and then there are matrices to show.
  void show_products() {
    if (this->hooks.wants_operators() && products_ == nullptr) make_products();
  }
  void mix(const StepContext &step) {
    show_products();
    if constexpr (std::is_same_v<T, float>)
      if (products_ != nullptr) {
        this->trace_activations(2);
        return products_->forward(step, {c(), b(), xbc_.data(), dt_.data(), g_.data(), value("D")}, y_.data(),
                                  this->hooks);
      }
    ScanForward<T>{shape_, c(), b(), xbc_.data(), dt_.data(), g_.data(), value("D"), y_.data(), saved_.data()}
        .run_on(c_.backend);
  }
  /// dxbc: of x, B and C in their rows.
  void mix_backward(const StepContext &step, T *dxbc) {
    const Scratch<T> &s = scratch_;
    T *const db = dxbc + inner_, *const dc = db + c_.config.state;
    show_products();
    if constexpr (std::is_same_v<T, float>)
      if (products_ != nullptr) {
        this->hooks.trace(path_ + "scan", StepTensor::output_grad, {c_.batch, c_.length, inner_}, s[kDy]);
        return products_->backward(step, {c(), b(), xbc_.data(), dt_.data(), g_.data(), value("D")},
                                   {s[kDy], dc, db, dxbc, s[kDdt], s[kDg], s[kHeadTerms]}, this->hooks);
      }
    ScanBackward<T>{shape_, s[kDy], c(),     b(),    xbc_.data(),   dt_.data(),    value("D"), dc,
                    db,     dxbc,   s[kDdt], s[kDg], s[kHeadTerms], saved_.data(), s[kWork]}
        .run_on(c_.backend);
  }
  [[nodiscard]] const T *value(const char *name) const { return c_.parameters.value(path_ + name); }
  [[nodiscard]] T *gradient(const char *name) const { return c_.parameters.gradient(path_ + name); }
  [[nodiscard]] const T *b() const { return xbc_.data() + inner_; }
  [[nodiscard]] const T *c() const { return xbc_.data() + inner_ + c_.config.state; }

  /// Columns from `first` of what in_proj made, and of its gradient.
  void take(int64_t first, int64_t cols, const Array<T> &to) {
    c_.backend.run(
        MoveHeads<T>{1, c_.rows(), cols, in_.data() + first, {0, projected_, 1}, to.data(), {0, cols, 1}});
  }
  void put(const T *from, int64_t first, int64_t cols) {
    c_.backend.run(
        MoveHeads<T>{1, c_.rows(), cols, from, {0, cols, 1}, scratch_[kDIn] + first, {0, projected_, 1}});
  }

  BlockContext<T> c_;
  Scratch<T> &scratch_;
  std::string path_;
  int64_t inner_ = 0, convolved_ = 0, projected_ = 0; ///< widths of z and y; of x, B and C; of in_proj
  GateInput<T> gate_in_;
  ScanShape<T> shape_{};
  Array<T> in_, z_, xbc_in_, xbc_, raw_, dt_, g_, y_, gated_, normed_, rstd_, saved_;
  const T *x_ = nullptr, *dy_ = nullptr;
  std::unique_ptr<ScanRuleProducts> products_; ///< in place of the whole kernels, where the recipe has rules
  std::unique_ptr<LinearGroup<T>> input_, output_;
};

} // namespace

template <class T> std::unique_ptr<Mixer<T>> make_scan(const BlockContext<T> &context, Scratch<T> &scratch) {
  return std::make_unique<ScanMixer<T>>(context, scratch);
}
template std::unique_ptr<Mixer<float>> make_scan(const BlockContext<float> &, Scratch<float> &);
template std::unique_ptr<Mixer<double>> make_scan(const BlockContext<double> &, Scratch<double> &);

} // namespace nvfp4::models
