// SPDX-License-Identifier: Apache-2.0
// The order of the products of a layer's gated delta rule.
#include "nvfp4/reference_models/model/delta_products.hpp"

namespace nvfp4::models {
namespace {

constexpr const char *kRoles[] = {"attn.qk",         "attn.kk",           "attn.av",
                                  "attn.state_read", "attn.state_update", "attn.state_recall"};
constexpr uint64_t kSubChunks = 4; // in GLA, whose random words have the same keys

} // namespace

DeltaRuleProducts::DeltaRuleProducts(const BlockContext<float> &context, const DeltaShape<float> &shape,
                                     Scratch<float> &scratch, size_t slot, float *saved)
    : c_(context), s_(shape), scratch_(&scratch), first_(slot), saved_(saved) {
  for (const char *role : kRoles) operators_.push_back(make_operator_products(context, role));
  const int64_t h = s_.heads, n = kDeltaChunk, dk = s_.key, dv = s_.value;
  for (const Slot x : {kQ, kK, kReads, kRecalls, kLeaves, kDq, kDk, kRecallGrads, kLeafGrads})
    scratch.reserve(first_ + x, h * n * dk);
  for (const Slot x : {kUt, kO, kR, kDut, kDv}) scratch.reserve(first_ + x, h * n * dv);
  for (const Slot x : {kQk, kKk}) scratch.reserve(first_ + x, h * n * n);
  for (const Slot x : {kSt, kDs, kDst}) scratch.reserve(first_ + x, h * dk * dv);
}

DeltaRuleProducts::Matrices DeltaRuleProducts::matrices(const DeltaPlace<float> &place, int64_t rows,
                                                        int64_t in, int64_t out, Slot x, Slot w,
                                                        Slot dy) const {
  Matrices all;
  for (int64_t h = 0; h < s_.heads; ++h) {
    const auto chunk = uint64_t((place.sequence * s_.heads + h) * s_.chunk_count() + place.chunk);
    all.push_back({rows, in, out, at(x) + h * rows * in, at(w) + h * out * in, at(dy) + h * rows * out,
                   chunk * kSubChunks, chunk * kSubChunks});
  }
  return all;
}

DeltaRuleProducts::Chunk DeltaRuleProducts::chunk_of(int64_t sequence, int64_t chunk) const {
  const DeltaPlace<float> place{s_, sequence, chunk};
  const DeltaChunk<float> first = place.at(0);
  const int64_t n = first.n, dk = s_.key, dv = s_.value;
  return {place,
          n,
          first.state,
          matrices(place, n, dk, n, kQ, kK, kQk),
          matrices(place, n, dk, n, kK, kK, kKk),
          matrices(place, n, n, dv, kQk, kUt, kO),
          matrices(place, n, dk, dv, kReads, kSt, kO),
          matrices(place, dk, n, dv, kLeaves, kUt, kDs),
          matrices(place, n, dk, dv, kRecalls, kSt, kDv)};
}

void DeltaRuleProducts::gather(const float *from, int64_t width, const Chunk &c, Slot to) const {
  const int64_t row = c.place.sequence * s_.length + c.place.chunk * kDeltaChunk;
  c_.backend.run(MoveHeads<float>{s_.heads,
                                  c.n,
                                  width,
                                  from + row * s_.heads * width,
                                  {width, s_.heads * width, 1},
                                  at(to),
                                  {c.n * width, width, 1}});
}
void DeltaRuleProducts::scatter(Slot from, int64_t width, const Chunk &c, float *to) const {
  const int64_t row = c.place.sequence * s_.length + c.place.chunk * kDeltaChunk;
  c_.backend.run(MoveHeads<float>{s_.heads,
                                  c.n,
                                  width,
                                  at(from),
                                  {c.n * width, width, 1},
                                  to + row * s_.heads * width,
                                  {width, s_.heads * width, 1}});
}
void DeltaRuleProducts::turn(const float *from, int64_t rows, int64_t cols, int64_t stride, Slot to) const {
  c_.backend.run(
      MoveHeads<float>{s_.heads, rows, cols, from, {stride, cols, 1}, at(to), {rows * cols, 1, rows}});
}

void DeltaRuleProducts::read_factors(const Inputs &in, const Chunk &c) const {
  gather(in.q, s_.key, c, kQ);
  gather(in.k, s_.key, c, kK);
  c_.backend.run(
      DeltaStateFactors<float>{c.place, in.q, in.k, saved_, at(kReads), at(kRecalls), at(kLeaves)});
  turn(saved_ + c.state, s_.key, s_.value, s_.chunk_count() * s_.key * s_.value, kSt);
}

void DeltaRuleProducts::run(const StepContext &step, Operator op, Product product, const Matrices &of,
                            float *to, int64_t stride, bool add) const {
  std::vector<float *> out;
  for (size_t h = 0; h < of.size(); ++h) out.push_back(to + int64_t(h) * stride);
  operators_[op].run(step, product, of, out, add);
}

void DeltaRuleProducts::show(const MixerHooks<float> &hooks, const Chunk &c, Operator op, Product product,
                             const Matrices &of, const float *made, int64_t stride) const {
  const OperatorMatrices &m = of.front();
  const auto each = [&](StepTensor what, const float *data, int64_t rows, int64_t cols, int64_t step) {
    show_operator(c_, kRoles[op], what, {c.place.chunk, -1}, data, s_.heads, rows, cols, step, hooks);
  };
  switch (product) {
  case Product::fprop:
    each(StepTensor::input, m.x, m.rows, m.in, m.rows * m.in);
    each(StepTensor::weight, m.w, m.out, m.in, m.out * m.in);
    return each(StepTensor::output, made, m.rows, m.out, stride);
  case Product::dgrad:
    each(StepTensor::output_grad, m.dy, m.rows, m.out, m.rows * m.out);
    return each(StepTensor::input_grad, made, m.rows, m.in, stride);
  case Product::wgrad: return each(StepTensor::weight_grad, made, m.out, m.in, stride);
  }
}

void DeltaRuleProducts::look(const MixerHooks<float> &hooks, const char *module, StepTensor what, Slot data,
                             int64_t rows, int64_t cols) const {
  hooks.trace(mixer_path(c_.config, c_.layer) + module, what, {s_.heads, rows, cols}, at(data));
  hooks.watch->add(at(data), s_.heads * rows * cols);
  hooks.watch->flush();
}

void DeltaRuleProducts::forward(const StepContext &step, const Inputs &in, float *o,
                                const MixerHooks<float> &hooks) {
  using enum Product;
  const int64_t dk = s_.key, dv = s_.value, states = s_.chunk_count() * dk * dv;
  c_.backend.run(DeltaDecays<float>{s_, in.g, saved_});
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence)
    for (int64_t chunk = 0; chunk < s_.chunk_count(); ++chunk) {
      const Chunk c = chunk_of(sequence, chunk);
      const int64_t n = c.n;
      float *const state = saved_ + c.state;
      if (chunk == 0) // of every head, `states` apart
        for (int64_t h = 0; h < s_.heads; ++h)
          c_.backend.zero(state + h * states, size_t(dk * dv) * sizeof(float));
      read_factors(in, c);
      look(hooks, "q", StepTensor::input, kQ, n, dk);
      look(hooks, "k", StepTensor::input, kK, n, dk);
      look(hooks, "state", StepTensor::output, kSt, dv, dk);
      const auto product = [&](Operator op, const Matrices &of, float *to, int64_t stride, bool add) {
        run(step, op, fprop, of, to, stride, add);
        show(hooks, c, op, fprop, of, to, stride);
      };
      product(kOfQk, c.qk, at(kQk), n * n, false);
      product(kOfKk, c.kk, at(kKk), n * n, false);
      c_.backend.run(DeltaScores<float>{c.place, at(kKk), at(kQk), saved_});
      gather(in.v, dv, c, kR);
      product(kOfRecall, c.recall, at(kR), n * dv, true);
      c_.backend.run(DeltaSolve<float>{c.place, in.beta, at(kR), saved_});
      c_.backend.run(DeltaWritten<float>{c.place, in.beta, saved_, at(kUt)});
      look(hooks, "qk", StepTensor::output, kQk, n, n);
      look(hooks, "u", StepTensor::output, kUt, dv, n);
      product(kOfRead, c.read, at(kO), n * dv, false);
      product(kOfAv, c.av, at(kO), n * dv, true);
      scatter(kO, dv, c, o);
      if (chunk + 1 == s_.chunk_count()) continue;
      float *const next = state + dk * dv;
      c_.backend.run(DeltaDecayed<float>{c.place, saved_, state, next, states});
      product(kOfUpdate, c.update, next, states, true);
    }
}

