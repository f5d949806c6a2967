// SPDX-License-Identifier: Apache-2.0
// What a key-value cache in a recipe's format gives back. Its cost and layout are not modelled, its values
// are: each head's keys (after norm and rotary embedding) and values of a sequence, (length, dim), are
// rounded to the recipe's `source`, quantized to nearest in blocks along dim and dequantized. Internal.
#pragma once
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/family/family.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

namespace nvfp4::models {

/// x and to (batch, length, heads, dim), on the device; the work is the host's. Every head of a sequence is a
/// tensor of its own, so a global amax is taken over its tokens, as a scale calibrated on them would be; a
/// convention with a scale a row has one a token instead, which a cache knows when the token comes.
void read_cached(Backend<float> &backend, const Recipe &recipe, int64_t batch, int64_t length, int64_t heads,
                 int64_t dim, const float *x, float *to);

/// Throws Error, naming the recipe, where it wants a cache that this model cannot have.
void check_kv_cache(const Recipe &recipe, const ModelFamily &family, bool training, bool double_precision);

} // namespace nvfp4::models
