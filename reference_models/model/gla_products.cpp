// SPDX-License-Identifier: Apache-2.0
// The order of the products of a layer's gated linear attention.
#include "nvfp4/reference_models/model/gla_products.hpp"

#include <algorithm>

namespace nvfp4::models {

const GlaProducts::Names GlaProducts::kGla = {
    {"attn.qk", "attn.av", "attn.state_read", "attn.state_update"}, "qk", "av"};
const GlaProducts::Names GlaProducts::kSlots = {
    {"attn.slot_weights", "attn.av", "attn.state_read", "attn.state_update"}, "slot_weights", "av"};

GlaProducts::GlaProducts(const BlockContext<float> &context, const Names &names, Gates gates,
                         const GlaShape<float> &shape, Scratch<float> &scratch, size_t slot, float *saved)
    : ChunkProducts(context, names.roles, shape.heads, scratch, slot), names_(names), gates_(gates),
      s_(shape), saved_(saved) {
  const int64_t h = s_.heads, n = kChunk, dk = s_.key, dv = s_.value;
  for (const Slot x : {kReads, kLeaves, kQueries, kKeys, kX, kY}) reserve(x, h * n * dk);
  for (const Slot x : {kVt, kO, kDvt}) reserve(x, h * n * dv);
  for (const Slot x : {kA, kDa, kBlock}) reserve(x, h * n * n);
  for (const Slot x : {kSt, kDs, kDst}) reserve(x, h * dk * dv);
}

void GlaProducts::forward(const StepContext &step, const Inputs &in, float *o,
                          const MixerHooks<float> &hooks) {
  using enum Product;
  const int64_t h = s_.heads, dk = s_.key, dv = s_.value, states = s_.chunk_count() * dk * dv;
  c_.backend.run(GlaDecays<float>{s_, in.g, saved_});
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence)
    for (int64_t chunk = 0; chunk < s_.chunk_count(); ++chunk) {
      const ChunkPlace here = place(step, hooks, sequence, chunk);
      const GlaPlace<float> of{s_, sequence, chunk};
      const GlaChunk<float> first = of.at(0);
      const int64_t n = here.n;
      float *const state = saved_ + first.state;
      if (chunk == 0) // of every head, `states` apart
        for (int64_t i = 0; i < h; ++i) zero(state + i * states, dk * dv);
      c_.backend.run(GlaStateFactors<float>{of, in.q, in.k, saved_, at(kReads), at(kLeaves)});
      gather(here, in.v, dv, at(kVt), true);
      turn(state, dk, dv, states, at(kSt));
      look(here, "state", StepTensor::output, at(kSt), dv, dk);
      product(here, kStateRead, fprop, matrices(here, n, dk, dv, at(kReads), at(kSt), nullptr), at(kO),
              n * dv);
      c_.backend.run(GlaOwnScores<float>{of, in.q, in.k, saved_, at(kA)});
      for (int64_t s = kSub; s < n; s += kSub) {
        const ChunkPlace sub = here.sub_chunk(s / kSub);
        const int64_t m = std::min(kSub, n - s);
        c_.backend.run(GlaSubFactors<float>{of, s, true, in.q, in.k, saved_, at(kQueries), at(kKeys)});
        product(sub, kQk, fprop, matrices(sub, m, dk, s, at(kQueries), at(kKeys), nullptr), at(kBlock),
                m * s);
        c_.backend.run(MoveHeads<float>{h, m, s, at(kBlock), {m * s, s, 1}, at(kA) + s * n, {n * n, n, 1}});
      }
      look(here, names_.scores, StepTensor::output, at(kA), n, n);
      c_.backend.run(MoveHeads<float>{
          h, n, n, at(kA), {n * n, n, 1}, saved_ + first.a, {s_.length * kChunk, kChunk, 1}});
      product(here, kAv, fprop, matrices(here, n, n, dv, at(kA), at(kVt), nullptr), at(kO), n * dv, true);
      scatter(here, at(kO), dv, o);
      if (chunk + 1 == s_.chunk_count()) continue;
      float *const next = state + dk * dv;
      c_.backend.run(GlaDecayed<float>{of, saved_, state, next, states, true});
      product(here, kStateUpdate, fprop, matrices(here, dk, n, dv, at(kLeaves), at(kVt), nullptr), next,
              states, true);
    }
}

