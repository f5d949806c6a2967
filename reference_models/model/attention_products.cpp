// SPDX-License-Identifier: Apache-2.0
// The order of the products of a layer's attention.
#include "nvfp4/reference_models/model/attention_products.hpp"

namespace nvfp4::models {
AttentionProducts::AttentionProducts(const BlockContext<float> &context, const AttentionShape<float> &shape,
                                     Scratch<float> &scratch, size_t slot)
    : c_(context), s_(shape), scratch_(&scratch), first_(slot),
      qk_(make_operator_products(context, "attn.qk")), pv_(make_operator_products(context, "attn.pv")) {
  const int64_t query = s_.heads * s_.length * s_.dim, key = s_.kv_heads * s_.length * s_.dim;
  for (const Slot x : {kQ, kDo, kHeads}) scratch.reserve(first_ + x, query);
  for (const Slot x : {kK, kVt, kDk, kDvt}) scratch.reserve(first_ + x, key);
  for (const Slot x : {kP, kDs}) scratch.reserve(first_ + x, s_.heads * s_.length * s_.length);
}

void AttentionProducts::split(const float *from, int64_t heads, float *to) const {
  c_.backend.run(MoveHeads<float>{
      heads, s_.length, s_.dim, from, {s_.dim, heads * s_.dim, 1}, to, {s_.length * s_.dim, s_.dim, 1}});
}

void AttentionProducts::merge(const float *from, int64_t heads, float *to) const {
  c_.backend.run(MoveHeads<float>{
      heads, s_.length, s_.dim, from, {s_.length * s_.dim, s_.dim, 1}, to, {s_.dim, heads * s_.dim, 1}});
}

void AttentionProducts::turn(const float *v, float *to) const {
  c_.backend.run(MoveHeads<float>{s_.kv_heads,
                                  s_.dim,
                                  s_.length,
                                  v,
                                  {s_.dim, 1, s_.kv_heads * s_.dim},
                                  to,
                                  {s_.length * s_.dim, s_.length, 1}});
}

std::vector<OperatorMatrices> AttentionProducts::matrices(bool pv, int64_t sequence) const {
  std::vector<OperatorMatrices> all;
  const int64_t square = s_.length * s_.length, head = s_.length * s_.dim;
  for (int64_t h = 0; h < s_.heads; ++h) {
    const int64_t kv = h / s_.group();
    const auto stream = uint64_t(sequence * s_.heads + h), w_stream = uint64_t(sequence * s_.kv_heads + kv);
    if (pv)
      all.push_back({s_.length, s_.length, s_.dim, at(kP) + h * square, at(kVt) + kv * head,
                     at(kDo) + h * head, stream, w_stream});
    else
      all.push_back({s_.length, s_.dim, s_.length, at(kQ) + h * head, at(kK) + kv * head,
                     at(kDs) + h * square, stream, w_stream});
  }
  return all;
}

void AttentionProducts::run_each(const StepContext &step, const OperatorProducts &op, Product product,
                                 const std::vector<OperatorMatrices> &of, float *to, int64_t elements) const {
  std::vector<float *> out;
  for (size_t i = 0; i < of.size(); ++i) out.push_back(to + int64_t(i) * elements);
  op.run(step, product, of, out, false);
}

/// The weight gradients of a key head's query heads, added in their order.
void AttentionProducts::add_by_group(const StepContext &step, const OperatorProducts &op,
                                     const std::vector<OperatorMatrices> &of, float *to) const {
  const int64_t elements = s_.length * s_.dim;
  c_.backend.zero(to, size_t(s_.kv_heads * elements) * sizeof(float));
  for (int64_t member = 0; member < s_.group(); ++member) {
    std::vector<OperatorMatrices> one;
    std::vector<float *> out;
    for (int64_t kv = 0; kv < s_.kv_heads; ++kv) {
      one.push_back(of[size_t(kv * s_.group() + member)]);
      out.push_back(to + kv * elements);
    }
    op.run(step, Product::wgrad, one, out, true);
  }
}

/// At (heads, length, length) between two products.
void AttentionProducts::look(const MixerHooks<float> &hooks, const char *module, StepTensor what,
                             const float *squares) const {
  hooks.trace(mixer_path(c_.config, c_.layer) + module, what, {s_.heads, s_.length, s_.length}, squares);
  hooks.watch->add(squares, s_.heads * s_.length * s_.length);
  hooks.watch->flush();
}

void AttentionProducts::probabilities(const StepContext &step, const Inputs &in, int64_t sequence,
                                      const MixerHooks<float> &hooks, bool forward) const {
  const int64_t row = sequence * s_.length;
  split(in.q + row * s_.heads * s_.dim, s_.heads, at(kQ));
  split(in.k + row * s_.kv_heads * s_.dim, s_.kv_heads, at(kK));
  turn(in.v + row * s_.kv_heads * s_.dim, at(kVt));
  run_each(step, qk_, Product::fprop, matrices(false, sequence), at(kP), s_.length * s_.length);
  look(hooks, "qk", StepTensor::output, at(kP));
  if (forward) {
    show(hooks, "attn.qk", StepTensor::input, at(kQ), s_.heads, s_.length, s_.dim);
    show(hooks, "attn.qk", StepTensor::weight, at(kK), s_.kv_heads, s_.length, s_.dim);
    show(hooks, "attn.qk", StepTensor::output, at(kP), s_.heads, s_.length, s_.length);
  }
  c_.backend.run(AttentionProbabilities<float>{s_.heads, s_.length, s_.scale, at(kP)});
}

void AttentionProducts::forward(const StepContext &step, const Inputs &in, float *o,
                                const MixerHooks<float> &hooks) {
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence) {
    probabilities(step, in, sequence, hooks, true);
    run_each(step, pv_, Product::fprop, matrices(true, sequence), at(kHeads), s_.length * s_.dim);
    show(hooks, "attn.pv", StepTensor::input, at(kP), s_.heads, s_.length, s_.length);
    show(hooks, "attn.pv", StepTensor::weight, at(kVt), s_.kv_heads, s_.dim, s_.length);
    show(hooks, "attn.pv", StepTensor::output, at(kHeads), s_.heads, s_.length, s_.dim);
    merge(at(kHeads), s_.heads, o + sequence * s_.length * s_.heads * s_.dim);
  }
}

