// SPDX-License-Identifier: Apache-2.0
// The table of claims, and what decides one.
#include "nvfp4/reference_models/lab/claims.hpp"

#include <array>
#include <cmath>
#include <fmt/core.h>

namespace nvfp4::models {
namespace {

constexpr std::string_view kAudit =
    "rdspring1/nvfp4-training-harness deepseek_v3/kernel_analysis/nvfp4_backward_te_audit.md @1d5666b, on a GB200";
constexpr std::string_view kIntFp = "arXiv 2510.25602";
constexpr std::string_view kNvidia = "arXiv 2509.25149";
constexpr std::string_view kFourOverSix = "arXiv 2512.02010";
constexpr std::string_view kUe5m3 = "arXiv 2609.02846";
constexpr std::string_view kChon = "arXiv 2602.02047";

constexpr std::array kClaims{
    // relative L2 of products of Gaussian operands in TransformerEngine's arithmetic
    Claim{"wgrad of Gaussian data, both operands to nearest", kAudit, "0.13424 and 0.13470", "figure/nearest/wgrad/error", {}, 0.1342, 0.1347},
    Claim{"wgrad of Gaussian data, dy rounded stochastically, one draw", kAudit, "0.16696 and 0.16710", "figure/nvfp4/wgrad/error", {}, 0.1669, 0.1672},
    Claim{"wgrad of Gaussian data, mean of 64 stochastic draws", kAudit, "0.09700 and 0.09725", "figure/nvfp4/wgrad/mean64", {}, 0.0969, 0.0974},
    Claim{"error of rotated x alone, wgrad's floor", kAudit, "0.09509 and 0.09533", "figure/nvfp4/wgrad.x/error", {}, 0.0950, 0.0954},
    Claim{"dgrad of Gaussian data, both operands to nearest, weights in 16x16", kAudit, "0.14602", "figure/nearest/dgrad/error", {}, 0.1459, 0.1462},
    Claim{"dgrad of Gaussian data, dy rounded stochastically, one draw", kAudit, "0.17656", "figure/nvfp4/dgrad/error", {}, 0.1764, 0.1768},
    Claim{"dgrad of Gaussian data, mean of 64 stochastic draws", kAudit, "0.11294", "figure/nvfp4/dgrad/mean64", {}, 0.1127, 0.1132},
    Claim{"error of 16x16 weights alone, dgrad's floor", kAudit, "0.11131, 0.11116 and 0.11115", "figure/nvfp4/dgrad.w/error", {}, 0.1111, 0.1114},
    Claim{"error of 1x16 weights alone, dgrad's floor with them", kAudit, "0.09511", "figure/1x16/dgrad.w/error", {}, 0.0950, 0.0953},
    Claim{"1x16 weights leave dgrad a lower bias than 16x16", kAudit, "floors of 0.095 and 0.111", "figure/1x16/dgrad/bias", "figure/nvfp4/dgrad/bias"},
    // integers against floating point
    Claim{"MXINT4 is better than MXFP4 below a crest factor of 2.04 (ours by bins of 0.1, scales rounded up)", kIntFp, "2.04, by a model of both errors", "crossing/mx", {}, 1.99, 2.09},
    Claim{"NVINT4 is better than NVFP4 below a crest factor of 2.39 (ours by bins of 0.1)", kIntFp, "2.39, by a model of both errors", "crossing/nv", {}, 2.34, 2.44},
    Claim{"rotated, NVINT4 has less error than NVFP4: activations", kIntFp, "ordering of SNR", "preset/nvint4+hadamard/activation/error", "preset/te+hadamard/activation/error"},
    Claim{"rotated, NVINT4 has less error than NVFP4: gradients", kIntFp, "ordering of SNR", "preset/nvint4+hadamard/gradient/error", "preset/te+hadamard/gradient/error"},
    Claim{"not rotated, NVFP4 has less error than NVINT4: activations", kIntFp, "ordering of SNR", "preset/te/activation/error", "preset/nvint4/activation/error"},
    Claim{"MXINT8 has less error than MXFP8: activations", kIntFp, "ordering of SNR", "preset/mxint8-ceil/activation/error", "preset/mxfp8-e4m3-ceil/activation/error"},
    // formats and scales
    Claim{"four over six has less error than NVFP4: activations", kFourOverSix, "no number of this", "preset/fouroversix/activation/error", "preset/te/activation/error"},
    Claim{"four over six has less error than NVFP4: weights", kFourOverSix, "no number of this", "preset/fouroversix/weight/error", "preset/te/weight/error"},
    Claim{"UE5M3 scales: blocks of 16 have less error than of 32 (log-normal channels)", kUe5m3, "losses of 2.3090 and 2.3241", "sweep/channels/ue5m3-16/error", "sweep/channels/ue5m3-32/error"},
    Claim{"4 bits: two exponent bits and one of mantissa have less error than one and two (heavy tails)", "arXiv 2501.02423", "E2M1 best at 4 bits", "sweep/heavy/te/error", "sweep/heavy/te-e1m2/error"},
    Claim{"rotation lowers the error of gradients along tokens' features", kNvidia, "ordering of losses, for wgrad", "preset/te+hadamard/gradient/error", "preset/te/gradient/error"},
    Claim{"stochastic rounding of dy lowers the bias of wgrad", kNvidia, "ordering of losses", "product/nvfp4/wgrad/bias", "product/nvfp4-plain/wgrad/bias"},
    // losses after the short runs
    Claim{"Loss: BF16 below NVFP4", kNvidia, "gap of 1 to 1.5 % at 12B, 10 T tokens", "loss/bf16", "loss/nvfp4"},
    Claim{"Loss: NVFP4 with its mitigations below plain NVFP4", kNvidia, "plain diverges at 12B", "loss/nvfp4", "loss/nvfp4-plain"},
    Claim{"Loss: NVFP4 below MXFP4", kNvidia, "gaps of 1.5 and 2.5 % at 8B, 1 T tokens", "loss/nvfp4", "loss/mxfp4-sr-rht"},
    Claim{"Loss: MXFP8 below NVFP4", kNvidia, "FP8 is the baseline there", "loss/mxfp8", "loss/nvfp4"},
    Claim{"Loss: CHON below NVFP4", kChon, "gaps of 0.588 and 0.939 % at 1.3B, 60 B tokens", "loss/chon", "loss/nvfp4"}};

std::string text_of(const Estimate &e) {
  return e.half_width ? fmt::format("{:.5g} ± {:.2g} (n = {})", e.mean, *e.half_width, e.n)
                      : fmt::format("{:.5g} (n = {})", e.mean, e.n);
}

} // namespace

std::span<const Claim> claims() { return kClaims; }

JudgedClaim judge(const Claim &c, const Measures &m) {
  JudgedClaim out{.claim = &c};
  const auto missing = [&](std::string_view name) {
    return m.find(name) != nullptr ? std::string(name) + " has no number" : "needs " + std::string(name);
  };
  if (c.high.empty()) {
    const Estimate e = m.estimate(c.low);
    out.measured = e.n == 0 ? missing(c.low) : text_of(e);
    if (e.n == 0) return out;
    const double half = e.half_width.value_or(HUGE_VAL);
    out.verdict = e.mean >= c.from && e.mean <= c.to                 ? Verdict::held
                  : e.mean + half < c.from || e.mean - half > c.to ? Verdict::not_held
                                                                   : Verdict::not_settled;
    return out;
  }
  const Estimate low = m.estimate(c.low), high = m.estimate(c.high), d = m.difference(c.high, c.low);
  if (d.n == 0) {
    out.measured = low.n == 0 ? missing(c.low) : high.n == 0 ? missing(c.high) : "no pair of draws has both";
    return out;
  }
  out.verdict = !d.excludes_zero() ? Verdict::not_settled : d.mean > 0 ? Verdict::held : Verdict::not_held;
  out.measured = fmt::format("{:.5g} against {:.5g}; difference {}", low.mean, high.mean, text_of(d));
  if (const auto needed = values_to_exclude_zero(d); needed && out.verdict == Verdict::not_settled)
    out.measured += fmt::format("; about {} pairs would settle it, if it goes on so", *needed);
  return out;
}

std::vector<JudgedClaim> judge_claims(const Measures &m) {
  std::vector<JudgedClaim> out;
  for (const Claim &c : kClaims) out.push_back(judge(c, m));
  return out;
}

} // namespace nvfp4::models
