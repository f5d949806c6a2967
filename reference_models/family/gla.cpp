// SPDX-License-Identifier: Apache-2.0
// GLA, as flash-linear-attention (fla/models/gla) names and configures it.
#include "nvfp4/reference_models/family/family.hpp"

namespace nvfp4::models {
namespace {

constexpr MixerParameter kParameters[] = {
    linear_weight(0, "q_proj", Dim::key, Dim::hidden),
    linear_weight(1, "k_proj", Dim::key, Dim::hidden),
    linear_weight(2, "v_proj", Dim::value, Dim::hidden),
    linear_weight(3, "g_proj", Dim::value, Dim::hidden),
    linear_weight(4, "gk_proj.0", Dim::gate_rank, Dim::hidden),
    linear_weight(5, "gk_proj.1", Dim::key, Dim::gate_rank),
    bias("gk_proj.1", Dim::key),
    norm_weight("g_norm_swish_gate", Dim::value_head),
    linear_weight(6, "o_proj", Dim::hidden, Dim::value),
};

constexpr Preset kPresets[] = {
    {"tiny", 256, 128, 4, 4, 4, 64, 128, 384, true},
    {"small", 256, 256, 6, 4, 4, 128, 256, 768, true},
    {"gla-340m", 32000, 1024, 24, 4, 4, 512, 1024, 2816, true},
    {"gla-1.3b", 32000, 2048, 24, 4, 4, 1024, 2048, 5632, false},
};

constexpr std::string_view kPostQk[] = {"attn.o_proj", "attn.gk_proj.*"};

} // namespace

extern const ModelFamily kGla;
constexpr ModelFamily kGla = {
    .name = "gla",
    .summary = "gated linear attention: q, k, v, g, gk_proj (rank 16, bias, logsigmoid / 16), RMSNorm then "
               "swish gate",
    .mixer = MixerKind::gla,
    .modules = kFlaNames,
    .parameters = kParameters,
    .presets = kPresets,
    .post_qk = kPostQk,
    .paper = {.nvfp4_gap = "0.939 % (Table 2, GLA-1.3B, 60 B tokens)",
              .chon_gap = "0.588 % (Table 2, GLA-1.3B, 60 B tokens)",
              .weight_kurtosis = "plateau near 1.1",
              .most_sensitive = "attn.o_proj",
              .most_score = "0.058",
              .least_sensitive = "mlp.down_proj",
              .least_score = "0.012"},
};

} // namespace nvfp4::models
