// SPDX-License-Identifier: Apache-2.0
// The order of the products of a layer's gated linear attention.
#include "nvfp4/reference_models/model/gla_products.hpp"

#include <algorithm>

namespace nvfp4::models {
namespace {

constexpr const char *kRoles[] = {"attn.qk", "attn.av", "attn.state_read", "attn.state_update"};

} // namespace

GlaProducts::GlaProducts(const BlockContext<float> &context, const GlaShape<float> &shape,
                         Scratch<float> &scratch, size_t slot, float *saved)
    : c_(context), s_(shape), scratch_(&scratch), first_(slot), saved_(saved) {
  for (const char *role : kRoles) operators_.push_back(make_operator_products(context, role));
  const int64_t h = s_.heads, n = kGlaChunk, dk = s_.key, dv = s_.value;
  for (const Slot x : {kReads, kLeaves, kKeys, kX, kY}) scratch.reserve(first_ + x, h * n * dk);
  for (const Slot x : {kVt, kO, kDvt}) scratch.reserve(first_ + x, h * n * dv);
  for (const Slot x : {kA, kDa, kBlock}) scratch.reserve(first_ + x, h * n * n);
  for (const Slot x : {kSt, kDs, kDst}) scratch.reserve(first_ + x, h * dk * dv);
  scratch.reserve(first_ + kQueries, h * n * dk);
}

/// A chunk of (batch, length, heads, width) as (heads, n, width), or (heads, width, n) where turned.
void GlaProducts::gather(const float *from, int64_t width, const GlaPlace<float> &place, float *to,
                         bool turned) const {
  const int64_t n = place.at(0).n, row = place.sequence * s_.length + place.chunk * kGlaChunk;
  const HeadStrides here = turned ? HeadStrides{n * width, 1, n} : HeadStrides{n * width, width, 1};
  c_.backend.run(MoveHeads<float>{
      s_.heads, n, width, from + row * s_.heads * width, {width, s_.heads * width, 1}, to, here});
}
void GlaProducts::scatter(const float *from, int64_t width, const GlaPlace<float> &place, float *to,
                          bool turned) const {
  const int64_t n = place.at(0).n, row = place.sequence * s_.length + place.chunk * kGlaChunk;
  const HeadStrides here = turned ? HeadStrides{n * width, 1, n} : HeadStrides{n * width, width, 1};
  c_.backend.run(MoveHeads<float>{
      s_.heads, n, width, from, here, to + row * s_.heads * width, {width, s_.heads * width, 1}});
}
/// (rows, cols) of every head, `stride` apart, to dense (cols, rows).
void GlaProducts::turn_state(const float *from, int64_t rows, int64_t cols, int64_t stride, float *to) const {
  c_.backend.run(MoveHeads<float>{s_.heads, rows, cols, from, {stride, cols, 1}, to, {rows * cols, 1, rows}});
}

GlaProducts::Matrices GlaProducts::matrices(const GlaPlace<float> &place, int64_t sub, int64_t rows,
                                            int64_t in, int64_t out, const float *x, const float *w,
                                            const float *dy) const {
  Matrices all;
  for (int64_t h = 0; h < s_.heads; ++h) {
    const auto stream = uint64_t(
        ((place.sequence * s_.heads + h) * s_.chunk_count() + place.chunk) * (kGlaChunk / kGlaSub) + sub);
    all.push_back({rows, in, out, x + h * rows * in, w + h * out * in,
                   dy == nullptr ? nullptr : dy + h * rows * out, stream, stream});
  }
  return all;
}

void GlaProducts::run(const StepContext &step, Operator op, Product product, const Matrices &of, float *to,
                      int64_t stride, bool add) const {
  std::vector<float *> out;
  for (size_t h = 0; h < of.size(); ++h) out.push_back(to + int64_t(h) * stride);
  operators_[op].run(step, product, of, out, add);
}

void GlaProducts::look(const MixerHooks<float> &hooks, const char *module, StepTensor what, const float *data,
                       int64_t rows, int64_t cols) const {
  hooks.trace(mixer_path(c_.config, c_.layer) + module, what, {s_.heads, rows, cols}, data);
  hooks.watch->add(data, s_.heads * rows * cols);
  hooks.watch->flush();
}

void GlaProducts::observe(Operator op, int64_t sequence, const Matrices &of,
                          const MixerHooks<float> &hooks) const {
  if (hooks.observer) observe_operator(c_, operators_[op], kRoles[op], sequence, of, hooks);
}

void GlaProducts::show(Operator op, OperatorPart part, StepTensor what, const float *data, int64_t rows,
                       int64_t cols, const MixerHooks<float> &hooks, int64_t stride) const {
  show_operator(c_, kRoles[op], what, part, data, s_.heads, rows, cols, stride == 0 ? rows * cols : stride,
                hooks);
}

void GlaProducts::forward(const StepContext &step, const Inputs &in, float *o,
                          const MixerHooks<float> &hooks) {
  const int64_t dk = s_.key, dv = s_.value, states = s_.chunk_count() * dk * dv;
  c_.backend.run(GlaDecays<float>{s_, in.g, saved_});
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence)
    for (int64_t chunk = 0; chunk < s_.chunk_count(); ++chunk) {
      const GlaPlace<float> place{s_, sequence, chunk};
      const GlaChunk<float> first = place.at(0);
      const int64_t n = first.n;
      const OperatorPart part{chunk, -1};
      float *const state = saved_ + first.state;
      if (chunk == 0) // of every head, `states` apart
        for (int64_t h = 0; h < s_.heads; ++h)
          c_.backend.zero(state + h * states, size_t(dk * dv) * sizeof(float));
      c_.backend.run(GlaStateFactors<float>{place, in.q, in.k, saved_, at(kReads), at(kLeaves)});
      gather(in.v, dv, place, at(kVt), true);
      turn_state(state, dk, dv, states, at(kSt));
      look(hooks, "state", StepTensor::output, at(kSt), dv, dk);
      run(step, kStateRead, Product::fprop, matrices(place, 0, n, dk, dv, at(kReads), at(kSt), nullptr),
          at(kO), n * dv);
      show(kStateRead, part, StepTensor::input, at(kReads), n, dk, hooks);
      show(kStateRead, part, StepTensor::weight, at(kSt), dv, dk, hooks);
      show(kStateRead, part, StepTensor::output, at(kO), n, dv, hooks);
      c_.backend.run(GlaOwnScores<float>{place, in.q, in.k, saved_, at(kA)});
      for (int64_t s = kGlaSub; s < n; s += kGlaSub) {
        const int64_t m = std::min(kGlaSub, n - s);
        c_.backend.run(GlaSubFactors<float>{place, s, true, in.q, in.k, saved_, at(kQueries), at(kKeys)});
        run(step, kQk, Product::fprop,
            matrices(place, s / kGlaSub, m, dk, s, at(kQueries), at(kKeys), nullptr), at(kBlock), m * s);
        const OperatorPart sub{chunk, s / kGlaSub};
        show(kQk, sub, StepTensor::input, at(kQueries), m, dk, hooks);
        show(kQk, sub, StepTensor::weight, at(kKeys), s, dk, hooks);
        show(kQk, sub, StepTensor::output, at(kBlock), m, s, hooks);
        c_.backend.run(
            MoveHeads<float>{s_.heads, m, s, at(kBlock), {m * s, s, 1}, at(kA) + s * n, {n * n, n, 1}});
      }
      look(hooks, "qk", StepTensor::output, at(kA), n, n);
      c_.backend.run(MoveHeads<float>{
          s_.heads, n, n, at(kA), {n * n, n, 1}, saved_ + first.a, {s_.length * kGlaChunk, kGlaChunk, 1}});
      run(step, kAv, Product::fprop, matrices(place, 0, n, n, dv, at(kA), at(kVt), nullptr), at(kO), n * dv,
          true);
      show(kAv, part, StepTensor::input, at(kA), n, n, hooks);
      show(kAv, part, StepTensor::weight, at(kVt), dv, n, hooks);
      show(kAv, part, StepTensor::output, at(kO), n, dv, hooks);
      scatter(at(kO), dv, place, o, false);
      if (chunk + 1 == s_.chunk_count()) continue;
      float *const next = state + dk * dv;
      c_.backend.run(GlaDecayed<float>{place, saved_, state, next, states, true});
      run(step, kStateUpdate, Product::fprop, matrices(place, 0, dk, n, dv, at(kLeaves), at(kVt), nullptr),
          next, states, true);
      show(kStateUpdate, part, StepTensor::input, at(kLeaves), dk, n, hooks);
      show(kStateUpdate, part, StepTensor::weight, at(kVt), dv, n, hooks);
      show(kStateUpdate, part, StepTensor::output, next, dk, dv, hooks, states);
    }
}

