// SPDX-License-Identifier: Apache-2.0
// The order of the products of a layer's gated delta rule.
#include "nvfp4/reference_models/model/delta_products.hpp"

namespace nvfp4::models {
namespace {

constexpr const char *kRoles[] = {"attn.qk",         "attn.kk",           "attn.av",
                                  "attn.state_read", "attn.state_update", "attn.state_recall"};

} // namespace

DeltaRuleProducts::DeltaRuleProducts(const BlockContext<float> &context, const DeltaShape<float> &shape,
                                     Scratch<float> &scratch, size_t slot, float *saved)
    : ChunkProducts(context, kRoles, shape.heads, scratch, slot), s_(shape), saved_(saved) {
  const int64_t h = s_.heads, n = kChunk, dk = s_.key, dv = s_.value;
  for (const Slot x : {kQ, kK, kReads, kRecalls, kLeaves, kDq, kDk, kRecallGrads, kLeafGrads})
    reserve(x, h * n * dk);
  for (const Slot x : {kUt, kO, kR, kDut, kDv}) reserve(x, h * n * dv);
  for (const Slot x : {kQk, kKk}) reserve(x, h * n * n);
  for (const Slot x : {kSt, kDs, kDst}) reserve(x, h * dk * dv);
}

DeltaRuleProducts::Chunk DeltaRuleProducts::chunk_of(const ChunkPlace &here) const {
  const DeltaPlace<float> place{s_, here.sequence, here.chunk};
  const int64_t n = here.n, dk = s_.key, dv = s_.value;
  const auto of = [&](int64_t rows, int64_t in, int64_t out, Slot x, Slot w, Slot dy) {
    return matrices(here, rows, in, out, at(x), at(w), at(dy));
  };
  return {here,
          place,
          n,
          place.at(0).state,
          of(n, dk, n, kQ, kK, kQk),
          of(n, dk, n, kK, kK, kKk),
          of(n, n, dv, kQk, kUt, kO),
          of(n, dk, dv, kReads, kSt, kO),
          of(dk, n, dv, kLeaves, kUt, kDs),
          of(n, dk, dv, kRecalls, kSt, kDv)};
}

void DeltaRuleProducts::read_factors(const Inputs &in, const Chunk &c) const {
  gather(c.here, in.q, s_.key, at(kQ));
  gather(c.here, in.k, s_.key, at(kK));
  c_.backend.run(
      DeltaStateFactors<float>{c.place, in.q, in.k, saved_, at(kReads), at(kRecalls), at(kLeaves)});
  turn(saved_ + c.state, s_.key, s_.value, s_.chunk_count() * s_.key * s_.value, at(kSt));
}

void DeltaRuleProducts::forward(const StepContext &step, const Inputs &in, float *o,
                                const MixerHooks<float> &hooks) {
  using enum Product;
  const int64_t dk = s_.key, dv = s_.value, states = s_.chunk_count() * dk * dv;
  c_.backend.run(DeltaDecays<float>{s_, in.g, saved_});
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence)
    for (int64_t chunk = 0; chunk < s_.chunk_count(); ++chunk) {
      const Chunk c = chunk_of(place(step, hooks, sequence, chunk));
      const int64_t n = c.n;
      float *const state = saved_ + c.state;
      if (chunk == 0) // of every head, `states` apart
        for (int64_t h = 0; h < s_.heads; ++h) zero(state + h * states, dk * dv);
      read_factors(in, c);
      look(c.here, "q", StepTensor::input, at(kQ), n, dk);
      look(c.here, "k", StepTensor::input, at(kK), n, dk);
      look(c.here, "state", StepTensor::output, at(kSt), dv, dk);
      const auto make = [&](Operator op, const Matrices &of, float *to, int64_t stride, bool add) {
        product(c.here, op, fprop, of, to, stride, add);
      };
      make(kOfQk, c.qk, at(kQk), n * n, false);
      make(kOfKk, c.kk, at(kKk), n * n, false);
      c_.backend.run(DeltaScores<float>{c.place, at(kKk), at(kQk), saved_});
      gather(c.here, in.v, dv, at(kR));
      make(kOfRecall, c.recall, at(kR), n * dv, true);
      c_.backend.run(DeltaSolve<float>{c.place, in.beta, at(kR), saved_});
      c_.backend.run(DeltaWritten<float>{c.place, in.beta, saved_, at(kUt)});
      look(c.here, "qk", StepTensor::output, at(kQk), n, n);
      look(c.here, "u", StepTensor::output, at(kUt), dv, n);
      make(kOfRead, c.read, at(kO), n * dv, false);
      make(kOfAv, c.av, at(kO), n * dv, true);
      scatter(c.here, at(kO), dv, o);
      if (chunk + 1 == s_.chunk_count()) continue;
      float *const next = state + dk * dv;
      c_.backend.run(DeltaDecayed<float>{c.place, saved_, state, next, states});
      make(kOfUpdate, c.update, next, states, true);
    }
}

