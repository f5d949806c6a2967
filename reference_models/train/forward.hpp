// SPDX-License-Identifier: Apache-2.0
// One pass of a checkpoint over given tokens with every tensor on the way, to compare with other programs:
// what `nvfp4 forward` writes.
#pragma once
#include "nvfp4/golden/io/tensor.hpp"
#include "nvfp4/reference_models/diagnostics/finite.hpp"

#include <functional>
#include <optional>

namespace nvfp4::models {

struct ForwardOptions {
  std::string checkpoint;                ///< path: written by train or init, or a PyTorch model's safetensors
  std::string recipe = "bf16";           ///< built-in name or JSON file
  std::string model = {}, size = "tiny"; ///< where the checkpoint does not say: family or JSON file, preset
  std::string device = "cpu";
  bool gradients = false; ///< also those of the mean loss, of parameters and in linear layers
  bool operators = false; ///< also the matrices of the operators inside mixers
  int threads = 0;
  uint64_t seed = 1; ///< of stochastic rounding
  std::function<void(double)> progress = {}; ///< gets the fraction done; what it throws ends the work
};

struct ForwardPass {
  struct NotFiniteTensor {
    std::string tensor;
    int64_t nan = 0, inf = 0;
    std::vector<int64_t> first = {};
  };
  io::TensorFile tensors; ///< logits, loss, act/MODULE, with gradients grad/PARAMETER and of
                          ///< linear layers output_grad/MODULE, input_grad/MODULE (the layer's own dgrad);
                          ///< tap/layers.N.ROLE.KIND of operators inside mixers, as in a slice;
                          ///< metadata: model, recipe
  double loss = 0;        ///< nats per token
  std::optional<NotFinite> not_finite = {};             ///< the first tensor on the way that was not finite
  std::vector<NotFiniteTensor> not_finite_tensors = {}; ///< of those in `tensors`
};

/// `input` holds one tensor, int32 tokens (B, T + 1): inputs [:, :-1], targets [:, 1:]. Throws Error for
/// other tokens, and for a checkpoint, model or recipe that does not fit.
[[nodiscard]] ForwardPass run_forward(const ForwardOptions &options, const io::TensorFile &input);

/// One line about a pass whose tensors were written to `output`.
[[nodiscard]] std::string forward_json(const ForwardPass &pass, const std::string &output);

} // namespace nvfp4::models
