// SPDX-License-Identifier: Apache-2.0
// Qwen3, as Hugging Face transformers (models/qwen3) names and configures it.
#include "nvfp4/reference_models/family/softmax_attention.hpp"

namespace nvfp4::models {
namespace {

constexpr Preset kPresets[] = {
    {"tiny", 256, 128, 4, 4, 2, 128, 128, 384, true},
    {"small", 256, 256, 6, 8, 4, 256, 256, 768, true},
    {"qwen3-0.6b", 151936, 1024, 28, 16, 8, 2048, 2048, 3072, true},
    {"qwen3-1.7b", 151936, 2048, 28, 16, 8, 2048, 2048, 6144, true},
};

} // namespace

extern const ModelFamily kQwen3;
constexpr ModelFamily kQwen3 = {
    .name = "qwen3",
    .summary = "softmax attention, grouped queries, RMSNorm on q and k per head, RoPE",
    .mixer = MixerKind::attention,
    .modules = kTransformersNames,
    .parameters = kAttentionParameters,
    .presets = kPresets,
    .qk_norm = true,
    .post_qk = kAttentionPostQk,
    .expected = attention_expects,
    .paper = kAttentionFigures,
};

} // namespace nvfp4::models
