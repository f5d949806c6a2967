// SPDX-License-Identifier: Apache-2.0
// The order of the products of gated slot attention's first pass.
#include "nvfp4/reference_models/model/slot_key_products.hpp"

#include <algorithm>

namespace nvfp4::models {
namespace {

constexpr const char *kRoles[] = {"attn.qk", "attn.slot_scores", "attn.state_read_keys",
                                  "attn.state_update_keys"};

} // namespace

SlotKeyProducts::SlotKeyProducts(const BlockContext<float> &context, const GlaShape<float> &shape,
                                 Scratch<float> &scratch, size_t slot, float *saved)
    : ChunkProducts(context, kRoles, shape.heads, scratch, slot), s_(shape), saved_(saved) {
  const int64_t h = s_.heads, n = kChunk, slots = s_.key, key = s_.value;
  for (const Slot x : {kQ, kK, kKt, kDq, kDk, kDkt}) reserve(x, h * n * key);
  for (const Slot x : {kLeaves, kReads, kQueries, kKeys, kKeysTurned, kLeafGrads, kKeyGrads})
    reserve(x, h * n * slots);
  for (const Slot x : {kProducts, kBlock, kA}) reserve(x, h * n * n);
  for (const Slot x : {kState, kDState}) reserve(x, h * slots * key);
  for (Array<float> *a : {&from_states_, &from_tokens_})
    a->reset(c_.backend, s_.batch * s_.length * h * slots);
}

void SlotKeyProducts::read_factors(const ChunkPlace &here, const GlaPlace<float> &of, const Inputs &in,
                                   const float *grad_scores) const {
  const int64_t slots = s_.key, key = s_.value;
  gather(here, in.q, key, at(kQ));
  gather(here, in.k, key, at(kK));
  gather(here, in.k, key, at(kKt), true);
  c_.backend.run(GlaStateFactors<float>{of, grad_scores, in.s, saved_, at(kReads), at(kLeaves)});
  c_.backend.run(MoveHeads<float>{s_.heads,
                                  slots,
                                  key,
                                  saved_ + of.at(0).state,
                                  {s_.chunk_count() * slots * key, key, 1},
                                  at(kState),
                                  {slots * key, key, 1}});
}

void SlotKeyProducts::read_sub_factors(const ChunkPlace &here, const GlaPlace<float> &of, int64_t s,
                                       const Inputs &in, const float *grad_scores) const {
  const int64_t h = s_.heads, n = here.n, m = std::min(kSub, n - s), slots = s_.key;
  c_.backend.run(GlaSubFactors<float>{of, s, false, grad_scores, in.s, saved_, at(kQueries), at(kKeys)});
  turn(at(kKeys), s, slots, s * slots, at(kKeysTurned));
  c_.backend.run(MoveHeads<float>{h, m, s, at(kProducts) + s * n, {n * n, n, 1}, at(kBlock), {m * s, s, 1}});
}

void SlotKeyProducts::forward(const StepContext &step, const Inputs &in, float *scores,
                              const MixerHooks<float> &hooks) {
  using enum Product;
  const int64_t h = s_.heads, slots = s_.key, key = s_.value, states = s_.chunk_count() * slots * key;
  c_.backend.run(GlaDecays<float>{s_, in.g, saved_});
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence)
    for (int64_t chunk = 0; chunk < s_.chunk_count(); ++chunk) {
      const ChunkPlace here = place(step, hooks, sequence, chunk);
      const GlaPlace<float> of{s_, sequence, chunk};
      const GlaChunk<float> first = of.at(0);
      const int64_t n = here.n;
      float *const state = saved_ + first.state,
                   *const from_state = from_states_.data() + here.row * h * slots,
                   *const from_tokens = from_tokens_.data() + here.row * h * slots;
      if (chunk == 0) // of every head, `states` apart
        for (int64_t i = 0; i < h; ++i) zero(state + i * states, slots * key);
      read_factors(here, of, in, nullptr);
      look(here, "q", StepTensor::input, at(kQ), n, key);
      look(here, "k", StepTensor::input, at(kK), n, key);
      look(here, "key_state", StepTensor::output, at(kState), slots, key);
      product(here, kStateRead, fprop, matrices(here, n, key, slots, at(kQ), at(kState), nullptr), from_state,
              n * slots);
      product(here, kQk, fprop, matrices(here, n, key, n, at(kQ), at(kK), nullptr), at(kProducts), n * n);
      look(here, "qk", StepTensor::output, at(kProducts), n, n);
      c_.backend.run(MoveHeads<float>{
          h, n, n, at(kProducts), {n * n, n, 1}, saved_ + first.a, {s_.length * kChunk, kChunk, 1}});
      c_.backend.run(
          GlaStateFactorGradients<float>{of, nullptr, saved_, from_state, nullptr, nullptr, scores, nullptr});
      for (int64_t s = kSub; s < n; s += kSub) {
        const ChunkPlace sub = here.sub_chunk(s / kSub);
        const int64_t m = std::min(kSub, n - s);
        read_sub_factors(here, of, s, in, nullptr);
        product(sub, kScores, fprop, matrices(sub, m, s, slots, at(kBlock), at(kKeysTurned), nullptr),
                from_tokens + h * s * slots, m * slots);
        c_.backend.run(GlaSubFactorGradients<float>{of, s, saved_, from_tokens + h * s * slots, nullptr,
                                                    scores, nullptr});
      }
      c_.backend.run(GlaOwnQueryGradients<float>{of, in.s, saved_, at(kProducts), scores});
      gather(here, scores, slots, at(kReads));
      look(here, "slot_scores", StepTensor::output, at(kReads), n, slots);
      if (chunk + 1 == s_.chunk_count()) continue;
      float *const next = state + slots * key;
      c_.backend.run(GlaDecayed<float>{of, saved_, state, next, states, true});
      product(here, kStateUpdate, fprop, matrices(here, slots, n, key, at(kLeaves), at(kKt), nullptr), next,
              states, true);
    }
}