void GlaProducts::backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                           const MixerHooks<float> &hooks) {
  using enum Product;
  const int64_t h = s_.heads, dk = s_.key, dv = s_.value, states = s_.chunk_count() * dk * dv;
  const bool passed = gates_ == Gates::passed;
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence) {
    zero(at(kDst), h * dk * dv);
    for (int64_t chunk = s_.chunk_count() - 1; chunk >= 0; --chunk) {
      const ChunkPlace here = place(step, hooks, sequence, chunk);
      const GlaPlace<float> of{s_, sequence, chunk};
      const GlaChunk<float> first = of.at(0);
      const int64_t n = here.n;
      c_.backend.run(GlaStateFactors<float>{of, in.q, in.k, saved_, at(kReads), at(kLeaves)});
      gather(here, in.v, dv, at(kVt), true);
      gather(here, grad.o, dv, at(kO));
      turn(saved_ + first.state, dk, dv, states, at(kSt));
      turn(at(kDst), dv, dk, dk * dv, at(kDs));
      look(here, "state", StepTensor::output_grad, at(kDs), dk, dv);
      c_.backend.run(MoveHeads<float>{
          h, n, n, saved_ + first.a, {s_.length * kChunk, kChunk, 1}, at(kA), {n * n, n, 1}});
      const Matrices read = matrices(here, n, dk, dv, at(kReads), at(kSt), at(kO)),
                     update = matrices(here, dk, n, dv, at(kLeaves), at(kVt), at(kDs)),
                     av = matrices(here, n, n, dv, at(kA), at(kVt), at(kO));
      const auto of_update = [&](Product p, float *to, int64_t stride, bool add) {
        if (chunk + 1 == s_.chunk_count()) // whose update forward does not make
          hidden_product(here, kStateUpdate, p, update, to, stride, add);
        else
          product(here, kStateUpdate, p, update, to, stride, add);
      };
      zero(at(kDvt), h * n * dv);
      of_update(wgrad, at(kDvt), n * dv, true);
      product(here, kAv, wgrad, av, at(kDvt), n * dv, true);
      scatter(here, at(kDvt), dv, grad.v, true);
      product(here, kStateRead, dgrad, read, at(kX), n * dk);
      of_update(dgrad, at(kY), n * dk, false);
      product(here, kAv, dgrad, av, at(kDa), n * n);
      look(here, names_.outputs, StepTensor::input_grad, at(kDa), n, n);
      c_.backend.run(
          GlaStateFactorGradients<float>{of, in.q, saved_, at(kX), at(kY), at(kDa), grad.q, grad.k});
      if (passed) {
        c_.backend.run(PassedStates<float>{of, saved_, at(kDs), grad.g});
        c_.backend.run(PassedReads<float>{of, 0, n, in.q, saved_, at(kX), grad.g});
        c_.backend.run(PassedLeaves<float>{of, n, in.k, saved_, at(kY), {n * dk, 1, n}, grad.g});
      }
      for (int64_t s = kSub; s < n; s += kSub) {
        const ChunkPlace sub = here.sub_chunk(s / kSub);
        const int64_t m = std::min(kSub, n - s);
        float *const reads = at(kX) + h * s * dk; // of all sub-chunks
        c_.backend.run(GlaSubFactors<float>{of, s, false, in.q, in.k, saved_, at(kQueries), at(kKeys)});
        c_.backend.run(MoveHeads<float>{h, m, s, at(kDa) + s * n, {n * n, n, 1}, at(kBlock), {m * s, s, 1}});
        const Matrices qk = matrices(sub, m, dk, s, at(kQueries), at(kKeys), at(kBlock));
        product(sub, kQk, dgrad, qk, reads, m * dk);
        zero(at(kY), h * s * dk);
        product(sub, kQk, wgrad, qk, at(kY), s * dk, true);
        c_.backend.run(GlaSubFactorGradients<float>{of, s, saved_, reads, at(kY), grad.q, grad.k});
        if (passed) c_.backend.run(PassedLeaves<float>{of, s, in.k, saved_, at(kY), {s * dk, dk, 1}, grad.g});
        observe(sub, kQk, qk);
      }
      c_.backend.run(GlaOwnQueryGradients<float>{of, in.k, saved_, at(kDa), grad.q});
      if (passed) {
        for (int64_t s = kSub; s < n; s += kSub)
          c_.backend.run(
              PassedReads<float>{of, s, std::min(s + kSub, n), in.q, saved_, at(kX) + h * s * dk, grad.g});
        c_.backend.run(PassedPairs<float>{of, in.q, in.k, saved_, at(kDa), grad.g});
      }
      observe(here, kAv, av);
      observe(here, kStateRead, read);
      observe(here, kStateUpdate, update);
      if (chunk == 0) break;
      c_.backend.run(GlaDecayed<float>{of, saved_, at(kDst), at(kDst), dk * dv, false});
      product(here, kStateRead, wgrad, read, at(kDst), dk * dv, true);
    }
  }
  if (!passed) c_.backend.run(GlaGateGradients<float>{s_, in.q, in.k, grad.q, grad.k, grad.g});
}

} // namespace nvfp4::models
