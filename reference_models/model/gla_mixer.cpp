// SPDX-License-Identifier: Apache-2.0
// GLA's mixer: projections, gated linear attention per head, RMSNorm and swish gate, output projection.
// Source: flash-linear-attention, fla/layers/gla.py.
#include "nvfp4/reference_models/model/gla_products.hpp"
#include "nvfp4/reference_models/model/stored_values.hpp"

namespace nvfp4::models {
namespace {

enum Slot : size_t { kDStates, kDo, kDq, kDk, kDv, kDg, kDGate, kDLow, kDNormed, kTerms, kOfProducts };

template <class T> class GlaMixer final : public Mixer<T> {
public:
  GlaMixer(const BlockContext<T> &context, Scratch<T> &scratch)
      : c_(context), scratch_(scratch), path_(mixer_path(context.config, context.layer)),
        gate_in_(context, context.config.key_dim) {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows();
    shape_ = {c_.batch,     c_.length,      m.heads,
              m.key_head(), m.value_head(), T(1) / numerics::sqrt(T(m.key_head()))};
    for (Array<T> *a : {&q_, &k_, &gk_, &g_}) a->reset(c_.backend, rows * m.key_dim);
    for (Array<T> *a : {&v_, &gate_, &o_, &normed_}) a->reset(c_.backend, rows * m.value_dim);
    low_.reset(c_.backend, rows * m.gate_rank);
    rstd_.reset(c_.backend, rows * m.heads);
    const bool by_product = has_mixer_rules(c_.recipe, *m.family, c_.layer, m.layers);
    if (c_.recipe.mixers == FormatId::bf16 && !by_product) {
      bf16_ = c_.backend.make_bf16_gla(bf16_gla_shape(m, c_.batch, c_.length), mixer_unit(c_.recipe));
    } else {
      saved_.reset(c_.backend, shape_.saved());
      scratch.reserve(kDStates, shape_.states());
    }
    if (by_product) make_products();
    for (const size_t slot : {kDq, kDk, kDg, kDGate})
      scratch.reserve(slot, rows * std::max(m.key_dim, m.value_dim));
    for (const size_t slot : {kDo, kDv, kDNormed, kTerms}) scratch.reserve(slot, rows * m.value_dim);
    scratch.reserve(kDLow, rows * m.gate_rank);
    input_ = c_.linears({"q_proj", "k_proj", "v_proj", "g_proj", "gk_proj.0"});
    gate_up_ = c_.linears({"gk_proj.1"});
    output_ = c_.linears({"o_proj"});
  }

  void forward(const StepContext &step, const T *x, T *y) override {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows();
    T *const projected[] = {q_.data(), k_.data(), v_.data(), gate_.data(), low_.data()};
    input_->forward(step, x, rows, projected);
    T *const gk[] = {gk_.data()};
    gate_up_->forward(step, low_.data(), rows, gk);
    gate_in_.read(gk_.data());
    c_.backend.run(GateForward<T>{rows * m.key_dim, gate_in_.data(), g_.data(), T(m.gate_normalizer)});
    mix(step);
    c_.backend.run(GatedNormForward<T>{rows * m.heads, m.value_head(), T(m.norm_epsilon), o_.data(),
                                       norm_weight(), gate_.data(), normed_.data(), rstd_.data()});
    T *const out[] = {y};
    output_->forward(step, normed_.data(), rows, out);
  }

  void backward(const StepContext &step, const T *x, const T *dy, T *dx) override {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows();
    const Scratch<T> &s = scratch_;
    const T *const grad[] = {dy};
    dy_ = dy;
    output_->backward(step, normed_.data(), rows, grad, s[kDNormed]);
    c_.backend.run(GatedNormBackward<T>{rows * m.heads, m.value_head(), s[kDNormed], o_.data(), norm_weight(),
                                        gate_.data(), rstd_.data(), s[kDo], s[kDGate], s[kTerms]});
    c_.backend.run(AccumulateColumns<T>{rows * m.heads, m.value_head(), s[kTerms],
                                        c_.parameters.gradient(path_ + "g_norm_swish_gate.weight")});
    mix_backward(step);
    c_.backend.run(GateBackward<T>{rows * m.key_dim, s[kDg], gate_in_.data(), s[kDg], T(m.gate_normalizer)});
    const T *const dgk[] = {s[kDg]};
    gate_up_->backward(step, low_.data(), rows, dgk, s[kDLow]);
    const T *const projected[] = {s[kDq], s[kDk], s[kDv], s[kDGate], s[kDLow]};
    input_->backward(step, x, rows, projected, dx);
    x_ = x;
  }

  void groups(const std::function<void(LinearGroup<T> &, const T *, std::span<const T *const>)> &f) override {
    const Scratch<T> &s = scratch_;
    const T *const projected[] = {s[kDq], s[kDk], s[kDv], s[kDGate], s[kDLow]};
    const T *const dgk[] = {s[kDg]};
    const T *const dy[] = {dy_};
    f(*input_, x_, projected);
    f(*gate_up_, low_.data(), dgk);
    f(*output_, normed_.data(), dy);
  }

  void activations(std::vector<Activation<T>> &out) const override {
    const ModelConfig &m = c_.config;
    const auto add = [&](const char *name, const Array<T> &a, int64_t width) {
      out.push_back({path_ + name, {c_.batch, c_.length, width}, a.data()});
    };
    add("q_proj", q_, m.key_dim);
    add("k_proj", k_, m.key_dim);
    add("v_proj", v_, m.value_dim);
    add("g_proj", gate_, m.value_dim);
    add("gk_proj.0", low_, m.gate_rank);
    add("gk_proj", gk_, m.key_dim);
    gate_in_.activation(c_, "gate_input", out);
    add("gate", g_, m.key_dim);
    add("gla", o_, m.value_dim);
    add("g_norm_swish_gate", normed_, m.value_dim);
  }

private:
  void make_products() {
    if constexpr (std::is_same_v<T, float>)
      products_ = std::make_unique<GlaProducts>(c_, GlaProducts::kGla, GlaProducts::Gates::sums, shape_,
                                                scratch_, kOfProducts, saved_.data());
  }
  /// In FP32 the bits are the same product by product, and then there are matrices to show.
  void show_products() {
    if (this->hooks.wants_operators() && products_ == nullptr && bf16_ == nullptr) make_products();
  }
  void mix(const StepContext &step) {
    show_products();
    if constexpr (std::is_same_v<T, float>)
      if (products_ != nullptr) {
        this->trace_activations(2);
        return products_->forward(step, {q_.data(), k_.data(), v_.data(), g_.data()}, o_.data(), this->hooks);
      }
    if constexpr (std::is_same_v<T, float>)
      if (bf16_ != nullptr) return bf16_->forward(q_.data(), k_.data(), v_.data(), g_.data(), o_.data());
    GlaForward<T>{shape_, q_.data(), k_.data(), v_.data(), g_.data(), o_.data(), saved_.data()}.run_on(
        c_.backend);
  }
  void mix_backward(const StepContext &step) {
    const Scratch<T> &s = scratch_;
    if constexpr (std::is_same_v<T, float>) {
      show_products();
      if (products_ != nullptr) {
        this->hooks.trace(path_ + "gla", StepTensor::output_grad, {c_.batch, c_.length, c_.config.value_dim},
                          s[kDo]);
        return products_->backward(step, {q_.data(), k_.data(), v_.data(), g_.data()},
                                   {s[kDo], s[kDq], s[kDk], s[kDv], s[kDg]}, this->hooks);
      }
      if (bf16_ != nullptr) return bf16_->backward(g_.data(), s[kDo], s[kDq], s[kDk], s[kDv], s[kDg]);
    }
    GlaBackward<T>{shape_, s[kDo], q_.data(), k_.data(),     v_.data(),  s[kDq],
                   s[kDk], s[kDv], s[kDg],    saved_.data(), s[kDStates]}
        .run_on(c_.backend);
  }
  [[nodiscard]] const T *norm_weight() const {
    return c_.parameters.value(path_ + "g_norm_swish_gate.weight");
  }

  BlockContext<T> c_;
  Scratch<T> &scratch_;
  std::string path_;
  GateInput<T> gate_in_;
  GlaShape<T> shape_{};
  Array<T> q_, k_, v_, gk_, g_, gate_, low_, o_, normed_, rstd_, saved_;
  const T *x_ = nullptr, *dy_ = nullptr;
  std::unique_ptr<Bf16Gla> bf16_;         ///< in place of shape_ and saved_, where the recipe wants it
  std::unique_ptr<GlaProducts> products_; ///< likewise, where it has rules for them
  std::unique_ptr<LinearGroup<T>> input_, gate_up_, output_;
};

} // namespace

template <class T> std::unique_ptr<Mixer<T>> make_gla(const BlockContext<T> &context, Scratch<T> &scratch) {
  return std::make_unique<GlaMixer<T>>(context, scratch);
}
template std::unique_ptr<Mixer<float>> make_gla(const BlockContext<float> &, Scratch<float> &);
template std::unique_ptr<Mixer<double>> make_gla(const BlockContext<double> &, Scratch<double> &);

} // namespace nvfp4::models
