// SPDX-License-Identifier: Apache-2.0
// Softmax attention's mixer: projections, RMSNorm of q and k per head (Qwen3) or biases (Qwen2.5), rotary
// embedding, causal attention over grouped queries, output projection. Source: Hugging Face transformers,
// models/qwen3 and models/qwen2.
#include "nvfp4/reference_models/model/attention_products.hpp"
#include "nvfp4/reference_models/model/kv_cache.hpp"
#include "nvfp4/reference_models/model/rope_table.hpp"

namespace nvfp4::models {
namespace {

enum Slot : size_t { kWork, kDo, kDq, kDk, kDv, kTermsQ, kTermsK, kOfProducts };

template <class T> class AttentionMixer final : public Mixer<T> {
public:
  AttentionMixer(const BlockContext<T> &context, Scratch<T> &scratch)
      : c_(context), scratch_(scratch), path_(mixer_path(context.config, context.layer)) {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows(), kv = kv_width();
    shape_ = {c_.batch, c_.length, m.heads, m.kv_heads, m.key_head(), T(1) / numerics::sqrt(T(m.key_head()))};
    for (Array<T> *a : {&q_, &q_rotated_, &o_}) a->reset(c_.backend, rows * m.key_dim);
    for (Array<T> *a : {&k_, &k_rotated_, &v_}) a->reset(c_.backend, rows * kv);
    q_rstd_.reset(c_.backend, rows * m.heads);
    k_rstd_.reset(c_.backend, rows * m.kv_heads);
    saved_.reset(c_.backend, shape_.saved());
    if (c_.recipe.kv_cache.format != OperandFormat::f32)
      for (Array<T> *a : {&k_cache_, &v_cache_}) a->reset(c_.backend, rows * kv);
    if (has_mixer_rules(c_.recipe, *m.family, c_.layer, m.layers))
      make_products();
    else if (c_.recipe.mixers == FormatId::bf16)
      bf16_ =
          c_.backend.make_bf16_attention(bf16_attention_shape(m, c_.batch, c_.length), mixer_unit(c_.recipe));
    const RopeTable<T> table = rope_table<T>(c_.length, m.key_head(), m.rope_base);
    for (const auto &[array, values] : {std::pair{&cosine_, &table.cosine}, std::pair{&sine_, &table.sine}}) {
      array->reset(c_.backend, int64_t(values->size()));
      c_.backend.upload(array->data(), values->data(), values->size() * sizeof(T));
    }
    scratch.reserve(kWork, shape_.work());
    for (const size_t slot : {kDo, kDq, kTermsQ}) scratch.reserve(slot, rows * m.key_dim);
    for (const size_t slot : {kDk, kDv, kTermsK}) scratch.reserve(slot, rows * kv);
    input_ = c_.linears({"q_proj", "k_proj", "v_proj"});
    output_ = c_.linears({"o_proj"});
  }

  void forward(const StepContext &step, const T *x, T *y) override {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows();
    T *const projected[] = {q_.data(), k_.data(), v_.data()};
    input_->forward(step, x, rows, projected);
    const T *q = q_.data(), *k = k_.data();
    if (m.qk_norm) {
      c_.backend.run(norm(rows * m.heads, q, "q_norm", q_rotated_.data(), q_rstd_.data()));
      c_.backend.run(norm(rows * m.kv_heads, k, "k_norm", k_rotated_.data(), k_rstd_.data()));
      q = q_rotated_.data();
      k = k_rotated_.data();
    }
    c_.backend.run(RopeForward<T>{rope(m.heads), q, q_rotated_.data()});
    c_.backend.run(RopeForward<T>{rope(m.kv_heads), k, k_rotated_.data()});
    fill_cache();
    mix(step);
    T *const out[] = {y};
    output_->forward(step, o_.data(), rows, out);
  }

  void backward(const StepContext &step, const T *x, const T *dy, T *dx) override {
    const ModelConfig &m = c_.config;
    const int64_t rows = c_.rows();
    const Scratch<T> &s = scratch_;
    const T *const grad[] = {dy};
    output_->backward(step, o_.data(), rows, grad, s[kDo]);
    mix_backward(step);
    c_.backend.run(RopeBackward<T>{rope(m.heads), s[kDq], s[kDq]});
    c_.backend.run(RopeBackward<T>{rope(m.kv_heads), s[kDk], s[kDk]});
    if (m.qk_norm) {
      norm_backward(rows * m.heads, s[kDq], q_.data(), "q_norm", q_rstd_.data(), s[kTermsQ]);
      norm_backward(rows * m.kv_heads, s[kDk], k_.data(), "k_norm", k_rstd_.data(), s[kTermsK]);
    }
    const T *const projected[] = {s[kDq], s[kDk], s[kDv]};
    input_->backward(step, x, rows, projected, dx);
    x_ = x;
    dy_ = dy;
  }

  void groups(const std::function<void(LinearGroup<T> &, const T *, std::span<const T *const>)> &f) override {
    const T *const projected[] = {scratch_[kDq], scratch_[kDk], scratch_[kDv]};
    const T *const dy[] = {dy_};
    f(*input_, x_, projected);
    f(*output_, o_.data(), dy);
  }

  void activations(std::vector<Activation<T>> &out) const override {
    const ModelConfig &m = c_.config;
    const auto add = [&](const char *name, const Array<T> &a, int64_t width) {
      out.push_back({path_ + name, {c_.batch, c_.length, width}, a.data()});
    };
    add("q_proj", q_, m.key_dim);
    add("k_proj", k_, kv_width());
    add("v_proj", v_, kv_width());
    add("q_rotated", q_rotated_, m.key_dim);
    add("k_rotated", k_rotated_, kv_width());
    if (cached()) {
      add("k_cache", k_cache_, kv_width());
      add("v_cache", v_cache_, kv_width());
    }
    add("attention", o_, m.key_dim);
  }

  std::vector<AttentionMoments> attention_moments() override {
    const int64_t heads = c_.batch * c_.config.heads;
    const Array<AttentionMoments> rows(c_.backend, heads * c_.length), moments(c_.backend, heads);
    if (bf16_ != nullptr || products_ != nullptr)
      mix_f32(scratch_[kDo]); // for saved_; the logits are those before BF16 or quantization
    AttentionStatistics<T>{shape_,          q_rotated_.data(), keys(),        saved_.data(),
                           scratch_[kWork], rows.data(),       moments.data()}
        .run_on(c_.backend);
    return to_host(c_.backend, moments.data(), moments.size());
  }

private:
  [[nodiscard]] bool cached() const { return k_cache_.size() > 0; }
  /// What the products read.
  [[nodiscard]] const T *keys() const { return cached() ? k_cache_.data() : k_rotated_.data(); }
  [[nodiscard]] const T *values() const { return cached() ? v_cache_.data() : v_.data(); }
  void fill_cache() {
    if constexpr (std::is_same_v<T, float>)
      if (cached()) {
        for (const auto &[from, to] : {std::pair{&k_rotated_, &k_cache_}, std::pair{&v_, &v_cache_}}) {
          read_cached(c_.backend, c_.recipe, c_.batch, c_.length, c_.config.kv_heads, c_.config.key_head(),
                      from->data(), to->data());
          this->hooks.watch->add(from->data(), from->size());
        }
        this->hooks.watch->flush();
      }
  }
  void make_products() {
    if constexpr (std::is_same_v<T, float>)
      products_ = std::make_unique<AttentionProducts>(c_, shape_, scratch_, kOfProducts);
  }
  /// In FP32 the bits are the same product by product, and then there are matrices to show.
  void show_products() {
    if (this->hooks.wants_operators() && products_ == nullptr && bf16_ == nullptr) make_products();
  }
  void mix(const StepContext &step) {
    show_products();
    if constexpr (std::is_same_v<T, float>)
      if (products_ != nullptr) {
        this->trace_activations(1);
        return products_->forward(step, {q_rotated_.data(), keys(), values()}, o_.data(), this->hooks);
      }
    if constexpr (std::is_same_v<T, float>)
      if (bf16_ != nullptr) return bf16_->forward(q_rotated_.data(), keys(), values(), o_.data());
    mix_f32(o_.data());
  }
  void mix_f32(T *o) {
    AttentionForward<T>{shape_, q_rotated_.data(), keys(), values(), o, saved_.data(), scratch_[kWork]}
        .run_on(c_.backend);
  }
  void mix_backward(const StepContext &step) {
    const Scratch<T> &s = scratch_;
    if constexpr (std::is_same_v<T, float>) {
      show_products();
      if (products_ != nullptr) {
        this->hooks.trace(path_ + "o_proj", StepTensor::input_grad, {c_.batch, c_.length, c_.config.key_dim},
                          s[kDo]);
        return products_->backward(step, {q_rotated_.data(), keys(), values()},
                                   {s[kDo], s[kDq], s[kDk], s[kDv]}, this->hooks);
      }
      if (bf16_ != nullptr) return bf16_->backward(s[kDo], s[kDq], s[kDk], s[kDv]);
    }
    AttentionBackward<T>{shape_, s[kDo], q_rotated_.data(), keys(),  values(), s[kDq],
                         s[kDk], s[kDv], saved_.data(),     s[kWork]}
        .run_on(c_.backend);
  }
  [[nodiscard]] int64_t kv_width() const { return c_.config.key_head() * c_.config.kv_heads; }
  [[nodiscard]] RopeShape<T> rope(int64_t heads) const {
    return {c_.rows(), c_.length, heads, c_.config.key_head(), cosine_.data(), sine_.data()};
  }
  [[nodiscard]] RmsNormForward<T> norm(int64_t rows, const T *x, const char *name, T *y, T *rstd) const {
    return {rows,
            c_.config.key_head(),
            T(c_.config.norm_epsilon),
            x,
            c_.parameters.value(path_ + name + ".weight"),
            y,
            rstd};
  }
  void norm_backward(int64_t rows, T *grad, const T *x, const char *name, const T *rstd, T *terms) {
    const std::string weight = path_ + name + ".weight";
    c_.backend.run(RmsNormBackward<T>{rows, c_.config.key_head(), grad, x, c_.parameters.value(weight), rstd,
                                      nullptr, grad, terms});
    c_.backend.run(AccumulateColumns<T>{rows, c_.config.key_head(), terms, c_.parameters.gradient(weight)});
  }

  BlockContext<T> c_;
  Scratch<T> &scratch_;
  std::string path_;
  AttentionShape<T> shape_{};
  Array<T> q_, q_rotated_, k_, k_rotated_, v_, k_cache_, v_cache_, o_, q_rstd_, k_rstd_, saved_, cosine_,
      sine_;
  const T *x_ = nullptr, *dy_ = nullptr;
  std::unique_ptr<Bf16Attention> bf16_;         ///< in place of the FP32 kernels, where the recipe wants it
  std::unique_ptr<AttentionProducts> products_; ///< likewise, where it has rules for them
  std::unique_ptr<LinearGroup<T>> input_, output_;
};

} // namespace

template <class T>
std::unique_ptr<Mixer<T>> make_attention(const BlockContext<T> &context, Scratch<T> &scratch) {
  return std::make_unique<AttentionMixer<T>>(context, scratch);
}
template std::unique_ptr<Mixer<float>> make_attention(const BlockContext<float> &, Scratch<float> &);
template std::unique_ptr<Mixer<double>> make_attention(const BlockContext<double> &, Scratch<double> &);

} // namespace nvfp4::models
