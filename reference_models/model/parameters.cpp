// SPDX-License-Identifier: Apache-2.0
// Layout of the slabs, and the initial values, made on the host by operations that every machine rounds
// alike.
#include "nvfp4/reference_models/model/parameters.hpp"
#include "nvfp4/emulator/formats/philox.hpp"
#include "nvfp4/emulator/numerics/trigonometry.hpp"

#include <stdexcept>

namespace nvfp4::models {
namespace {

constexpr int64_t kAlign = 16; // elements

int64_t padded(int64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

/// Uniform on (0, 1], a multiple of 2^-24.
float uniform(uint32_t word) { return float((word >> 8) + 1) * 0x1p-24f; }

} // namespace

template <class T>
Parameters<T>::Parameters(Backend<T> &backend, std::vector<ParameterSpec> list, bool training)
    : backend_(&backend), list_(std::move(list)), training_(training) {
  for (const bool decay : {true, false}) {
    for (const ParameterSpec &p : list_) {
      if (p.decay != decay) continue;
      offsets_[p.name] = total_;
      total_ += padded(p.count());
    }
    if (decay) decaying_ = total_;
  }
  value_.reset(backend, total_);
  if (!training) return;
  gradient_.reset(backend, total_);
  m_.reset(backend, total_);
  v_.reset(backend, total_);
}

std::vector<float> initial_values(const ParameterSpec &spec, double std, uint64_t seed, uint64_t number) {
  constexpr double kTwoPi = 6.283185307179586;
  std::vector<float> out(size_t(spec.count()));
  const RandomKey key{seed, uint64_t{0x494E4954} << 32 | number}; // "INIT"
#pragma omp parallel for schedule(static) if (out.size() > 65536)
  for (size_t i = 0; i < out.size(); ++i) {
    switch (spec.init) {
    case Init::zeros: out[i] = 0.0f; break;
    case Init::ones: out[i] = 1.0f; break;
    case Init::normal: { // Box and Muller's pair from two words
      const PhiloxBlock block = key.block(i / 4);
      const int pair = int(i % 4) / 2 * 2;
      const float radius = numerics::sqrt(-2.0f * numerics::log(uniform(block.word[pair])));
      const numerics::SinCos angle = numerics::sin_cos(kTwoPi * double(uniform(block.word[pair + 1])));
      out[i] = float(std * (double(radius) * (i % 2 == 0 ? angle.cos : angle.sin)));
      break;
    }
    case Init::decay: out[i] = numerics::log(16.0f * uniform(key.bits32(i))); break;
    case Init::scan_decay: out[i] = numerics::log(1.0f + 15.0f * uniform(key.bits32(i))); break;
    case Init::time_step: {
      const float low = numerics::log(0.001f), high = numerics::log(0.1f);
      const float step = numerics::exp(low + (high - low) * uniform(key.bits32(i)));
      out[i] = step + numerics::log(1.0f - numerics::exp(-step));
      break;
    }
    }
  }
  return out;
}

template <class T>
void initialise(Parameters<T> &parameters, const ModelConfig &config, uint64_t seed,
                const std::function<void(double)> &progress) {
  uint64_t number = 0;
  int64_t done = 0;
  for (const ParameterSpec &p : parameters.list()) {
    const std::vector<float> values = initial_values(p, config.init_std, seed, number++);
    const std::vector<T> converted(values.begin(), values.end());
    parameters.backend().upload(parameters.value(p.name), converted.data(), converted.size() * sizeof(T));
    if (progress) progress(double(done += p.count()) / double(parameters.total()));
  }
}

template class Parameters<float>;
template class Parameters<double>;
template void initialise(Parameters<float> &, const ModelConfig &, uint64_t,
                         const std::function<void(double)> &);
template void initialise(Parameters<double> &, const ModelConfig &, uint64_t,
                         const std::function<void(double)> &);

} // namespace nvfp4::models
