// SPDX-License-Identifier: Apache-2.0
// Head by head through quantize and dequantize, or through E4M3 with one scale.
#include "nvfp4/reference_models/model/stored_values.hpp"

#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::models {
namespace {

constexpr float kLargestE4m3 = 448.0f;

void through_fp8(std::vector<float> &x) {
  float amax = 0;
  for (const float v : x) amax = std::fmax(amax, std::fabs(v)); // of numbers: a NaN stays one
  float scale = amax / kLargestE4m3;
  if (scale == 0) scale = 1;
  for (float &v : x)
    v = value_f32(FormatId::e4m3,
                  encode(FormatId::e4m3, v / scale, Rounding::nearest_even, Overflow::satfinite)) *
        scale;
}

} // namespace

void read_stored(Backend<float> &backend, const OperandRecipe &operand, FormatId source, int64_t batch,
                 int64_t length, int64_t heads, int64_t dim, const float *x, float *to) {
  std::vector<float> all = to_host(backend, x, batch * length * heads * dim);
  if (source == FormatId::bf16 || operand.format == OperandFormat::bf16)
    for (float &v : all) v = round_to_bf16(v);
  const bool fp8 = operand.format == OperandFormat::fp8;
  if (fp8 || !operand.convention.empty()) {
    QuantizeOptions options;
    options.source = source;
    std::vector<float> head(size_t(length * dim));
    for (int64_t sequence = 0; sequence < batch; ++sequence)
      for (int64_t h = 0; h < heads; ++h) {
        const auto row = [&](int64_t t) { return all.begin() + ((sequence * length + t) * heads + h) * dim; };
        for (int64_t t = 0; t < length; ++t) std::copy_n(row(t), dim, head.begin() + t * dim);
        if (fp8)
          through_fp8(head);
        else
          head =
              dequantize(quantize({head.data(), length, dim}, find_convention(operand.convention), options));
        for (int64_t t = 0; t < length; ++t) std::copy_n(head.begin() + t * dim, dim, row(t));
      }
  }
  backend.upload(to, all.data(), all.size() * sizeof(float));
}

template <class T>
GateInput<T>::GateInput(const BlockContext<T> &context, int64_t width)
    : backend_(&context.backend), operand_(context.recipe.gate_inputs), source_(context.recipe.source),
      rows_(context.rows()), width_(width) {
  if (operand_.format != OperandFormat::f32) stored_.reset(context.backend, rows_ * width);
}

template <class T> void GateInput<T>::read(const T *x) {
  data_ = x;
  if constexpr (std::is_same_v<T, float>)
    if (operand_.format != OperandFormat::f32) {
      read_stored(*backend_, operand_, source_, 1, rows_, 1, width_, x, stored_.data());
      data_ = stored_.data();
    }
}

template <class T>
void GateInput<T>::activation(const BlockContext<T> &context, const char *name,
                              std::vector<Activation<T>> &out) const {
  if (operand_.format != OperandFormat::f32)
    out.push_back({mixer_path(context.config, context.layer) + name,
                   {context.batch, context.length, width_},
                   stored_.data()});
}

template class GateInput<float>;
template class GateInput<double>;

void check_gate_inputs(const Recipe &recipe, const ModelFamily &family, bool double_precision) {
  if (recipe.gate_inputs.format == OperandFormat::f32) return;
  const std::string where = "recipe '" + recipe.name + "' has gate_inputs in " +
                            std::string(to_string(recipe.gate_inputs.format)) + ": ";
  if (family.mixer == MixerKind::attention)
    throw Error(where + "expected a family whose mixer has decays, got " + std::string(family.name) +
                "; use gate_inputs f32");
  if (double_precision) throw Error(where + "they cannot be stored in double precision");
}

} // namespace nvfp4::models
