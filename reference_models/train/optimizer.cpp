// SPDX-License-Identifier: Apache-2.0
// The host's part of a step: factors in FP64, rounded once; sums of chunks in order.
#include "nvfp4/reference_models/train/optimizer.hpp"
#include "nvfp4/emulator/formats/codec.hpp"

#include <array>
#include <cmath>

namespace nvfp4::models {
namespace {

/// x^n by squaring: the same bits everywhere.
double power(double x, int64_t n) {
  double result = 1;
  for (; n > 0; n /= 2, x *= x)
    if (n % 2 == 1) result *= x;
  return result;
}

KeptFormat kept_format(StateFormat state) {
  constexpr FormatId kIds[] = {FormatId::f32, FormatId::bf16, FormatId::f16, FormatId::e4m3, FormatId::e5m2};
  const Format f = format(kIds[size_t(state)]);
  return {f.mantissa_bits, 1 - f.bias, state == StateFormat::bf16 ? 0.0f : largest(f.id)};
}

} // namespace

template <class T>
Optimizer<T>::Optimizer(Parameters<T> &parameters, const AdamWOptions &options, const OptimizerRecipe &kept)
    : parameters_(&parameters), options_(options), kept_(kept),
      largest_(parameters.backend(), kept == OptimizerRecipe{} ? 0 : chunks(parameters.total()) + 1),
      squares_(parameters.backend(), chunks(parameters.total())),
      digests_(parameters.backend(), 3 * chunks(parameters.total())), watch_(parameters.backend()) {
  if (!parameters.training()) throw Error("an optimizer needs a model that was made for training");
}

template <class T> void Optimizer<T>::keep(StateFormat format, Which which, T *slab) {
  if (format == StateFormat::f32) return;
  Backend<T> &backend = parameters_->backend();
  const KeptFormat f = kept_format(format);
  for (const ParameterSpec &p : parameters_->list()) {
    if (which == Which::decaying && !p.decay) continue;
    T *const x = slab + (parameters_->value(p.name) - parameters_->values());
    const int64_t n = p.count();
    if (n == 0) continue;
    T *const scale = largest_.data() + chunks(n);
    backend.run(LargestChunks<T>{n, x, largest_.data()});
    backend.run(KeptScale<T>{chunks(n), f, largest_.data(), scale});
    backend.run(Keep<T>{n, f, scale, x});
  }
}

template <class T> void Optimizer<T>::keep_gradients() {
  keep(kept_.gradient, Which::decaying, parameters_->gradients());
}

template <class T> double Optimizer<T>::gradient_norm() {
  Backend<T> &backend = parameters_->backend();
  backend.run(SquareSums<T>{parameters_->total(), parameters_->gradients(), squares_.data()});
  double sum = 0;
  for (const double part : to_host(backend, squares_.data(), squares_.size())) sum += part;
  return std::sqrt(sum);
}

template <class T> bool Optimizer<T>::finite() {
  if (!values_known_) watch_.add(parameters_->values(), parameters_->total());
  if (!moments_known_)
    for (const T *const slab : {parameters_->first_moments(), parameters_->second_moments()})
      watch_.add(slab, parameters_->total());
  return values_known_ = moments_known_ = watch_.finite();
}

template <class T> double Optimizer<T>::step(int64_t step, float learning_rate, double norm) {
  Backend<T> &backend = parameters_->backend();
  const double clip = options_.clip > 0 && norm > options_.clip ? options_.clip / norm : 1.0;
  constexpr double kSquares = 1e18; // its square is finite in FP32; no |gradient| is above the norm
  values_known_ = false;
  moments_known_ = moments_known_ && norm * clip < kSquares;
  const int64_t decaying = parameters_->decaying();
  for (const bool decay : {true, false}) {
    const int64_t first = decay ? 0 : decaying, n = decay ? decaying : parameters_->total() - decaying;
    if (n == 0) continue;
    backend.run(AdamW<T>{n, parameters_->gradients() + first, parameters_->values() + first,
                         parameters_->first_moments() + first, parameters_->second_moments() + first,
                         T(options_.beta1), T(options_.beta2), T(options_.epsilon), T(learning_rate),
                         decay ? T(double(learning_rate) * options_.weight_decay) : T(0),
                         T(1 / (1 - power(options_.beta1, step))), T(1 / (1 - power(options_.beta2, step))),
                         T(clip)});
  }
  keep(kept_.first_moment, Which::all, parameters_->first_moments());
  keep(kept_.second_moment, Which::all, parameters_->second_moments());
  keep(kept_.weight, Which::decaying, parameters_->values());
  backend.zero(parameters_->gradients(), size_t(parameters_->total()) * sizeof(T));
  return norm;
}

template <class T> std::string Optimizer<T>::digest(int64_t step) {
  Backend<T> &backend = parameters_->backend();
  const int64_t n = parameters_->total();
  const std::array<const T *, 3> slabs = {parameters_->values(), parameters_->first_moments(),
                                          parameters_->second_moments()};
  for (size_t i = 0; i < slabs.size(); ++i)
    backend.run(
        DigestSums<T>{n, uint64_t(i) * uint64_t(n), slabs[i], digests_.data() + int64_t(i) * chunks(n)});
  uint64_t sum = mix64(uint64_t(step));
  for (const uint64_t part : to_host(backend, digests_.data(), digests_.size())) sum += part;
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (size_t i = 0; i < 16; ++i) text[i] = kDigits[sum >> (60 - 4 * i) & 15];
  return text;
}

template class Optimizer<float>;
template class Optimizer<double>;

} // namespace nvfp4::models
