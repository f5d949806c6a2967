// SPDX-License-Identifier: Apache-2.0
// The order of the products of a layer's scan.
#include "nvfp4/reference_models/model/scan_products.hpp"

namespace nvfp4::models {
namespace {

constexpr const char *kRoles[] = {"attn.qk", "attn.av", "attn.state_read", "attn.state_update"};

} // namespace

ScanRuleProducts::ScanRuleProducts(const BlockContext<float> &context, const ScanShape<float> &shape,
                                   Scratch<float> &scratch, size_t slot, float *saved)
    : ChunkProducts(context, kRoles, shape.heads, scratch, slot), s_(shape), saved_(saved) {
  const int64_t h = s_.heads, n = kChunk, ds = s_.state, dv = s_.value;
  for (const Slot x : {kC, kB, kDc, kDb}) reserve(x, n * ds);
  for (const Slot x : {kReads, kLeaves, kReadGrads, kLeafGrads, kLeafGradsTurned}) reserve(x, h * n * ds);
  for (const Slot x : {kUt, kO, kDut}) reserve(x, h * n * dv);
  for (const Slot x : {kProducts, kProductGrads}) reserve(x, n * n);
  for (const Slot x : {kA, kDa}) reserve(x, h * n * n);
  for (const Slot x : {kSt, kDs, kDst}) reserve(x, h * ds * dv);
}

void ScanRuleProducts::rows_in(const ChunkPlace &here, const float *from, float *to) const {
  c_.backend.run(
      MoveHeads<float>{1, here.n, s_.state, from + here.row * s_.row, {0, s_.row, 1}, to, {0, s_.state, 1}});
}
void ScanRuleProducts::rows_out(const ChunkPlace &here, const float *from, float *to) const {
  c_.backend.run(
      MoveHeads<float>{1, here.n, s_.state, from, {0, s_.state, 1}, to + here.row * s_.row, {0, s_.row, 1}});
}

void ScanRuleProducts::read_factors(const ChunkPlace &here, const ScanPlace<float> &of,
                                    const Inputs &in) const {
  rows_in(here, in.c, at(kC));
  rows_in(here, in.b, at(kB));
  c_.backend.run(ScanFactors<float>{of, in.c, in.b, in.x, in.dt, saved_, at(kReads), at(kLeaves), at(kUt)});
  turn(saved_ + of.at(0).state, s_.state, s_.value, s_.chunk_count() * s_.state * s_.value, at(kSt));
}

void ScanRuleProducts::forward(const StepContext &step, const Inputs &in, float *y,
                               const MixerHooks<float> &hooks) {
  using enum Product;
  const int64_t h = s_.heads, ds = s_.state, dv = s_.value, states = s_.chunk_count() * ds * dv;
  c_.backend.run(ScanDecays<float>{s_, in.g, saved_});
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence)
    for (int64_t chunk = 0; chunk < s_.chunk_count(); ++chunk) {
      const ChunkPlace here = place(step, hooks, sequence, chunk);
      const ScanPlace<float> of{s_, sequence, chunk};
      const ScanChunk<float> first = of.at(0);
      const int64_t n = here.n;
      float *const state = saved_ + first.state;
      if (chunk == 0) // of every head, `states` apart
        for (int64_t i = 0; i < h; ++i) zero(state + i * states, ds * dv);
      read_factors(here, of, in);
      look(here, "state", StepTensor::output, at(kSt), dv, ds);
      look(here, "u", StepTensor::output, at(kUt), dv, n);
      product(here, kOfQk, fprop, matrices(here, n, ds, n, at(kC), at(kB), nullptr, true), at(kProducts),
              n * n);
      c_.backend.run(
          MoveHeads<float>{1, n, n, at(kProducts), {0, n, 1}, saved_ + first.products, {0, kChunk, 1}});
      c_.backend.run(ScanScores<float>{of, saved_, at(kA)});
      look(here, "qk", StepTensor::output, at(kA), n, n);
      product(here, kOfRead, fprop, matrices(here, n, ds, dv, at(kReads), at(kSt), nullptr), at(kO), n * dv);
      product(here, kOfAv, fprop, matrices(here, n, n, dv, at(kA), at(kUt), nullptr), at(kO), n * dv, true);
      c_.backend.run(ScanSkip<float>{of, in.x, in.skip, at(kO)});
      scatter(here, at(kO), dv, y);
      if (chunk + 1 == s_.chunk_count()) continue;
      float *const next = state + ds * dv;
      c_.backend.run(ScanDecayed<float>{of, saved_, state, next, states});
      product(here, kOfUpdate, fprop, matrices(here, ds, n, dv, at(kLeaves), at(kUt), nullptr), next, states,
              true);
    }
}

