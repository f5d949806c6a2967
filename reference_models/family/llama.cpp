// SPDX-License-Identifier: Apache-2.0
// Llama, as Hugging Face transformers (models/llama) names it: softmax attention with neither norms on q and k
// nor biases, whose logits nothing bounds.
#include "nvfp4/reference_models/family/softmax_attention.hpp"

namespace nvfp4::models {
namespace {

constexpr Preset kPresets[] = {
    {"tiny", 256, 128, 4, 4, 4, 128, 128, 384, true},
    {"small", 256, 256, 6, 8, 8, 256, 256, 768, true},
};

} // namespace

extern const ModelFamily kLlama;
constexpr ModelFamily kLlama = {
    .name = "llama",
    .summary = "softmax attention with neither norms on q and k nor biases",
    .mixer = MixerKind::attention,
    .modules = kTransformersNames,
    .parameters = kAttentionParameters,
    .presets = kPresets,
    .post_qk = kAttentionPostQk,
    .like = "qwen2.5",
    .expected = attention_expects,
    .paper = kAttentionFigures,
};

} // namespace nvfp4::models
