// SPDX-License-Identifier: Apache-2.0
// Gated DeltaNet's mixer: projections, short convolutions with SiLU, L2-normalised q and k, the gated delta
// rule per head, RMSNorm and swish gate, output projection. Source: flash-linear-attention,
// fla/layers/gated_deltanet.py.
#include "nvfp4/reference_models/model/delta_products.hpp"
#include "nvfp4/reference_models/model/stored_values.hpp"

namespace nvfp4::models {
namespace {

enum Slot : size_t {
  kWork,
  kDNormed,
  kDo,
  kDGate,
  kTerms,
  kDq,
  kDk,
  kDv,
  kDqIn,
  kDkIn,
  kDvIn,
  kDg,
  kDBeta,
  kDa,
  kDb,
  kDz,
  kOfProducts
};

constexpr double kNormEpsilon = 1e-6; // of the L2 norms, fla's

template <class T> class DeltaMixer final : public Mixer<T> {
public:
  DeltaMixer(const BlockContext<T> &context, Scratch<T> &scratch)
      : c_(context), scratch_(scratch), path_(mixer_path(context.config, context.layer)),
        a_in_(context, context.config.heads), b_in_(context, context.config.heads) {
    const ModelConfig &m = c_.config;
    if (m.convolution != kTaps)
      throw Error("model '" + m.name + "': expected convolution = " + std::to_string(kTaps) + ", got " +
                  std::to_string(m.convolution));
    const int64_t rows = c_.rows();
    shape_ = {c_.batch,     c_.length,      m.heads,
              m.key_head(), m.value_head(), T(1) / numerics::sqrt(T(m.key_head()))};
    for (Array<T> *a : {&q_in_, &k_in_, &q_, &k_, &q_conv_, &k_conv_}) a->reset(c_.backend, rows * m.key_dim);
    for (Array<T> *a : {&v_in_, &v_, &gate_, &o_, &normed_}) a->reset(c_.backend, rows * m.value_dim);
    for (Array<T> *a : {&a_, &b_, &g_, &beta_, &q_rstd_, &k_rstd_, &rstd_})
      a->reset(c_.backend, rows * m.heads);
    saved_.reset(c_.backend, shape_.saved());
    scratch.reserve(kWork, shape_.recurrence());
    if (has_mixer_rules(c_.recipe, *m.family, c_.layer, m.layers)) make_products();
    for (const size_t slot : {kDq, kDk, kDqIn, kDkIn}) scratch.reserve(slot, rows * m.key_dim);
    for (const size_t slot : {kDNormed, kDo, kDGate, kTerms, kDv, kDvIn})
      scratch.reserve(slot, rows * m.value_dim);
    scratch.reserve(kDz, rows * std::max(m.key_dim, m.value_dim));
    for (const size_t slot : {kDg, kDBeta, kDa, kDb}) scratch.reserve(slot, rows * m.heads);
    input_ = c_.linears({"q_proj", "k_proj", "v_proj", "g_proj", "a_proj", "b_proj"});
    output_ = c_.linears({"o_proj"});
  }

  void forward(const StepContext &step, const T *x, T *y) override {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows();
    T *const projected[] = {q_in_.data(), k_in_.data(), v_in_.data(), gate_.data(), a_.data(), b_.data()};
    input_->forward(step, x, rows, projected);
    convolve(q_in_, "q_conv1d", m.key_dim, q_conv_);
    convolve(k_in_, "k_conv1d", m.key_dim, k_conv_);
    convolve(v_in_, "v_conv1d", m.value_dim, v_);
    const int64_t heads = rows * m.heads;
    c_.backend.run(
        L2NormForward<T>{heads, m.key_head(), T(kNormEpsilon), q_conv_.data(), q_.data(), q_rstd_.data()});
    c_.backend.run(
        L2NormForward<T>{heads, m.key_head(), T(kNormEpsilon), k_conv_.data(), k_.data(), k_rstd_.data()});
    a_in_.read(a_.data());
    b_in_.read(b_.data());
    c_.backend.run(DeltaGateForward<T>{rows, m.heads, a_in_.data(), b_in_.data(), value("A_log"),
                                       value("dt_bias"), g_.data(), beta_.data()});
    mix(step);
    c_.backend.run(GatedNormForward<T>{heads, m.value_head(), T(m.norm_epsilon), o_.data(),
                                       value("o_norm.weight"), gate_.data(), normed_.data(), rstd_.data()});
    T *const out[] = {y};
    output_->forward(step, normed_.data(), rows, out);
  }

  void backward(const StepContext &step, const T *x, const T *dy, T *dx) override {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows(), heads = rows * m.heads;
    const Scratch<T> &s = scratch_;
    const T *const grad[] = {dy};
    output_->backward(step, normed_.data(), rows, grad, s[kDNormed]);
    c_.backend.run(GatedNormBackward<T>{heads, m.value_head(), s[kDNormed], o_.data(), value("o_norm.weight"),
                                        gate_.data(), rstd_.data(), s[kDo], s[kDGate], s[kTerms]});
    c_.backend.run(AccumulateColumns<T>{heads, m.value_head(), s[kTerms], gradient("o_norm.weight")});
    mix_backward(step);
    c_.backend.run(DeltaGateBackward<T>{rows, m.heads, s[kDg], s[kDBeta], g_.data(), beta_.data(),
                                        a_in_.data(), value("A_log"), value("dt_bias"), s[kDa], s[kDb],
                                        s[kTerms]});
    c_.backend.run(AccumulateColumns<T>{rows, m.heads, s[kDa], gradient("dt_bias")});
    c_.backend.run(AccumulateColumns<T>{rows, m.heads, s[kTerms], gradient("A_log")});
    c_.backend.run(L2NormBackward<T>{heads, m.key_head(), s[kDq], q_.data(), q_rstd_.data(), s[kDq]});
    c_.backend.run(L2NormBackward<T>{heads, m.key_head(), s[kDk], k_.data(), k_rstd_.data(), s[kDk]});
    convolve_back(s[kDq], q_in_, "q_conv1d", m.key_dim, s[kDqIn]);
    convolve_back(s[kDk], k_in_, "k_conv1d", m.key_dim, s[kDkIn]);
    convolve_back(s[kDv], v_in_, "v_conv1d", m.value_dim, s[kDvIn]);
    const T *const projected[] = {s[kDqIn], s[kDkIn], s[kDvIn], s[kDGate], s[kDa], s[kDb]};
    input_->backward(step, x, rows, projected, dx);
    x_ = x;
    dy_ = dy;
  }

  void groups(const std::function<void(LinearGroup<T> &, const T *, std::span<const T *const>)> &f) override {
    const Scratch<T> &s = scratch_;
    const T *const projected[] = {s[kDqIn], s[kDkIn], s[kDvIn], s[kDGate], s[kDa], s[kDb]};
    const T *const dy[] = {dy_};
    f(*input_, x_, projected);
    f(*output_, normed_.data(), dy);
  }

  void activations(std::vector<Activation<T>> &out) const override {
    const ModelConfig &m = c_.config;
    const auto add = [&](const char *name, const Array<T> &a, int64_t width) {
      out.push_back({path_ + name, {c_.batch, c_.length, width}, a.data()});
    };
    add("q_proj", q_in_, m.key_dim);
    add("k_proj", k_in_, m.key_dim);
    add("v_proj", v_in_, m.value_dim);
    add("g_proj", gate_, m.value_dim);
    add("a_proj", a_, m.heads);
    add("b_proj", b_, m.heads);
    add("q_norm", q_, m.key_dim);
    add("k_norm", k_, m.key_dim);
    add("v_conv1d", v_, m.value_dim);
    a_in_.activation(c_, "gate_input", out);
    b_in_.activation(c_, "beta_input", out);
    add("gate", g_, m.heads);
    add("beta", beta_, m.heads);
    add("delta", o_, m.value_dim);
    add("o_norm", normed_, m.value_dim);
  }

private:
  void make_products() {
    if constexpr (std::is_same_v<T, float>)
      products_ = std::make_unique<DeltaRuleProducts>(c_, shape_, scratch_, kOfProducts, saved_.data());
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
        return products_->forward(step, {q_.data(), k_.data(), v_.data(), g_.data(), beta_.data()}, o_.data(),
                                  this->hooks);
      }
    DeltaForward<T>{shape_,    q_.data(),    k_.data(), v_.data(),
                    g_.data(), beta_.data(), o_.data(), saved_.data()}
        .run_on(c_.backend);
  }
  void mix_backward(const StepContext &step) {
    const Scratch<T> &s = scratch_;
    show_products();
    if constexpr (std::is_same_v<T, float>)
      if (products_ != nullptr) {
        this->hooks.trace(path_ + "delta", StepTensor::output_grad,
                          {c_.batch, c_.length, c_.config.value_dim}, s[kDo]);
        return products_->backward(step, {q_.data(), k_.data(), v_.data(), g_.data(), beta_.data()},
                                   {s[kDo], s[kDq], s[kDk], s[kDv], s[kDg], s[kDBeta]}, this->hooks);
      }
    DeltaBackward<T>{shape_, s[kDo], q_.data(), k_.data(), v_.data(), g_.data(),     beta_.data(),
                     s[kDq], s[kDk], s[kDv],    s[kDg],    s[kDBeta], saved_.data(), s[kWork]}
        .run_on(c_.backend);
  }
  [[nodiscard]] const T *value(const char *name) const { return c_.parameters.value(path_ + name); }
  [[nodiscard]] T *gradient(const char *name) const { return c_.parameters.gradient(path_ + name); }