void DeltaRuleProducts::backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                                 const MixerHooks<float> &hooks) {
  using enum Product;
  const int64_t dk = s_.key, dv = s_.value, chunks = s_.chunk_count();
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence) {
    c_.backend.zero(at(kDst), size_t(s_.heads * dk * dv) * sizeof(float));
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const Chunk c = chunk_of(sequence, chunk);
      const int64_t n = c.n;
      const bool last = chunk + 1 == chunks; // whose update forward does not make
      const auto product = [&](Operator op, Product p, const Matrices &of, float *to, int64_t stride,
                               bool add) {
        run(step, op, p, of, to, stride, add);
        if (op != kOfUpdate || !last) show(hooks, c, op, p, of, to, stride);
      };
      read_factors(in, c);
      c_.backend.run(DeltaWritten<float>{c.place, in.beta, saved_, at(kUt)});
      gather(grad.o, dv, c, kO);
      turn(at(kDst), dv, dk, dk * dv, kDs);
      look(hooks, "state", StepTensor::output_grad, kDs, dk, dv);
      c_.backend.run(MoveHeads<float>{s_.heads,
                                      n,
                                      n,
                                      saved_ + c.place.at(0).a,
                                      {s_.length * kDeltaChunk, kDeltaChunk, 1},
                                      at(kQk), // their gradient's place afterwards
                                      {n * n, n, 1}});
      c_.backend.zero(at(kDut), size_t(s_.heads * n * dv) * sizeof(float));
      product(kOfUpdate, wgrad, c.update, at(kDut), n * dv, true);
      product(kOfAv, wgrad, c.av, at(kDut), n * dv, true);
      c_.backend.run(DeltaSolveBack<float>{c.place, in.beta, saved_, at(kDut), at(kR), at(kDv)});
      look(hooks, "v", StepTensor::output_grad, kDv, n, dv);
      scatter(kDv, dv, c, grad.v);
      if (hooks.observer)
        for (const auto &[op, of] : {std::pair{kOfAv, &c.av}, std::pair{kOfRead, &c.read},
                                     std::pair{kOfUpdate, &c.update}, std::pair{kOfRecall, &c.recall}})
          observe_operator(c_, operators_[op], kRoles[op], sequence, *of, hooks);
      product(kOfAv, dgrad, c.av, at(kQk), n * n, false);
      look(hooks, "av", StepTensor::input_grad, kQk, n, n);
      product(kOfUpdate, dgrad, c.update, at(kLeafGrads), n * dk, false);
      product(kOfRead, dgrad, c.read, at(kDq), n * dk, false);
      product(kOfRecall, dgrad, c.recall, at(kRecallGrads), n * dk, false);
      c_.backend.run(DeltaFactorGradients<float>{c.place, in.q, in.k, saved_, at(kUt), at(kR), at(kDv),
                                                 at(kDs), at(kLeafGrads), at(kQk), at(kKk), at(kDq),
                                                 at(kRecallGrads), at(kDk), grad.beta, grad.g});
      look(hooks, "kk", StepTensor::output_grad, kKk, n, n);
      product(kOfQk, dgrad, c.qk, at(kDq), n * dk, true);
      product(kOfKk, dgrad, c.kk, at(kRecallGrads), n * dk, true);
      product(kOfQk, wgrad, c.qk, at(kDk), n * dk, true);
      product(kOfKk, wgrad, c.kk, at(kDk), n * dk, true);
      if (hooks.observer)
        for (const auto &[op, of] : {std::pair{kOfQk, &c.qk}, std::pair{kOfKk, &c.kk}})
          observe_operator(c_, operators_[op], kRoles[op], sequence, *of, hooks);
      const int64_t keys = s_.heads * n * dk;
      c_.backend.run(Add<float>{keys, at(kDk), at(kRecallGrads), at(kDk)});
      scatter(kDq, dk, c, grad.q);
      scatter(kDk, dk, c, grad.k);
      if (chunk == 0) break;
      c_.backend.run(DeltaDecayed<float>{c.place, saved_, at(kDst), at(kDst), dk * dv});
      product(kOfRead, wgrad, c.read, at(kDst), dk * dv, true);
      product(kOfRecall, wgrad, c.recall, at(kDst), dk * dv, true);
    }
  }
}

} // namespace nvfp4::models
