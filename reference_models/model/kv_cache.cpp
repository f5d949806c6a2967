// SPDX-License-Identifier: Apache-2.0
// Caches as stored values, and which models have them.
#include "nvfp4/reference_models/model/kv_cache.hpp"

#include "nvfp4/reference_models/model/stored_values.hpp"

namespace nvfp4::models {

void read_cached(Backend<float> &backend, const Recipe &recipe, int64_t batch, int64_t length, int64_t heads,
                 int64_t dim, const float *x, float *to) {
  read_stored(backend, recipe.kv_cache, recipe.source, batch, length, heads, dim, x, to);
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