  void convolve(const Array<T> &x, const char *name, int64_t channels, const Array<T> &y) {
    const T *weight = c_.parameters.value(path_ + name + ".weight");
    c_.backend.run(ConvolutionForward<T>{c_.rows(), c_.length, channels, x.data(), weight, y.data()});
  }
  void convolve_back(const T *dy, const Array<T> &x, const char *name, int64_t channels, T *dx) {
    const std::string weight = path_ + name + ".weight";
    ConvolutionBackward<T>{c_.rows(),    c_.length,
                           channels,     dy,
                           x.data(),     c_.parameters.value(weight),
                           dx,           c_.parameters.gradient(weight),
                           scratch_[kDz]}
        .run_on(c_.backend);
  }

  BlockContext<T> c_;
  Scratch<T> &scratch_;
  std::string path_;
  GateInput<T> a_in_, b_in_;
  DeltaShape<T> shape_{};
  Array<T> q_in_, k_in_, v_in_, q_conv_, k_conv_, q_, k_, v_, gate_, a_, b_, g_, beta_, o_, normed_, q_rstd_,
      k_rstd_, rstd_, saved_;
  const T *x_ = nullptr, *dy_ = nullptr;
  std::unique_ptr<DeltaRuleProducts> products_; ///< in place of the whole kernels, where the recipe has rules
  std::unique_ptr<LinearGroup<T>> input_, output_;
};

} // namespace

template <class T> std::unique_ptr<Mixer<T>> make_delta(const BlockContext<T> &context, Scratch<T> &scratch) {
  return std::make_unique<DeltaMixer<T>>(context, scratch);
}
template std::unique_ptr<Mixer<float>> make_delta(const BlockContext<float> &, Scratch<float> &);
template std::unique_ptr<Mixer<double>> make_delta(const BlockContext<double> &, Scratch<double> &);

} // namespace nvfp4::models
