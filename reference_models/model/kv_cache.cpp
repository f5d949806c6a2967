// SPDX-License-Identifier: Apache-2.0
// Head by head through quantize and dequantize.
#include "nvfp4/reference_models/model/kv_cache.hpp"

#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <algorithm>

namespace nvfp4::models {

void read_cached(Backend<float> &backend, const Recipe &recipe, int64_t batch, int64_t length, int64_t heads,
                 int64_t dim, const float *x, float *to) {
  const OperandRecipe &operand = recipe.kv_cache;
  std::vector<float> all = to_host(backend, x, batch * length * heads * dim);
  if (recipe.source == FormatId::bf16 || operand.format == OperandFormat::bf16)
    for (float &v : all) v = round_to_bf16(v);
  if (!operand.convention.empty()) {
    const Convention &convention = find_convention(operand.convention);
    QuantizeOptions options;
    options.source = recipe.source;
    std::vector<float> head(size_t(length * dim));
    for (int64_t sequence = 0; sequence < batch; ++sequence)
      for (int64_t h = 0; h < heads; ++h) {
        const auto row = [&](int64_t t) { return all.begin() + ((sequence * length + t) * heads + h) * dim; };
        for (int64_t t = 0; t < length; ++t) std::copy_n(row(t), dim, head.begin() + t * dim);
        head = dequantize(quantize({head.data(), length, dim}, convention, options));
        for (int64_t t = 0; t < length; ++t) std::copy_n(head.begin() + t * dim, dim, row(t));
      }
  }
  backend.upload(to, all.data(), all.size() * sizeof(float));
}

void check_kv_cache(const Recipe &recipe, const ModelFamily &family, bool training, bool double_precision) {
  if (recipe.kv_cache.format == OperandFormat::f32) return;
  const std::string where = "recipe '" + recipe.name + "' has a kv_cache in " +
                            std::string(to_string(recipe.kv_cache.format)) + ": ";
  if (family.mixer != MixerKind::attention)
    throw Error(where + "expected a family with softmax attention, got " + std::string(family.name) +
                ", which has no keys and values to keep");
  if (training)
    throw Error(where +
                "it is for eval and for forward without gradients, not for training: use kv_cache f32");
  if (double_precision) throw Error(where + "it cannot run in double precision");
}

} // namespace nvfp4::models
