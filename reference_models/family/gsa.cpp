// SPDX-License-Identifier: Apache-2.0
// Gated slot attention, as flash-linear-attention (fla/models/gsa) names and configures it.
#include "nvfp4/reference_models/family/config.hpp"

namespace nvfp4::models {
namespace {

constexpr MixerParameter kParameters[] = {
    linear_weight(0, "q_proj", Dim::key, Dim::hidden),
    linear_weight(1, "k_proj", Dim::key, Dim::hidden),
    linear_weight(2, "v_proj", Dim::value, Dim::hidden),
    linear_weight(4, "f_proj", Dim::slots, Dim::hidden),
    norm_weight("g_norm", Dim::hidden),
    linear_weight(6, "o_proj", Dim::hidden, Dim::value),
};

constexpr Preset kPresets[] = {
    {"tiny", 256, 128, 4, 4, 4, 128, 128, 384, true, 8, 1e-6, 16},
    {"small", 256, 256, 6, 4, 4, 256, 256, 768, true, 8, 1e-6, 32},
    {"gsa-340m", 32000, 1024, 24, 4, 4, 1024, 1024, 2816, true, 4, 1e-6, 64},
};

/// By analogy with GLA: the output projection, and what makes the gates.
constexpr std::string_view kPostQk[] = {"attn.o_proj", "attn.f_proj"};

/// g_norm has the width of the residual stream and stands before o_proj.
std::string expected(const ModelConfig &c) {
  if (c.value_dim != c.hidden)
    return "value_dim = " + std::to_string(c.value_dim) + " to be hidden = " + std::to_string(c.hidden) +
           " in gated slot attention";
  return {};
}

} // namespace

extern const ModelFamily kGsa;
constexpr ModelFamily kGsa = {
    .name = "gsa",
    .summary =
        "gated slot attention: SiLU of q, k, v, two passes over decaying slots (f_proj, logsigmoid / 8) "
        "with a softmax between them, SiLU then RMSNorm",
    .mixer = MixerKind::slots,
    .modules = kFlaNames,
    .parameters = kParameters,
    .presets = kPresets,
    .post_qk = kPostQk,
    .expected = expected,
    .post_qk_as = "gla",
};

} // namespace nvfp4::models
