// SPDX-License-Identifier: Apache-2.0
// Feeds the recorder from a model while it takes a step: operators' inputs, weights and gradients, gates,
// softmax logits, SwiGLU alignment.
#pragma once
#include "nvfp4/reference_models/diagnostics/recorder.hpp"
#include "nvfp4/reference_models/model/model.hpp"

namespace nvfp4::models {

/// Observes one micro-batch of `model`: construct before its forward, finish() after its backward.
class Probe {
public:
  /// tokens: of inputs, outputs and gradients the first so many rows are measured, 0: all; weights, gates'
  /// parameters and the moments of attention always whole.
  Probe(Model<float> &model, Backend<float> &backend, Recorder &recorder, int64_t step, int64_t tokens);
  ~Probe();
  Probe(const Probe &) = delete;
  Probe &operator=(const Probe &) = delete;

  /// What forward left behind; call between forward and backward.
  void after_forward();
  void finish();

private:
  Model<float> &model_;
  Backend<float> &backend_;
  Recorder &recorder_;
  int64_t rows_; ///< measured
};

} // namespace nvfp4::models
