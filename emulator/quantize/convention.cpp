// SPDX-License-Identifier: Apache-2.0
// The table of conventions. A row states only what differs from Rule's defaults, which are
// TransformerEngine's.
#include "nvfp4/emulator/quantize/convention.hpp"

#include "nvfp4/emulator/nearest.hpp"

#include <array>

namespace nvfp4 {
namespace {

using enum FormatId;

constexpr std::string_view kTe =
    "NVIDIA/TransformerEngine common/cast/nvfp4/{core,quantize_transpose}_nvfp4.cuh @d0067d0d";
constexpr std::string_view kTe46 =
    "NVIDIA/TransformerEngine common/cast/nvfp4/quantize_4over6_nvfp4.cuh @d0067d0d, exact error path";
constexpr std::string_view kTeMx =
    "NVIDIA/TransformerEngine common/cast/mxfp8/quantize_mxfp8.cuh, ptx::float_to_e8m0 @d0067d0d";
constexpr std::string_view kAoMx =
    "OCP MX 1.0 section 6.3, as pytorch/ao mx_formats/mx_tensor.py to_mx FLOOR @36027d82";
constexpr std::string_view kAoMxRelease =
    "pytorch/ao torchao/prototype/mx_formats/mx_tensor.py to_mx FLOOR on CPU, wheels of the releases";
constexpr std::string_view kAoMxModes =
    "pytorch/ao torchao/prototype/mx_formats/mx_tensor.py to_mx CEIL, EVEN on CPU, wheels of the releases";
constexpr std::string_view kAoMxRceil =
    "the same file, _to_mx_rceil, with the instruction of sm_100; eagerly ceil(log2) in FP32, which misses powers";
constexpr std::string_view kAoMxRun = "torchao 0.18 (0.18.0 was run)";
constexpr std::string_view kIntFp = 
    "formats of arXiv 2510.25602, clipped symmetrically; the power of two not below, for its scales are 1 to 2 times too large";
constexpr std::string_view kTeVersions = "TransformerEngine 2.14 to 2.20 (2.20.2's Python reference was run)";
constexpr std::string_view kAoMxVersions = "torchao main @36027d82; no release from 0.13 to 0.18";
constexpr std::string_view kAoMxReleases = "torchao 0.13 to 0.18";
constexpr std::string_view kFlash =
    "flashinfer-ai/flashinfer csrc/nv_internal/tensorrt_llm/kernels/quantization_utils.cuh @fb28d724";
constexpr std::string_view kFos =
    "mit-han-lab/fouroversix csrc/include/{fp4_quant_kernel,utils}.h @dadfad6, the CUDA backend";

constexpr std::string_view kFosPython = "mit-han-lab/fouroversix src/fouroversix/quantize/pytorch/reference.py @dadfad6";
constexpr std::string_view kHif4 =
    "HiFloat4 (arXiv 2602.11287) as ddddwee1/HiFloat4 hif4_gpu/{HiF4_NVFP4_v14f16.py,quant_cy/base} @999cc07";
constexpr std::string_view kVllmFp8 = "vllm-project/vllm csrc/quantization/fp8/common.cu, dynamic scales";
constexpr std::string_view kIf4Words = "of that commit; there a value that rounds to 8 is packed as -0, and sums of errors have "
                                       "another order, so ties between the two fall otherwise (1 block of 32768)";
constexpr std::string_view kHif4Words =
    "of that commit, which writes values; the order of the 32 bits is this project's, NaN is not modelled";

constexpr Capabilities kAll{};
constexpr Capabilities kNoSr{.stochastic = false};
constexpr Capabilities kPlain{.stochastic = false, .hadamard = false, .tiles = false};
constexpr Capabilities kTilesOnly{.stochastic = false, .hadamard = false, .tiles = true};
constexpr Capabilities kNoTiles{.tiles = false};

constexpr Rule te_four_over_six(FourOverSix mode) {
  return {.e4m3_max = 256.0f,
          .order = ScaleOrder::sixth_by_encode,
          .scale_rounding = ScaleRounding::cap_largest,
          .four_over_six = mode};
}

/// The kernel leaves `diff * diff` and the sum to nvcc, which fuses them by default.
constexpr Rule fouroversix(FourOverSix mode) {
  return {.e4m3_max = 256.0f,
          .global = GlobalRule::quotient,
          .order = ScaleOrder::sixth_by_encode,
          .scale_rounding = ScaleRounding::plain,
          .four_over_six = mode,
          .fused_error = mode == FourOverSix::mse,
          .decoding = Decoding::amax_divide};
}

constexpr Rule flashinfer(bool exact) {
  return {.amax_nan = AmaxNan::unless_all,
          .global = GlobalRule::caller,
          .order = exact ? ScaleOrder::amax_by_encode_sixth : ScaleOrder::encode_by_amax_k6,
          .scale_rounding = ScaleRounding::plain,
          .scaling = exact ? Scaling::inverse_capped : Scaling::inverse,
          .zero_multiplier = ZeroMultiplier::zero_amax,
          .flush = true,
          .decoding = Decoding::scale_decode};
}

constexpr Rule vllm() {
  Rule r = flashinfer(false);
  r.zero_multiplier = ZeroMultiplier::zero_scale;
  r.flush = false;
  return r;
}

constexpr Rule mx_up(FormatId element) {
  return {.element = element,
          .scale = ue8m0,
          .block = 32,
          .global = GlobalRule::none,
          .order = ScaleOrder::amax_by_inverse_max,
          .scale_rounding = ScaleRounding::power_up,
          .scaling = Scaling::exponent,
          .decoding = Decoding::scale_only};
}

/// The exponent as torchao's releases take it.
constexpr Rule mx_release(FormatId element, ScaleOrder order = ScaleOrder::exponent_field) {
  Rule r = mx_floor_rule(element);
  r.order = order;
  r.scaling = Scaling::exponent_normal;
  return r;
}

/// RCEIL: cvt.rp.satfinite.ue8m0x2 of bmax over the largest element.
constexpr Rule mx_release_rceil(FormatId element) {
  Rule r = mx_floor_rule(element);
  r.order = ScaleOrder::sixth;
  r.scale_rounding = ScaleRounding::power_up;
  r.scaling = Scaling::exponent_one;
  return r;
}

/// Scales as torchao's EVEN, elements through compressed-tensors' cast.
constexpr Rule mx_compressed_tensors() {
  Rule r = mx_floor_rule(e2m1);
  r.order = ScaleOrder::exponent_even;
  r.negative_zero = NegativeZero::drop_exact;
  r.nan_code = NanCode::zero;
  return r;
}

/// ggml's scale is the floor of log2 of bmax, its elements the nearest code value by a search.
constexpr Rule mx_ggml() {
  Rule r = mx_floor_rule(e2m1);
  r.scaling = Scaling::search;
  return r;
}

/// Integers that fill their range symmetrically under the least power of two that does not clip.
constexpr Rule mx_integer(FormatId element) {
  Rule r = mx_up(element);
  r.order = ScaleOrder::sixth;
  return r;
}

/// HiFloat4: E6M2 of a block's maximum over 7, then one-bit exponents, then elements by a reciprocal in BF16.
constexpr Rule hif4(Ties ties, bool metis = false) {
  return {.element = s1p2,
          .scale = hif4s,
          .block = 64,
          .global = GlobalRule::none,
          .order = ScaleOrder::bf16_inverse_top,
          .scale_rounding = ScaleRounding::clamp_finite,
          .scaling = metis ? Scaling::divide_bf16_reciprocal : Scaling::bf16_reciprocal,
          .ties = ties,
          .decoding = metis ? Decoding::bf16_reciprocal : Decoding::scale_only};
}

/// IF4: E2M1 and INT4 under one scale, INT4 taken where its error is less.
constexpr Rule if4_rule(FourOverSix error) {
  return {.element = if4,
          .scale = ue4m3f,
          .amax_nan = AmaxNan::propagate,
          .global = GlobalRule::quotient,
          .order = ScaleOrder::sixth_by_encode,
          .scale_rounding = ScaleRounding::plain,
          .scaling = Scaling::inverse_ieee,
          .zero_multiplier = ZeroMultiplier::zero_scale,
          .negative_zero = NegativeZero::drop_exact,
          .nan_code = NanCode::zero,
          .four_over_six = error,
          .second_scale = SecondScale::same,
          .decoding = Decoding::amax_divide};
}

/// E4M3 under FP32 scales of blocks, of rows or of the tensor, repeated by blocks of 128.
constexpr Rule fp8(ScaleOrder order, bool per_row, Scaling scaling, float least_scale) {
  return {.element = e4m3,
          .scale = f32,
          .block = 128,
          .global = GlobalRule::none,
          .per_row = per_row,
          .order = order,
          .scale_rounding = ScaleRounding::as_it_is,
          .least_scale = least_scale,
          .scaling = scaling,
          .zero_multiplier = scaling == Scaling::inverse_scale ? ZeroMultiplier::zero_scale : ZeroMultiplier::never,
          .decoding = Decoding::scale_only};
}

/// Dynamic fixed point: whole numbers of 16 bits under one power of two of the tensor, the largest that leaves its maximum in range,
/// repeated by blocks of 32.
constexpr Rule dynamic_fixed_point() {
  return {.element = int16,
          .scale = ue8m0,
          .block = 32,
          .global = GlobalRule::none,
          .order = ScaleOrder::amax_exponent,
          .scale_rounding = ScaleRounding::power_exact,
          .scaling = Scaling::exponent,
          .decoding = Decoding::scale_only};
}

/// FP4 under the PyTorch backend's static scales. top: 6, or less for unbiased stochastic rounding.
constexpr Rule fouroversix_static(float top) {
  return {.amax_nan = AmaxNan::propagate,
          .global = GlobalRule::quotient,
          .top = top,
          .order = ScaleOrder::sixth_by_encode,
          .scale_rounding = ScaleRounding::plain,
          .scaling = Scaling::inverse_ieee,
          .zero_multiplier = ZeroMultiplier::zero_scale,
          .negative_zero = NegativeZero::drop_exact,
          .nan_code = NanCode::zero,
          .decoding = Decoding::amax_divide};
}

/// ALTO's exponent: as torchao's EVEN, at least that of 2^-126.
constexpr Rule mx_alto() {
  Rule r = mx_floor_rule(e2m1);
  r.order = ScaleOrder::exponent_even;
  r.scale_rounding = ScaleRounding::power_normal;
  return r;
}

/// The power of two not below bmax over 7.25, above which rounding to 6 costs more than a step.
constexpr Rule mx_uos() {
  Rule r = mx_floor_rule(e2m1);
  r.top = 7.25f;
  r.order = ScaleOrder::sixth;
  r.scale_rounding = ScaleRounding::power_up;
  return r;
}

constexpr Rule mxfp4_flashinfer() {
  Rule r = mx_up(e2m1);
  r.amax_nan = AmaxNan::unless_all;
  r.scaling = Scaling::exponent_one;
  r.zero_multiplier = ZeroMultiplier::zero_amax;
  r.flush = true;
  return r;
}

constexpr std::array kTable{
    Convention{"te", "te214", {}, kAll, ConventionEvidence::transcribed, kTe, kTeVersions},
    Convention{
        "te213",
        "paper",
        {.order = ScaleOrder::sixth_by_encode},
        kAll,
        ConventionEvidence::transcribed,
        "NVIDIA/TransformerEngine v2.8-v2.13 common/cast/nvfp4/core_nvfp4.cuh; arXiv 2509.25149 appendix B",
        "TransformerEngine 2.8 to 2.13 (2.13.0's Python reference was run)"},
    Convention{"torchao",
               "",
               {.amax_nan = AmaxNan::propagate,
                .global = GlobalRule::decode,
                .order = ScaleOrder::sixth_by_decode,
                .scale_rounding = ScaleRounding::clamp_normal,
                .scaling = Scaling::inverse_decode,
                .nan_code = NanCode::one_and_half,
                .decoding = Decoding::scale_decode},
               kAll,
               ConventionEvidence::upstream_run,
               "pytorch/ao torchao/prototype/mx_formats/nvfp4_tensor.py nvfp4_quantize on CPU @36027d82",
               "torchao 0.17 to 0.18 and main"},
    Convention{"torchao015",
               "torchao016",
               {.amax_nan = AmaxNan::propagate,
                .global = GlobalRule::decode,
                .order = ScaleOrder::sixth_by_decode,
                .scale_rounding = ScaleRounding::clamp_normal,
                .scaling = Scaling::divide,
                .nan_code = NanCode::one_and_half,
                .decoding = Decoding::scale_decode},
               kAll,
               ConventionEvidence::transcribed,
               "pytorch/ao torchao/prototype/mx_formats/nvfp4_tensor.py nvfp4_quantize on CPU, wheels of "
               "0.15.0 and 0.16.0",
               "torchao 0.15 to 0.16; 0.13 and 0.14 the same with the first element in the high nibble"},
    // The Triton kernels divide with `/`, which may be off by an ulp on a GPU, and clamp NaN as the compiler
    // likes.
    Convention{
        "torchao018-kernels",
        "",
        {.amax_nan = AmaxNan::unless_all,
         .order = ScaleOrder::sixth_by_encode,
         .scale_rounding = ScaleRounding::clamp_normal,
         .decoding = Decoding::scale_decode},
        kAll,
        ConventionEvidence::transcribed,
        "pytorch/ao torchao/prototype/moe_training/nvfp4_training/{hadamard_utils,quantize_2d_triton}.py, "
        "wheel of 0.18.0",
        "torchao 0.18; divisions taken as correctly rounded, NaN not modelled"},
    Convention{
        "modelopt",
        "",
        {.amax_nan = AmaxNan::propagate,
         .global = GlobalRule::decode,
         .order = ScaleOrder::amax_by_six_decode,
         .scale_rounding = ScaleRounding::clamp_tiny,
         .scaling = Scaling::divide,
         .negative_zero = NegativeZero::drop_exact,
         .decoding = Decoding::scale_decode},
        kAll,
        ConventionEvidence::upstream_run,
        "NVIDIA/Model-Optimizer torch/quantization/qtensor/nvfp4_tensor.py, dynamic path on CPU @a2fbac7b",
        "modelopt 0.45 to 0.47"},
    Convention{"compressed-tensors",
               "",
               {.amax_nan = AmaxNan::propagate,
                .global = GlobalRule::compressed_tensors,
                .order = ScaleOrder::source_sixth,
                .scale_rounding = ScaleRounding::eighth_if_zero,
                .scaling = Scaling::divide_encode,
                .negative_zero = NegativeZero::drop_exact,
                .nan_code = NanCode::zero,
                .decoding = Decoding::scale_encode},
               kAll,
               ConventionEvidence::upstream_run,
               "vllm-project/compressed-tensors quantization/{utils/helpers,lifecycle/forward_helpers}.py on "
               "CPU @ac8e2ba8",
               "compressed-tensors 0.15.0.1 to 0.20.1; older ones differ for a tiny or zero amax"},
    Convention{"flashinfer-exact", "", flashinfer(true), kAll, ConventionEvidence::transcribed, kFlash},
    // rcp.approx.ftz is modelled as correctly rounded: exact midpoints may fall the other way on a GPU. The
    // published bytes of an RTX 5080 agree with the next two rows, and also with exact division.
    Convention{"flashinfer", "", flashinfer(false), kAll, ConventionEvidence::hardware, kFlash},
    Convention{"vllm", "", vllm(), kAll, ConventionEvidence::hardware,
               "vllm-project/vllm csrc/quantization/fp4/nvfp4_utils.cuh @07c13c7b"},
    Convention{"ggml",
               "",
               {.global = GlobalRule::none,
                .order = ScaleOrder::sixth,
                .scale_rounding = ScaleRounding::ggml,
                .scaling = Scaling::search,
                .decoding = Decoding::scale_only},
               kNoSr,
               ConventionEvidence::upstream_run,
               "ggml-org/ggml src/ggml-quants.c quantize_row_nvfp4_ref, src/ggml-impl.h @d99724f2"},
    Convention{"fouroversix", "fouroversix-mse", fouroversix(FourOverSix::mse), kNoSr,
               ConventionEvidence::transcribed, kFos},
    Convention{"fouroversix-mae", "", fouroversix(FourOverSix::mae), kNoSr, ConventionEvidence::transcribed,
               kFos},
    Convention{"fouroversix-static", "fouroversix-static-6", fouroversix_static(0.0f), kAll, ConventionEvidence::transcribed, kFosPython,
               "of that commit; stochastic rounding by the models here"},
    Convention{"fouroversix-unbiased", "", fouroversix_static(kUnbiasedTop), kAll, ConventionEvidence::transcribed, kFosPython,
               "of that commit, style stochastic_unbiased; stochastic rounding by the models here"},
    Convention{"te-4over6", "te-4over6-mae", te_four_over_six(FourOverSix::mae), kTilesOnly,
               ConventionEvidence::transcribed, kTe46, kTeVersions},
    Convention{"te-4over6-mse", "", te_four_over_six(FourOverSix::mse), kTilesOnly,
               ConventionEvidence::transcribed, kTe46, kTeVersions},
    Convention{"row-scaled",
               "te-row-scaled",
               {.per_row = true},
               kPlain,
               ConventionEvidence::transcribed,
               kTe,
               kTeVersions},
    Convention{"amd-fp4",
               "",
               {.scale = ue5m3,
                .amax_nan = AmaxNan::propagate,
                .global = GlobalRule::none,
                .order = ScaleOrder::sixth,
                .scale_rounding = ScaleRounding::clamp_finite,
                .scaling = Scaling::divide,
                .nan_code = NanCode::one_and_half,
                .decoding = Decoding::scale_only},
               kAll,
               ConventionEvidence::transcribed,
               "AMD-AGI/ALTO alto/kernels/fp4/amdfp4 @3cf5912, without the outer scale"},
    Convention{"ue5m3-graphcore",
               "graphcore",
               {.scale = ue5m3g,
                .scale_rounding = ScaleRounding::one_if_zero,
                .scaling = Scaling::inverse_ieee,
                .negative_zero = NegativeZero::drop_exact,
                .decoding = Decoding::value_decode},
               kAll,
               ConventionEvidence::transcribed,
               "MrHuff/ue5m3-fp4 src/ue5m3_fp4/backends/triton/{quantization,_rounding}.py @9bae397, scale target 448",
               "of that commit, whose stochastic rounding is sr-mid8; it refuses what is not finite"},
    Convention{"metis-nvfp4",
               "",
               {.amax_nan = AmaxNan::propagate,
                .global = GlobalRule::offset_sixth,
                .order = ScaleOrder::offset_sixth_by_decode,
                .scale_rounding = ScaleRounding::plain,
                .scaling = Scaling::divide_unrounded,
                .negative_zero = NegativeZero::drop_exact,
                .decoding = Decoding::scale_decode},
               kAll,
               ConventionEvidence::transcribed,
               "sii-research/Metis Metis/quant.py Cast2NVFp4e2m1Block, Cast2NVFp4e2m1BlockNOSR @3c2e72e",
               "of that commit on FP32 tensors; its rounding of code numbers taken as exact, NaN not modelled"},
    Convention{"quartet2-eden",
               "",
               {.e4m3_max = 256.0f,
                .global = GlobalRule::part_sixth,
                .top = kEdenTop,
                .order = ScaleOrder::sixth_by_decode,
                .scale_rounding = ScaleRounding::one_if_zero,
                .scaling = Scaling::divide,
                .decoding = Decoding::value_decode},
               kAll,
               ConventionEvidence::transcribed,
               "IST-DASLab/Quartet-II src/models/quantization/schemes/quartet_2.py eden_1x16s_fp4_kernel @204a81c, before its correction",
               "of that commit, with its kernel's 256 for the simulation's 255.99 and ties to even as cvt has them; NaN not modelled"},
    Convention{"alto-nvfp4",
               "",
               {.amax_nan = AmaxNan::zero,
                .global = GlobalRule::decode_floored,
                .order = ScaleOrder::decode_by_sixth,
                .scale_rounding = ScaleRounding::clamp_normal,
                .scaling = Scaling::divide,
                .nan_code = NanCode::one_and_half,
                .decoding = Decoding::scale_decode},
               kAll,
               ConventionEvidence::transcribed,
               "AMD-AGI/ALTO alto/kernels/fp4/nvfp4/nvfp_quantization.py with the outer scale @74e251d",
               "of that commit; divisions taken as correctly rounded, stochastic rounding by the models here"},
    Convention{"mxfp4", "mxfp4-floor", mx_floor_rule(e2m1), kNoTiles, ConventionEvidence::upstream_run, kAoMx,
               kAoMxVersions},
    Convention{"mxfp4-torchao018", "", mx_release(e2m1), kNoTiles, ConventionEvidence::transcribed,
               kAoMxRelease, kAoMxReleases},
    Convention{"mxfp8-e4m3-torchao018", "", mx_release(e4m3), kNoTiles,
               ConventionEvidence::transcribed, kAoMxRelease, kAoMxReleases},
    Convention{"mxfp8-e5m2-torchao018", "", mx_release(e5m2), kNoTiles,
               ConventionEvidence::transcribed, kAoMxRelease, kAoMxReleases},
    Convention{"mxfp6-e2m3-torchao018", "", mx_release(e2m3), kNoTiles, ConventionEvidence::upstream_run,
               kAoMxRelease, kAoMxRun},
    Convention{"mxfp6-e3m2-torchao018", "", mx_release(e3m2), kNoTiles, ConventionEvidence::upstream_run,
               kAoMxRelease, kAoMxRun},
    Convention{"mxfp4-torchao018-ceil", "", mx_release(e2m1, ScaleOrder::exponent_ceil), kNoTiles,
               ConventionEvidence::upstream_run, kAoMxModes, kAoMxRun},
    Convention{"mxfp4-torchao018-even", "", mx_release(e2m1, ScaleOrder::exponent_even), kNoTiles,
               ConventionEvidence::upstream_run, kAoMxModes, kAoMxRun},
    Convention{"mxfp4-torchao018-rceil", "", mx_release_rceil(e2m1), kNoTiles,
               ConventionEvidence::upstream_run, kAoMxRceil, kAoMxRun},
    Convention{"mxfp8-e4m3-torchao018-ceil", "", mx_release(e4m3, ScaleOrder::exponent_ceil), kNoTiles,
               ConventionEvidence::upstream_run, kAoMxModes, kAoMxRun},
    Convention{"mxfp8-e4m3-torchao018-even", "", mx_release(e4m3, ScaleOrder::exponent_even), kNoTiles,
               ConventionEvidence::upstream_run, kAoMxModes, kAoMxRun},
    Convention{"mxfp8-e4m3-torchao018-rceil", "", mx_release_rceil(e4m3), kNoTiles,
               ConventionEvidence::upstream_run, kAoMxRceil, kAoMxRun},
    Convention{"mxfp4-compressed-tensors", "", mx_compressed_tensors(), kNoTiles,
               ConventionEvidence::upstream_run,
               "vllm-project/compressed-tensors quantization/utils/mxfp_utils.py, compressors/mxfp4 on CPU, wheel of 0.20.1",
               "compressed-tensors 0.20 (0.20.1 was run); NaN and Inf not compared"},
    Convention{"mxfp4-alto", "", mx_alto(), kNoTiles, ConventionEvidence::transcribed,
               "AMD-AGI/ALTO alto/kernels/fp4/mxfp4/mxfp_quantization.py, clip mode none @00557ce", "of that commit; NaN and Inf not modelled"},
    Convention{"mxfp4-uos", "", mx_uos(), kNoTiles, ConventionEvidence::transcribed,
               "AMD-AGI/ALTO, the scale mode UOS: 2^ceil(log2(bmax / 7.25)) @74e251d",
               "of that commit; the quotient rounded once, where log2 may take it for a power"},
    Convention{"mxfp4-macro",
               "",
               {.scale = f32,
                .block = 32,
                .amax_nan = AmaxNan::propagate,
                .global = GlobalRule::macro,
                .outer_block = 128,
                .order = ScaleOrder::macro_even,
                .scale_rounding = ScaleRounding::as_it_is,
                .scaling = Scaling::macro_bf16,
                .decoding = Decoding::scale_only},
               {.tiles = false},
               ConventionEvidence::transcribed,
               "AMD-AGI/ALTO alto/kernels/fp4/mxfp4/{macro_block_scaling,mxfp_quantization}.py @27fa9e4, 1x128",
               "of that commit on BF16 tensors; its two scales in one FP32 word, which rounds where it would divide the value"},
    Convention{"mxfp4-ggml", "", mx_ggml(), {.stochastic = false, .tiles = false}, ConventionEvidence::upstream_run,
               "ggml-org/llama.cpp gguf-py gguf/quants.py MXFP4, ggml-quants.c quantize_row_mxfp4_ref, wheel of gguf 0.19.0",
               "gguf 0.17 to 0.19 (0.19.0 was run); a bmax within an FP32 rounding below a power of two, which log2f takes "
               "for that power, one below 2^-125, NaN and Inf not modelled"},
    Convention{"mxfp4-ceil", "", mxfp4_flashinfer(), kNoTiles, ConventionEvidence::transcribed, kFlash},
    Convention{"mxfp8-e4m3", "mxfp8-e4m3-floor", mx_floor_rule(e4m3), kNoTiles,
               ConventionEvidence::upstream_run, kAoMx, kAoMxVersions},
    Convention{"mxfp8-e4m3-ceil", "", mx_up(e4m3), kNoTiles, ConventionEvidence::transcribed, kTeMx},
    Convention{"mxfp8-e5m2", "mxfp8-e5m2-floor", mx_floor_rule(e5m2), kNoTiles,
               ConventionEvidence::upstream_run, kAoMx, kAoMxVersions},
    Convention{"mxfp8-e5m2-ceil", "", mx_up(e5m2), kNoTiles, ConventionEvidence::transcribed, kTeMx},
    Convention{"mxint8", "mxint8-floor", mx_floor_rule(int8), kNoTiles, ConventionEvidence::transcribed,
               "OCP MX 1.0 sections 5.3.4 and 6.3; the code for -2 is never written", "of that document"},
    Convention{"mxint8-ceil", "", mx_integer(int8), kNoTiles, ConventionEvidence::transcribed, kIntFp,
               "of that paper as cited; its elements are whole numbers, so its scales are 2^-6 of these"},
    Convention{"mxint4", "mxint4-ceil", mx_integer(int4), kNoTiles, ConventionEvidence::transcribed, kIntFp,
               "of that paper as cited"},
    Convention{"nvint4",
               "fouroversix-nvint4",
               {.element = int4,
                .amax_nan = AmaxNan::propagate,
                .global = GlobalRule::quotient,
                .order = ScaleOrder::sixth_by_encode,
                .scale_rounding = ScaleRounding::plain,
                .scaling = Scaling::inverse_ieee,
                .zero_multiplier = ZeroMultiplier::zero_scale,
                .nan_code = NanCode::zero,
                .decoding = Decoding::amax_divide},
               kAll,
               ConventionEvidence::transcribed,
               kFosPython},
    Convention{"if4", "fouroversix-if4", if4_rule(FourOverSix::mse), kNoSr, ConventionEvidence::upstream_run, kFosPython,
               kIf4Words},
    Convention{"if4-mae", "", if4_rule(FourOverSix::mae), kNoSr, ConventionEvidence::upstream_run, kFosPython, kIf4Words},
    Convention{"mixfp4",
               "",
               {.element = mixfp4,
                .scale = ue4m3f,
                .four_over_six = FourOverSix::mse,
                .second_scale = SecondScale::own},
               kNoSr,
               ConventionEvidence::transcribed,
               "MixFP4, arXiv 2605.31035, from its abstract: NVFP4's scales, two candidates a block, the lesser squared error",
               "ours where the abstract is silent: te's steps, E1M2 as 0, 1, ... 7, its scale bmax / 7"},
    Convention{"ufp4",
               "",
               {.element = e1m2,
                .scale = f32,
                .global = GlobalRule::none,
                .order = ScaleOrder::sixth,
                .scale_rounding = ScaleRounding::as_it_is,
                .scaling = Scaling::inverse_scale,
                .zero_multiplier = ZeroMultiplier::zero_scale,
                .decoding = Decoding::scale_only},
               kAll,
               ConventionEvidence::transcribed,
               "UFP4, arXiv 2606.20381: the evenly spaced grid under one FP32 scale a block",
               "ours where it was read in excerpts: blocks of 16, SF = bmax / 3.5, q = E1M2(x * (1 / SF))"},
    Convention{"tetrajet-v2",
               "",
               {.scale = f32,
                .global = GlobalRule::part_sixth,
                .outer_block = 128,
                .order = ScaleOrder::decode_by_sixth,
                .scale_rounding = ScaleRounding::e4m3_by_decode,
                .scaling = Scaling::inverse_scale,
                .zero_multiplier = ZeroMultiplier::zero_scale,
                .decoding = Decoding::scale_only},
               kPlain,
               ConventionEvidence::transcribed,
               "thu-ml/TetraJet-v2-NVFP4Training kernels/csrc/quant_fp4.cu @ca5953f, to nearest",
               "of that commit as cited; its approximate divisions taken as correctly rounded, NaN not modelled, its generator "
               "and rotation not here"},
    Convention{"fp8-tensor", "", fp8(ScaleOrder::amax_sixth, false, Scaling::inverse_scale, 0.0f), kNoTiles,
               ConventionEvidence::transcribed, kVllmFp8, "of one scale for a tensor; NaN stays NaN"},
    Convention{"fp8-token", "fp8-channel",
               fp8(ScaleOrder::amax_sixth, true, Scaling::divide_scale, 1.0f / (448.0f * 512.0f)), kNoTiles,
               ConventionEvidence::transcribed, kVllmFp8, "of one scale for a row: a token, or a channel of a weight"},
    Convention{"fp8-1x128", "fp8-128x128", fp8(ScaleOrder::sixth, false, Scaling::divide_scale, 1e-10f / 448.0f), kAll,
               ConventionEvidence::transcribed,
               "deepseek-ai/DeepSeek-V3 inference/kernel.py act_quant, with vLLM's least amax of 1e-10",
               "1x128, or tiles of 128x128 for weights; NaN stays NaN"},
    Convention{"dfp16", "", dynamic_fixed_point(), kNoTiles, ConventionEvidence::transcribed,
               "dynamic fixed point of 16 bits, arXiv 1802.00930: one exponent of the tensor, that of its largest magnitude less 14",
               "of the paper as cited; ours are ties to even, 32768 as 32767, NaN as no maximum and 32767, and 2^-127 as the least scale"},
    Convention{"hif4", "hif4-away", hif4(Ties::away), kNoTiles, ConventionEvidence::upstream_run, kHif4, kHif4Words},
    Convention{"hif4-rne", "", hif4(Ties::even), kNoTiles, ConventionEvidence::transcribed, kHif4,
               "the choice of ties that a comment of that code leaves open; none of its versions makes it"},
    Convention{"hif4-metis", "", hif4(Ties::away, true), kNoTiles, ConventionEvidence::upstream_run,
               "sii-research/Metis Metis/quant.py Cast2Hif4, with sr-exact Cast2Hif4SR @3c2e72e",
               "of that commit; decoded by a reciprocal in BF16, which is not the format's value, so there is no product; NaN not modelled"},
};

} // namespace

std::string_view to_string(ConventionEvidence evidence) {
  switch (evidence) {
  case ConventionEvidence::transcribed: return "transcribed";
  case ConventionEvidence::upstream_run: return "upstream-run";
  case ConventionEvidence::hardware: break;
  }
  return "hardware";
}

std::span<const Convention> conventions() { return kTable; }

const Convention &find_convention(std::string_view name) {
  std::string names;
  for (const Convention &c : kTable) {
    if (name == c.name || (!c.alias.empty() && name == c.alias)) return c;
    names.append(names.empty() ? "" : ", ").append(c.name);
  }
  throw Error("unknown quantization convention '" + std::string(name) + "'" +
              suggestion_among(name, kTable, [](const Convention &c) { return c.name; }) + "; expected one of " + names);
}

} // namespace nvfp4