void GlaProducts::backward(const StepContext &step, const Inputs &in, const Gradients &grad,
                           const MixerHooks<float> &hooks) {
  const int64_t dk = s_.key, dv = s_.value, states = s_.chunk_count() * dk * dv;
  const auto zero = [&](float *x, int64_t n) { c_.backend.zero(x, size_t(n) * sizeof(float)); };
  for (int64_t sequence = 0; sequence < s_.batch; ++sequence) {
    zero(at(kDst), s_.heads * dk * dv);
    for (int64_t chunk = s_.chunk_count() - 1; chunk >= 0; --chunk) {
      const GlaPlace<float> place{s_, sequence, chunk};
      const GlaChunk<float> first = place.at(0);
      const int64_t n = first.n;
      const OperatorPart part{chunk, -1};
      const bool last = chunk + 1 == s_.chunk_count(); // whose update forward does not make
      c_.backend.run(GlaStateFactors<float>{place, in.q, in.k, saved_, at(kReads), at(kLeaves)});
      gather(in.v, dv, place, at(kVt), true);
      gather(grad.o, dv, place, at(kO), false);
      turn_state(saved_ + first.state, dk, dv, states, at(kSt));
      turn_state(at(kDst), dv, dk, dk * dv, at(kDs));
      look(hooks, "state", StepTensor::output_grad, at(kDs), dk, dv);
      c_.backend.run(MoveHeads<float>{
          s_.heads, n, n, saved_ + first.a, {s_.length * kGlaChunk, kGlaChunk, 1}, at(kA), {n * n, n, 1}});
      const Matrices read = matrices(place, 0, n, dk, dv, at(kReads), at(kSt), at(kO)),
                     update = matrices(place, 0, dk, n, dv, at(kLeaves), at(kVt), at(kDs)),
                     av = matrices(place, 0, n, n, dv, at(kA), at(kVt), at(kO));
      zero(at(kDvt), s_.heads * n * dv);
      run(step, kStateUpdate, Product::wgrad, update, at(kDvt), n * dv, true);
      if (!last) show(kStateUpdate, part, StepTensor::weight_grad, at(kDvt), dv, n, hooks);
      run(step, kAv, Product::wgrad, av, at(kDvt), n * dv, true);
      show(kAv, part, StepTensor::weight_grad, at(kDvt), dv, n, hooks);
      scatter(at(kDvt), dv, place, grad.v, true);
      run(step, kStateRead, Product::dgrad, read, at(kX), n * dk);
      run(step, kStateUpdate, Product::dgrad, update, at(kY), n * dk);
      run(step, kAv, Product::dgrad, av, at(kDa), n * n);
      look(hooks, "av", StepTensor::input_grad, at(kDa), n, n);
      show(kStateRead, part, StepTensor::output_grad, at(kO), n, dv, hooks);
      show(kStateRead, part, StepTensor::input_grad, at(kX), n, dk, hooks);
      if (!last) show(kStateUpdate, part, StepTensor::output_grad, at(kDs), dk, dv, hooks);
      if (!last) show(kStateUpdate, part, StepTensor::input_grad, at(kY), dk, n, hooks);
      show(kAv, part, StepTensor::output_grad, at(kO), n, dv, hooks);
      show(kAv, part, StepTensor::input_grad, at(kDa), n, n, hooks);
      c_.backend.run(
          GlaStateFactorGradients<float>{place, in.q, saved_, at(kX), at(kY), at(kDa), grad.q, grad.k});
      for (int64_t s = kGlaSub; s < n; s += kGlaSub) {
        const int64_t m = std::min(kGlaSub, n - s);
        c_.backend.run(GlaSubFactors<float>{place, s, false, in.q, in.k, saved_, at(kQueries), at(kKeys)});
        c_.backend.run(
            MoveHeads<float>{s_.heads, m, s, at(kDa) + s * n, {n * n, n, 1}, at(kBlock), {m * s, s, 1}});
        const Matrices qk = matrices(place, s / kGlaSub, m, dk, s, at(kQueries), at(kKeys), at(kBlock));
        run(step, kQk, Product::dgrad, qk, at(kX), m * dk);
        zero(at(kY), s_.heads * s * dk);
        run(step, kQk, Product::wgrad, qk, at(kY), s * dk, true);
        const OperatorPart sub{chunk, s / kGlaSub};
        show(kQk, sub, StepTensor::output_grad, at(kBlock), m, s, hooks);
        show(kQk, sub, StepTensor::input_grad, at(kX), m, dk, hooks);
        show(kQk, sub, StepTensor::weight_grad, at(kY), s, dk, hooks);
        c_.backend.run(GlaSubFactorGradients<float>{place, s, saved_, at(kX), at(kY), grad.q, grad.k});
        observe(kQk, sequence, qk, hooks);
      }
      c_.backend.run(GlaOwnQueryGradients<float>{place, in.k, saved_, at(kDa), grad.q});
      observe(kAv, sequence, av, hooks);
      observe(kStateRead, sequence, read, hooks);
      observe(kStateUpdate, sequence, update, hooks);
      if (chunk == 0) break;
      c_.backend.run(GlaDecayed<float>{place, saved_, at(kDst), at(kDst), dk * dv, false});
      run(step, kStateRead, Product::wgrad, read, at(kDst), dk * dv, true);
      show(kStateRead, part, StepTensor::weight_grad, at(kDst), dv, dk, hooks);
    }
  }
  c_.backend.run(GlaGateGradients<float>{s_, in.q, in.k, grad.q, grad.k, grad.g});
}

} // namespace nvfp4::models