void SlotKeyProducts::backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                               const MixerHooks<float> &hooks) {
  using enum Product;
  const int64_t h = s_.heads, slots = s_.key, key = s_.value;
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence) {
    zero(at(kDState), h * slots * key);
    for (int64_t chunk = s_.chunk_count() - 1; chunk >= 0; --chunk) {
      const ChunkPlace here = place(step, hooks, sequence, chunk);
      const GlaPlace<float> of{s_, sequence, chunk};
      const int64_t n = here.n;
      const float *const from_state = from_states_.data() + here.row * h * slots, *const from_tokens =
                                                                                      from_tokens_.data() +
                                                                                      here.row * h * slots;
      c_.backend.run(MoveHeads<float>{
          h, n, n, saved_ + of.at(0).a, {s_.length * kChunk, kChunk, 1}, at(kProducts), {n * n, n, 1}});
      read_factors(here, of, in, grad.scores);
      look(here, "key_state", StepTensor::output_grad, at(kDState), slots, key);
      look(here, "slot_scores", StepTensor::output_grad, at(kReads), n, slots);
      const Matrices read = matrices(here, n, key, slots, at(kQ), at(kState), at(kReads)),
                     update = matrices(here, slots, n, key, at(kLeaves), at(kKt), at(kDState)),
                     qk = matrices(here, n, key, n, at(kQ), at(kK), at(kA));
      const auto of_update = [&](Product p, float *to, bool add) {
        if (chunk + 1 == s_.chunk_count()) // whose update forward does not make
          hidden_product(here, kStateUpdate, p, update, to, p == wgrad ? n * key : n * slots, add);
        else
          product(here, kStateUpdate, p, update, to, p == wgrad ? n * key : n * slots, add);
      };
      // what goes through the states
      product(here, kStateRead, dgrad, read, at(kDq), n * key);
      zero(at(kDkt), h * n * key);
      of_update(wgrad, at(kDkt), true);
      turn(at(kDkt), key, n, n * key, at(kDk));
      of_update(dgrad, at(kLeafGrads), false);
      c_.backend.run(GlaStateFactorGradients<float>{of, grad.scores, saved_, nullptr, at(kLeafGrads),
                                                    at(kProducts), nullptr, grad.s});
      c_.backend.run(PassedStates<float>{of, saved_, at(kDState), grad.g});
      c_.backend.run(PassedReads<float>{of, 0, n, grad.scores, saved_, from_state, grad.g});
      c_.backend.run(PassedLeaves<float>{of, n, in.s, saved_, at(kLeafGrads), {n * slots, 1, n}, grad.g});
      // and through the chunk's tokens: kA becomes the gradient of their products
      c_.backend.run(GlaOwnScores<float>{of, grad.scores, in.s, saved_, at(kA)});
      for (int64_t s = kSub; s < n; s += kSub) {
        const ChunkPlace sub = here.sub_chunk(s / kSub);
        const int64_t m = std::min(kSub, n - s);
        read_sub_factors(here, of, s, in, grad.scores);
        const Matrices scores = matrices(sub, m, s, slots, at(kBlock), at(kKeysTurned), at(kQueries));
        zero(at(kKeyGrads), h * s * slots);
        product(sub, kScores, wgrad, scores, at(kKeyGrads), s * slots, true);
        turn(at(kKeyGrads), slots, s, s * slots, at(kKeys));
        c_.backend.run(GlaSubFactorGradients<float>{of, s, saved_, nullptr, at(kKeys), nullptr, grad.s});
        c_.backend.run(PassedLeaves<float>{of, s, in.s, saved_, at(kKeys), {s * slots, slots, 1}, grad.g});
        observe(sub, kScores, scores);
        product(sub, kScores, dgrad, scores, at(kBlock), m * s); // x is done with
        c_.backend.run(MoveHeads<float>{h, m, s, at(kBlock), {m * s, s, 1}, at(kA) + s * n, {n * n, n, 1}});
      }
      for (int64_t s = kSub; s < n; s += kSub)
        c_.backend.run(PassedReads<float>{of, s, std::min(s + kSub, n), grad.scores, saved_,
                                          from_tokens + h * s * slots, grad.g});
      c_.backend.run(PassedPairs<float>{of, grad.scores, in.s, saved_, at(kProducts), grad.g});
      look(here, "qk", StepTensor::output_grad, at(kA), n, n);
      product(here, kQk, dgrad, qk, at(kDq), n * key, true);
      product(here, kQk, wgrad, qk, at(kDk), n * key, true);
      scatter(here, at(kDq), key, grad.q);
      scatter(here, at(kDk), key, grad.k);
      observe(here, kQk, qk);
      observe(here, kStateRead, read);
      observe(here, kStateUpdate, update);
      if (chunk == 0) break;
      c_.backend.run(GlaDecayed<float>{of, saved_, at(kDState), at(kDState), slots * key, true});
      product(here, kStateRead, wgrad, read, at(kDState), slots * key, true);
    }
  }
}

} // namespace nvfp4::models