void ScanRuleProducts::backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                                const MixerHooks<float> &hooks) {
  using enum Product;
  const int64_t h = s_.heads, ds = s_.state, dv = s_.value;
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence) {
    zero(at(kDst), h * ds * dv);
    for (int64_t chunk = s_.chunk_count() - 1; chunk >= 0; --chunk) {
      const ChunkPlace here = place(step, hooks, sequence, chunk);
      const ScanPlace<float> of{s_, sequence, chunk};
      const int64_t n = here.n;
      read_factors(here, of, in);
      gather(here, grad.y, dv, at(kO));
      turn(at(kDst), dv, ds, ds * dv, at(kDs));
      look(here, "state", StepTensor::output_grad, at(kDs), ds, dv);
      c_.backend.run(ScanScores<float>{of, saved_, at(kA)});
      const Matrices qk = matrices(here, n, ds, n, at(kC), at(kB), at(kProductGrads), true),
                     av = matrices(here, n, n, dv, at(kA), at(kUt), at(kO)),
                     read = matrices(here, n, ds, dv, at(kReads), at(kSt), at(kO)),
                     update = matrices(here, ds, n, dv, at(kLeaves), at(kUt), at(kDs));
      const auto of_update = [&](Product p, float *to, int64_t stride, bool add) {
        if (chunk + 1 == s_.chunk_count()) // whose update forward does not make
          hidden_product(here, kOfUpdate, p, update, to, stride, add);
        else
          product(here, kOfUpdate, p, update, to, stride, add);
      };
      zero(at(kDut), h * n * dv);
      of_update(wgrad, at(kDut), n * dv, true);
      product(here, kOfAv, wgrad, av, at(kDut), n * dv, true);
      product(here, kOfAv, dgrad, av, at(kDa), n * n);
      look(here, "av", StepTensor::input_grad, at(kDa), n, n);
      product(here, kOfRead, dgrad, read, at(kReadGrads), n * ds);
      of_update(dgrad, at(kLeafGrads), n * ds, false);
      c_.backend.run(ScanFactorGradients<float>{
          of, in.c, in.b, in.x, in.dt, in.skip, saved_, at(kO), at(kDs), at(kDut), at(kLeafGrads), at(kDa),
          at(kReadGrads), at(kLeafGradsTurned), grad.x, grad.dt, grad.g, grad.skip_terms});
      c_.backend.run(SumHeads<float>{h, n * ds, at(kReadGrads), at(kDc)});
      c_.backend.run(SumHeads<float>{h, n * ds, at(kLeafGradsTurned), at(kDb)});
      c_.backend.run(SumHeads<float>{h, n * n, at(kDa), at(kProductGrads)});
      product(here, kOfQk, dgrad, qk, at(kDc), n * ds, true);
      product(here, kOfQk, wgrad, qk, at(kDb), n * ds, true);
      rows_out(here, at(kDc), grad.c);
      rows_out(here, at(kDb), grad.b);
      observe(here, kOfQk, qk);
      observe(here, kOfAv, av);
      observe(here, kOfRead, read);
      observe(here, kOfUpdate, update);
      if (chunk == 0) break;
      c_.backend.run(ScanDecayed<float>{of, saved_, at(kDst), at(kDst), ds * dv});
      product(here, kOfRead, wgrad, read, at(kDst), ds * dv, true);
    }
  }
}

} // namespace nvfp4::models