void AttentionProducts::backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                                 const MixerHooks<float> &hooks) {
  const int64_t square = s_.length * s_.length, head = s_.length * s_.dim;
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence) {
    const int64_t q = sequence * s_.heads * head, kv = sequence * s_.kv_heads * head;
    probabilities(step, in, sequence, hooks, false);
    split(grad.o + q, s_.heads, at(kDo));
    const std::vector<OperatorMatrices> pv = matrices(true, sequence), qk = matrices(false, sequence);
    run_each(step, pv_, Product::dgrad, pv, at(kDs), square);
    look(hooks, "pv", StepTensor::input_grad, at(kDs));
    add_by_group(step, pv_, pv, at(kDvt));
    show(hooks, "attn.pv", StepTensor::output_grad, at(kDo), s_.heads, s_.length, s_.dim);
    show(hooks, "attn.pv", StepTensor::input_grad, at(kDs), s_.heads, s_.length, s_.length);
    show(hooks, "attn.pv", StepTensor::weight_grad, at(kDvt), s_.kv_heads, s_.dim, s_.length);
    c_.backend.run(AttentionScoreGradients<float>{s_.heads, s_.length, s_.scale, at(kP), at(kDs)});
    look(hooks, "qk", StepTensor::output_grad, at(kDs));
    run_each(step, qk_, Product::dgrad, qk, at(kHeads), head);
    add_by_group(step, qk_, qk, at(kDk));
    show(hooks, "attn.qk", StepTensor::output_grad, at(kDs), s_.heads, s_.length, s_.length);
    show(hooks, "attn.qk", StepTensor::input_grad, at(kHeads), s_.heads, s_.length, s_.dim);
    show(hooks, "attn.qk", StepTensor::weight_grad, at(kDk), s_.kv_heads, s_.length, s_.dim);
    merge(at(kHeads), s_.heads, grad.q + q);
    merge(at(kDk), s_.kv_heads, grad.k + kv);
    c_.backend.run(MoveHeads<float>{s_.kv_heads,
                                    s_.dim,
                                    s_.length,
                                    at(kDvt),
                                    {head, s_.length, 1},
                                    grad.v + kv,
                                    {s_.dim, 1, s_.kv_heads * s_.dim}});
    if (!hooks.observer) continue;
    observe_operator(c_, qk_, "attn.qk", sequence, qk, hooks);
    observe_operator(c_, pv_, "attn.pv", sequence, pv, hooks);
  }
}

void AttentionProducts::show(const MixerHooks<float> &hooks, const char *role, StepTensor what,
                             const float *data, int64_t heads, int64_t rows, int64_t cols) const {
  show_operator(c_, role, what, {}, data, heads, rows, cols, rows * cols, hooks);
}

} // namespace nvfp4::models