void DeltaRuleProducts::backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                                 const MixerHooks<float> &hooks) {
  using enum Product;
  const int64_t dk = s_.key, dv = s_.value, chunks = s_.chunk_count();
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence) {
    zero(at(kDst), s_.heads * dk * dv);
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const Chunk c = chunk_of(place(step, hooks, sequence, chunk));
      const int64_t n = c.n;
      const bool last = chunk + 1 == chunks; // whose update forward does not make
      const auto make = [&](Operator op, Product p, const Matrices &of, float *to, int64_t stride, bool add) {
        if (op == kOfUpdate && last)
          hidden_product(c.here, op, p, of, to, stride, add);
        else
          product(c.here, op, p, of, to, stride, add);
      };
      read_factors(in, c);
      c_.backend.run(DeltaWritten<float>{c.place, in.beta, saved_, at(kUt)});
      gather(c.here, grad.o, dv, at(kO));
      turn(at(kDst), dv, dk, dk * dv, at(kDs));
      look(c.here, "state", StepTensor::output_grad, at(kDs), dk, dv);
      c_.backend.run(MoveHeads<float>{s_.heads,
                                      n,
                                      n,
                                      saved_ + c.place.at(0).a,
                                      {s_.length * kDeltaChunk, kDeltaChunk, 1},
                                      at(kQk), // their gradient's place afterwards
                                      {n * n, n, 1}});
      zero(at(kDut), s_.heads * n * dv);
      make(kOfUpdate, wgrad, c.update, at(kDut), n * dv, true);
      make(kOfAv, wgrad, c.av, at(kDut), n * dv, true);
      c_.backend.run(DeltaSolveBack<float>{c.place, in.beta, saved_, at(kDut), at(kR), at(kDv)});
      look(c.here, "v", StepTensor::output_grad, at(kDv), n, dv);
      scatter(c.here, at(kDv), dv, grad.v);
      observe(c.here, kOfAv, c.av);
      observe(c.here, kOfRead, c.read);
      observe(c.here, kOfUpdate, c.update);
      observe(c.here, kOfRecall, c.recall);
      make(kOfAv, dgrad, c.av, at(kQk), n * n, false);
      look(c.here, "av", StepTensor::input_grad, at(kQk), n, n);
      make(kOfUpdate, dgrad, c.update, at(kLeafGrads), n * dk, false);
      make(kOfRead, dgrad, c.read, at(kDq), n * dk, false);
      make(kOfRecall, dgrad, c.recall, at(kRecallGrads), n * dk, false);
      c_.backend.run(DeltaFactorGradients<float>{c.place, in.q, in.k, saved_, at(kUt), at(kR), at(kDv),
                                                 at(kDs), at(kLeafGrads), at(kQk), at(kKk), at(kDq),
                                                 at(kRecallGrads), at(kDk), grad.beta, grad.g});
      look(c.here, "kk", StepTensor::output_grad, at(kKk), n, n);
      make(kOfQk, dgrad, c.qk, at(kDq), n * dk, true);
      make(kOfKk, dgrad, c.kk, at(kRecallGrads), n * dk, true);
      make(kOfQk, wgrad, c.qk, at(kDk), n * dk, true);
      make(kOfKk, wgrad, c.kk, at(kDk), n * dk, true);
      observe(c.here, kOfQk, c.qk);
      observe(c.here, kOfKk, c.kk);
      const int64_t keys = s_.heads * n * dk;
      c_.backend.run(Add<float>{keys, at(kDk), at(kRecallGrads), at(kDk)});
      scatter(c.here, at(kDq), dk, grad.q);
      scatter(c.here, at(kDk), dk, grad.k);
      if (chunk == 0) break;
      c_.backend.run(DeltaDecayed<float>{c.place, saved_, at(kDst), at(kDst), dk * dv});
      make(kOfRead, wgrad, c.read, at(kDst), dk * dv, true);
      make(kOfRecall, wgrad, c.recall, at(kDst), dk * dv, true);
    }
  }
}

} // namespace nvfp4::models
