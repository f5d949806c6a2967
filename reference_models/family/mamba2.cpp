// SPDX-License-Identifier: Apache-2.0
// Mamba-2, as mamba_ssm (Mamba2) defines and Hugging Face transformers (models/mamba2) names it, with one
// group of B and C, as its published sizes have it. A block is a mixer alone: there is no MLP.
#include "nvfp4/reference_models/family/family.hpp"

namespace nvfp4::models {
namespace {

constexpr MixerParameter kParameters[] = {
    per_head("dt_bias", Init::time_step),
    per_head("A_log", Init::scan_decay),
    per_head("D", Init::ones),
    convolution_weight("conv1d", Dim::convolved),
    bias("conv1d", Dim::convolved),
    linear_weight(0, "in_proj", Dim::scanned, Dim::hidden),
    norm_weight("norm", Dim::value),
    linear_weight(6, "out_proj", Dim::hidden, Dim::value),
};

constexpr Preset kPresets[] = {
    {"tiny", 256, 128, 8, 4, 4, 256, 256, 1, true, 16, 1e-5, 64, 32},
    {"small", 256, 256, 12, 8, 8, 512, 512, 1, true, 16, 1e-5, 64, 64},
    {"mamba2-370m", 50288, 1024, 48, 32, 32, 2048, 2048, 1, true, 16, 1e-5, 64, 128},
};

/// The output projection alone, by analogy with GLA. What would stand for gk_proj, the columns that make dt,
/// B and C, is part of in_proj, as are x and z: one product, which is protected whole or not at all.
constexpr std::string_view kPostQk[] = {"attn.out_proj"};

} // namespace

extern const ModelFamily kMamba2;
constexpr ModelFamily kMamba2 = {
    .name = "mamba2",
    .summary =
        "Mamba-2: in_proj to z, x, B, C and dt, short convolution with bias, scan of a state space, swish "
        "gate then RMSNorm; blocks without MLP",
    .mixer = MixerKind::scan,
    .modules = kMambaNames,
    .parameters = kParameters,
    .presets = kPresets,
    .post_qk = kPostQk,
    .post_qk_as = "gla",
    .output = "out_proj",
};

} // namespace nvfp4::models
