// SPDX-License-Identifier: Apache-2.0
// Gated DeltaNet, as flash-linear-attention (fla/models/gated_deltanet) names and configures it.
#include "nvfp4/reference_models/family/family.hpp"

namespace nvfp4::models {
namespace {

constexpr MixerParameter kParameters[] = {
    linear_weight(0, "q_proj", Dim::key, Dim::hidden),
    linear_weight(1, "k_proj", Dim::key, Dim::hidden),
    linear_weight(2, "v_proj", Dim::value, Dim::hidden),
    linear_weight(4, "a_proj", Dim::heads, Dim::hidden),
    linear_weight(5, "b_proj", Dim::heads, Dim::hidden),
    per_head("A_log", Init::decay),
    per_head("dt_bias", Init::time_step),
    convolution_weight("q_conv1d", Dim::key),
    convolution_weight("k_conv1d", Dim::key),
    convolution_weight("v_conv1d", Dim::value),
    linear_weight(3, "g_proj", Dim::value, Dim::hidden),
    norm_weight("o_norm", Dim::value_head),
    linear_weight(6, "o_proj", Dim::hidden, Dim::value),
};

constexpr Preset kPresets[] = {
    {"tiny", 256, 128, 4, 2, 2, 64, 128, 384, true},
    {"small", 256, 256, 6, 4, 4, 128, 256, 768, true},
    {"gdn-340m", 32000, 1024, 21, 6, 6, 1536, 3072, 2816, false},
};

constexpr std::string_view kPostQk[] = {"attn.o_proj", "attn.a_proj", "attn.b_proj"};

} // namespace

extern const ModelFamily kGdn;
constexpr ModelFamily kGdn = {
    .name = "gdn",
    .summary = "Gated DeltaNet: short convolutions, L2-normalised q and k, gated delta rule",
    .mixer = MixerKind::delta,
    .modules = kFlaNames,
    .parameters = kParameters,
    .presets = kPresets,
    .post_qk = kPostQk,
};

} // namespace nvfp4::models
