// SPDX-License-Identifier: Apache-2.0
// The memory of a model's parameters, their gradients and AdamW's moments: four slabs, decaying parameters
// first, so that an optimizer step is two kernels.
#pragma once
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/family/config.hpp"

#include <functional>
#include <map>

namespace nvfp4::models {

template <class T> class Parameters {
public:
  /// Zeroed. `training` false: values only.
  Parameters(Backend<T> &backend, const ModelConfig &config, bool training)
      : Parameters(backend, parameter_list(config), training) {}
  Parameters(Backend<T> &backend, std::vector<ParameterSpec> list, bool training);

  [[nodiscard]] const std::vector<ParameterSpec> &list() const { return list_; }
  /// Throws std::out_of_range for a name that the model does not have.
  [[nodiscard]] T *value(const std::string &name) const { return value_.data() + offsets_.at(name); }
  /// Null for a model that does not train.
  [[nodiscard]] T *gradient(const std::string &name) const {
    return training_ ? gradient_.data() + offsets_.at(name) : nullptr;
  }
  [[nodiscard]] T *first_moment(const std::string &name) const { return m_.data() + offsets_.at(name); }
  [[nodiscard]] T *second_moment(const std::string &name) const { return v_.data() + offsets_.at(name); }

  [[nodiscard]] bool training() const { return training_; }
  [[nodiscard]] int64_t decaying() const {
    return decaying_;
  } ///< elements at the front to which weight decay applies
  [[nodiscard]] int64_t total() const { return total_; } ///< elements of a slab, padding included
  [[nodiscard]] T *values() const { return value_.data(); }
  [[nodiscard]] T *gradients() const { return gradient_.data(); }
  [[nodiscard]] T *first_moments() const { return m_.data(); }
  [[nodiscard]] T *second_moments() const { return v_.data(); }
  [[nodiscard]] Backend<T> &backend() const { return *backend_; }

private:
  Backend<T> *backend_;
  std::vector<ParameterSpec> list_;
  std::map<std::string, int64_t> offsets_;
  int64_t decaying_ = 0, total_ = 0;
  bool training_;
  Array<T> value_, gradient_, m_, v_;
};

/// The initial values of a parameter: a function of (spec, std, seed, its number in the model). normal: N(0,
/// std); decay: log of U(0, 16), scan_decay: of U(1, 16); time_step: the inverse softplus of exp(U(log 0.001, log 0.1)), as
/// flash-linear-attention initialises Gated DeltaNet and mamba_ssm Mamba-2.
[[nodiscard]] std::vector<float> initial_values(const ParameterSpec &spec, double std, uint64_t seed,
                                                uint64_t number);

/// Fills all parameters with their initial values. `progress` gets the fraction done, tensor by tensor.
template <class T>
void initialise(Parameters<T> &parameters, const ModelConfig &config, uint64_t seed,
                const std::function<void(double)> &progress = {});

} // namespace nvfp4::models
