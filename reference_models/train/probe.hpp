// SPDX-License-Identifier: Apache-2.0
// Feeds the recorder from a model while it takes a step: operators' inputs, weights and gradients, gates,
// softmax logits, SwiGLU alignment; where the recipe has mixer rules for a block, also the operators inside
// its mixer.
#pragma once
#include "nvfp4/reference_models/diagnostics/recorder.hpp"
#include "nvfp4/reference_models/model/model.hpp"

#include <map>
#include <tuple>

namespace nvfp4::models {

/// Observes one micro-batch of `model`: construct before its forward, finish() after its backward.
class Probe {
public:
  /// tokens: of inputs, outputs and gradients the first so many rows are measured, 0: all; weights, gates'
  /// parameters and the moments of attention always whole. Of an operator inside a mixer the matrices of the
  /// first sequence are measured, x as activation, w as weight and dy as gradient: those of all heads and
  /// chunks one below the other, without the narrower ones that a sequence's end or a sub-chunk has.
  Probe(Model<float> &model, Backend<float> &backend, Recorder &recorder, int64_t step, int64_t tokens);
  ~Probe();
  Probe(const Probe &) = delete;
  Probe &operator=(const Probe &) = delete;

  /// What forward left behind; call between forward and backward.
  void after_forward();
  void finish();

private:
  /// Matrices of an operator inside a mixer, one below the other.
  struct Stack {
    int64_t cols = 0;
    std::vector<float> values = {};
    OperandInfo info = {};
  };
  void stack(const LinearObservation<float> &o, TensorKind kind, const float *data, int64_t rows,
             int64_t cols, const OperandInfo &info);

  std::map<std::tuple<int64_t, std::string, TensorKind>, Stack> stacks_; ///< by layer, role
  Model<float> &model_;
  Backend<float> &backend_;
  Recorder &recorder_;
  int64_t rows_; ///< measured
};

} // namespace nvfp4::models
