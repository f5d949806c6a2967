// SPDX-License-Identifier: Apache-2.0
// What storing a tensor in a recipe's format gives back: a key-value cache's keys and values, and what the
// gates of a mixer read. Cost and layout are not modelled, the values are. Internal.
#pragma once
#include "nvfp4/reference_models/model/mixer.hpp"

namespace nvfp4::models {

/// x and to (batch, length, heads, dim), on the device; the work is the host's. Values are rounded to
/// `source`, then to nearest in blocks along dim, and dequantized: the convention's decoding, in FP32. Every
/// head of a sequence is a tensor of its own, (length, dim). fp8 is E4M3 with one scale a tensor, in FP32: s
/// = amax / 448, 1 where that is 0; x becomes E4M3(x / s) s, to nearest even, saturating.
void read_stored(Backend<float> &backend, const OperandRecipe &operand, FormatId source, int64_t batch,
                 int64_t length, int64_t heads, int64_t dim, const float *x, float *to);

/// What a gate's function reads: x, or under a recipe with `gate_inputs` what storing it gives back, a tensor
/// (rows, width) of the micro-batch. The gradient goes through to x as if it had not been stored.
template <class T> class GateInput {
public:
  GateInput(const BlockContext<T> &context, int64_t width);
  void read(const T *x);
  [[nodiscard]] const T *data() const { return data_; }
  /// Appends what is read where it is not x.
  void activation(const BlockContext<T> &context, const char *name, std::vector<Activation<T>> &out) const;

private:
  Backend<T> *backend_;
  OperandRecipe operand_;
  FormatId source_;
  int64_t rows_, width_;
  Array<T> stored_;
  const T *data_ = nullptr;
};

/// Throws Error, naming the recipe, where it stores the inputs of gates that this model has not.
void check_gate_inputs(const Recipe &recipe, const ModelFamily &family, bool double_precision);

} // namespace nvfp4::models
