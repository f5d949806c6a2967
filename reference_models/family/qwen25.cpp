// SPDX-License-Identifier: Apache-2.0
// Qwen2.5, as Hugging Face transformers (models/qwen2) names and configures it.
#include "nvfp4/reference_models/family/softmax_attention.hpp"

namespace nvfp4::models {
namespace {

constexpr Preset kPresets[] = {
    {"tiny", 256, 128, 4, 4, 2, 128, 128, 384, true},
    {"small", 256, 256, 6, 8, 4, 256, 256, 768, true},
};

} // namespace

extern const ModelFamily kQwen25;
constexpr ModelFamily kQwen25 = {
    .name = "qwen2.5",
    .summary = "the same with QKV bias, without the norms on q and k",
    .mixer = MixerKind::attention,
    .modules = kTransformersNames,
    .parameters = kAttentionParameters,
    .presets = kPresets,
    .qkv_bias = true,
    .post_qk = kAttentionPostQk,
    .expected = attention_expects,
    .paper = kAttentionFigures,
};

} // namespace nvfp4::models
