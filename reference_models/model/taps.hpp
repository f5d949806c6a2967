// SPDX-License-Identifier: Apache-2.0
// Taps: intermediate tensors of a step by name. A tap is what a linear layer reads, what it makes, the
// gradient that comes back to it, or what it makes of that, its own dgrad; or one of the matrices of an
// operator inside a mixer (family/mixer_operators.hpp).
#pragma once
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/golden/io/tensor.hpp"
#include "nvfp4/reference_models/model/model.hpp"

#include <map>

namespace nvfp4::models {

struct Tap {
  /// weight and weight_grad are those of operators inside mixers: a layer's are parameters.
  enum class Kind : uint8_t { input, weight, output, output_grad, input_grad, weight_grad };
  friend constexpr auto names_of(Kind) {
    return enum_names("tap", "input", "weight", "output", "output_grad", "input_grad", "weight_grad");
  }
  Kind kind = Kind::input;
  int64_t layer = 0; ///< lm_head: the number of layers
  std::string role;  ///< "attn.o_proj", "lm_head"

  /// "layers.2.attn.o_proj.input", "lm_head.output".
  [[nodiscard]] std::string name(const ModelConfig &config) const;
  bool operator==(const Tap &) const = default;
};
static_assert(names_of(Tap::Kind{}).end_with(Tap::Kind::weight_grad));

/// From names as Tap::name gives them, or without the layer ("attn.o_proj.input": of every layer); "model."
/// and "self_attn" are understood. In the order of a step: inputs and outputs by layer, then gradients from
/// the head back; each once. An Error lists the names there are.
[[nodiscard]] std::vector<Tap> parse_taps(std::span<const std::string> names, const ModelConfig &config);
/// What stands behind a tap's name where the matrix is of a part of the sequence: ".chunk2", ".chunk2.sub1";
/// and a name without that.
[[nodiscard]] std::string part_suffix(OperatorPart part);
[[nodiscard]] std::string without_part(std::string_view name);

/// Every tap of the operators inside the mixers, those of the backward pass where it is taken too.
[[nodiscard]] std::vector<Tap> operator_taps(const ModelConfig &config, bool backward);

/// Copies taps out of a model while it runs. Construct before the first micro-batch; it uses the model's
/// observers.
class TapCollector {
public:
  TapCollector(Model<float> &model, std::span<const Tap> taps);
  ~TapCollector();
  TapCollector(const TapCollector &) = delete;
  TapCollector &operator=(const TapCollector &) = delete;

  /// Between forward and loss of each micro-batch.
  void after_forward();
  /// "tap/NAME" (micro-batches * batch, sequence, width), F32, in the order of the taps; of an operator
  /// inside a mixer (micro-batches * batch * heads, rows, cols), key heads for weights, and where it has a
  /// matrix a chunk, "tap/NAME.chunk0" and so on, in the order of the step. Error for a tap that it has not
  /// seen.
  [[nodiscard]] std::vector<io::Tensor> tensors() const { return tensors(true); }
  /// Without that error.
  [[nodiscard]] std::vector<io::Tensor> seen() const { return tensors(false); }

private:
  [[nodiscard]] std::vector<io::Tensor> tensors(bool all) const;
  void keep(Tap::Kind kind, int64_t layer, std::string_view role, const float *data, int64_t rows,
            int64_t width, OperatorPart part = {});

  struct Matrices {
    int64_t rows = 0, width = 0; ///< of each
    std::vector<float> values = {};
  };
  struct Kept {
    Tap tap;
    std::map<OperatorPart, Matrices> parts = {};
  };
  Model<float> &model_;
  std::vector<Kept> kept_;
};

} // namespace nvfp4::models
