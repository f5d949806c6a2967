// SPDX-License-Identifier: Apache-2.0
// What a pretrained model's keys and values become where they are kept: numbers of one type, or blocks of
// NVFP4. A token's words depend on that token alone, so a cache gives what one pass over all tokens gives.
#pragma once
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/kernels/cached_attention.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include <string>

namespace nvfp4::models::pretrained {

struct KvFormat {
  std::string_view name = "f32";
  KvRounding rounding = KvRounding::none;
  /// nvfp4: how a head's vector is quantized in blocks of 16; its global scale is a given word.
  std::string_view convention = {};

  /// Whether x / scale is what is stored: e4m3 and nvfp4, by the folder's k_scale and v_scale, else 1.
  [[nodiscard]] bool scaled() const { return rounding == KvRounding::e4m3 || !convention.empty(); }
};

/// "f32", "bf16", "e4m3" or "nvfp4"; Error for another name.
[[nodiscard]] const KvFormat &find_kv_format(std::string_view name);

/// to[r] = the values that blocks along `dim` hold of x[r], for `rows` vectors of one head and token each;
/// both on the device, the work is the host's. The values are rounded to `source` first; `scale` is the
/// global scale, which multiplies.
void keep_in_blocks(Backend<float> &backend, const KvFormat &format, float scale, FormatId source,
                    int64_t rows, int64_t dim, const float *x, float *to);

/// Whether a recipe's kv_cache gives a token the same words whatever tokens come after it.
[[nodiscard]] bool is_token_by_token(const OperandRecipe &kv_cache);

} // namespace nvfp4::models::pretrained
