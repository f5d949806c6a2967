// SPDX-License-Identifier: Apache-2.0
// Gated slot attention's mixer: projections, SiLU of q, k and v, decay and write of each slot, two passes per
// head with a softmax over slots between them, SiLU and RMSNorm, output projection. Source:
// flash-linear-attention, fla/layers/gsa.py.
#include "nvfp4/reference_models/model/gla_products.hpp"
#include "nvfp4/reference_models/model/slot_key_products.hpp"
#include "nvfp4/reference_models/model/stored_values.hpp"

namespace nvfp4::models {
namespace {

enum Slot : size_t {
  kWork,
  kDNormed,
  kTerms,
  kDo,
  kDq,
  kDk,
  kDv,
  kDp,
  kUnused,
  kDg1,
  kDg2,
  kDs1,
  kDs2,
  kOfKeys,
  kOfValues = kOfKeys + SlotKeyProducts::kScratchSlots
};

/// Of the norm before o_proj: fla passes none to it, whatever the configuration says, and this is its
/// default.
constexpr double kOutputEpsilon = 1e-5;

template <class T> class SlotMixer final : public Mixer<T> {
public:
  SlotMixer(const BlockContext<T> &context, Scratch<T> &scratch)
      : c_(context), scratch_(scratch), path_(mixer_path(context.config, context.layer)),
        gate_in_(context, context.config.heads * context.config.slots) {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows(), slots = m.heads * m.slots;
    shape_ = {c_.batch, c_.length, m.heads, m.slots, m.key_head(), m.value_head()};
    for (Array<T> *a : {&q_in_, &k_in_, &q_, &k_}) a->reset(c_.backend, rows * m.key_dim);
    for (Array<T> *a : {&v_in_, &v_, &o_, &active_, &normed_}) a->reset(c_.backend, rows * m.value_dim);
    for (Array<T> *a : {&f_, &g_, &s_, &p_}) a->reset(c_.backend, rows * slots);
    rstd_.reset(c_.backend, rows);
    saved_.reset(c_.backend, shape_.saved());
    scratch.reserve(kWork, shape_.work());
    if (has_mixer_rules(c_.recipe, *m.family, c_.layer, m.layers)) make_products();
    for (const size_t slot : {kDq, kDk}) scratch.reserve(slot, rows * m.key_dim);
    for (const size_t slot : {kDNormed, kTerms, kDo, kDv}) scratch.reserve(slot, rows * m.value_dim);
    for (const size_t slot : {kDp, kUnused, kDg1, kDg2, kDs1, kDs2}) scratch.reserve(slot, rows * slots);
    input_ = c_.linears({"q_proj", "k_proj", "v_proj", "f_proj"});
    output_ = c_.linears({"o_proj"});
  }

  void forward(const StepContext &step, const T *x, T *y) override {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows(), keys = rows * m.key_dim, values = rows * m.value_dim;
    T *const projected[] = {q_in_.data(), k_in_.data(), v_in_.data(), f_.data()};
    input_->forward(step, x, rows, projected);
    c_.backend.run(SiluForward<T>{keys, q_in_.data(), q_.data()});
    c_.backend.run(SiluForward<T>{keys, k_in_.data(), k_.data()});
    c_.backend.run(SiluForward<T>{values, v_in_.data(), v_.data()});
    gate_in_.read(f_.data());
    c_.backend.run(
        SlotGateForward<T>{f_.size(), gate_in_.data(), g_.data(), s_.data(), T(m.gate_normalizer)});
    mix(step);
    c_.backend.run(SiluForward<T>{values, o_.data(), active_.data()});
    c_.backend.run(RmsNormForward<T>{rows, m.value_dim, T(kOutputEpsilon), active_.data(), norm_weight(),
                                     normed_.data(), rstd_.data()});
    T *const out[] = {y};
    output_->forward(step, normed_.data(), rows, out);
  }

  void backward(const StepContext &step, const T *x, const T *dy, T *dx) override {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows(), keys = rows * m.key_dim, values = rows * m.value_dim;
    const Scratch<T> &s = scratch_;
    const T *const grad[] = {dy};
    output_->backward(step, normed_.data(), rows, grad, s[kDNormed]);
    c_.backend.run(RmsNormBackward<T>{rows, m.value_dim, s[kDNormed], active_.data(), norm_weight(),
                                      rstd_.data(), nullptr, s[kDo], s[kTerms]});
    c_.backend.run(
        AccumulateColumns<T>{rows, m.value_dim, s[kTerms], c_.parameters.gradient(path_ + "g_norm.weight")});
    c_.backend.run(SiluBackward<T>{values, s[kDo], o_.data(), s[kDo]});
    mix_backward(step);
    c_.backend.run(SlotGateBackward<T>{f_.size(), s[kDg1], s[kDg2], s[kDs1], s[kDs2], g_.data(),
                                       gate_in_.data(), s[kDg1], T(m.gate_normalizer)});
    c_.backend.run(SiluBackward<T>{keys, s[kDq], q_in_.data(), s[kDq]});
    c_.backend.run(SiluBackward<T>{keys, s[kDk], k_in_.data(), s[kDk]});
    c_.backend.run(SiluBackward<T>{values, s[kDv], v_in_.data(), s[kDv]});
    const T *const projected[] = {s[kDq], s[kDk], s[kDv], s[kDg1]};
    input_->backward(step, x, rows, projected, dx);
    x_ = x;
    dy_ = dy;
  }

  void groups(const std::function<void(LinearGroup<T> &, const T *, std::span<const T *const>)> &f) override {
    const Scratch<T> &s = scratch_;
    const T *const projected[] = {s[kDq], s[kDk], s[kDv], s[kDg1]};
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
    add("f_proj", f_, m.heads * m.slots);
    gate_in_.activation(c_, "gate_input", out);
    add("gate", g_, m.heads * m.slots);
    add("write", s_, m.heads * m.slots);
    add("slots", p_, m.heads * m.slots);
    add("gsa", o_, m.value_dim);
    add("g_norm", normed_, m.value_dim);
  }

private:
  void make_products() {
    if constexpr (std::is_same_v<T, float>) {
      keys_ = std::make_unique<SlotKeyProducts>(c_, shape_.first(), scratch_, kOfKeys, saved_.data());
      values_ =
          std::make_unique<GlaProducts>(c_, GlaProducts::kSlots, GlaProducts::Gates::passed, shape_.second(),
                                        scratch_, kOfValues, saved_.data() + shape_.first().saved());
    }
  }
  /// In FP32 the bits are the same product by product, and then there are matrices to show.
  void show_products() {
    if (this->hooks.wants_operators() && keys_ == nullptr) make_products();
  }
  void mix(const StepContext &step) {
    show_products();
    if constexpr (std::is_same_v<T, float>)
      if (keys_ != nullptr) {
        this->trace_activations(3);
        keys_->forward(step, {q_.data(), k_.data(), g_.data(), s_.data()}, p_.data(), this->hooks);
        c_.backend.run(SlotSoftmaxForward<T>{c_.rows() * c_.config.heads, c_.config.slots, p_.data()});
        this->hooks.trace(path_ + "slots", StepTensor::output,
                          {c_.batch, c_.length, c_.config.heads * c_.config.slots}, p_.data());
        return values_->forward(step, {p_.data(), s_.data(), v_.data(), g_.data()}, o_.data(), this->hooks);
      }
    SlotForward<T>{shape_,    q_.data(), k_.data(), v_.data(),    g_.data(),
                   s_.data(), p_.data(), o_.data(), saved_.data()}
        .run_on(c_.backend);
  }
  void mix_backward(const StepContext &step) {
    const Scratch<T> &s = scratch_;
    show_products();
    if constexpr (std::is_same_v<T, float>)
      if (keys_ != nullptr) {
        this->hooks.trace(path_ + "gsa", StepTensor::output_grad, {c_.batch, c_.length, c_.config.value_dim},
                          s[kDo]);
        values_->backward(step, {p_.data(), s_.data(), v_.data(), g_.data()},
                          {s[kDo], s[kDp], s[kDs2], s[kDv], s[kDg2]}, this->hooks);
        c_.backend.run(
            SlotSoftmaxBackward<T>{c_.rows() * c_.config.heads, c_.config.slots, p_.data(), s[kDp]});
        return keys_->backward(step, {q_.data(), k_.data(), g_.data(), s_.data()},
                               {s[kDp], s[kDq], s[kDk], s[kDg1], s[kDs1]}, this->hooks);
      }
    SlotBackward<T>{shape_,    s[kDo],  q_.data(), k_.data(),     v_.data(), s_.data(),
                    p_.data(), s[kDq],  s[kDk],    s[kDv],        s[kDg1],   s[kDg2],
                    s[kDs1],   s[kDs2], s[kDp],    saved_.data(), s[kWork],  s[kUnused]}
        .run_on(c_.backend);
  }
  [[nodiscard]] const T *norm_weight() const { return c_.parameters.value(path_ + "g_norm.weight"); }

  BlockContext<T> c_;
  Scratch<T> &scratch_;
  std::string path_;
  GateInput<T> gate_in_;
  SlotShape<T> shape_{};
  Array<T> q_in_, k_in_, v_in_, f_, q_, k_, v_, g_, s_, p_, o_, active_, normed_, rstd_, saved_;
  const T *x_ = nullptr, *dy_ = nullptr;
  std::unique_ptr<SlotKeyProducts> keys_; ///< in place of the whole kernels, where the recipe has rules
  std::unique_ptr<GlaProducts> values_;   ///< likewise
  std::unique_ptr<LinearGroup<T>> input_, output_;
};

} // namespace

template <class T> std::unique_ptr<Mixer<T>> make_slots(const BlockContext<T> &context, Scratch<T> &scratch) {
  return std::make_unique<SlotMixer<T>>(context, scratch);
}
template std::unique_ptr<Mixer<float>> make_slots(const BlockContext<float> &, Scratch<float> &);
template std::unique_ptr<Mixer<double>> make_slots(const BlockContext<double> &, Scratch<double> &);

} // namespace nvfp4::models
