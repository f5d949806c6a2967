// SPDX-License-Identifier: Apache-2.0
// The matrix products inside mixers as operators: y = x w^T with x (rows, in) and w (out, in), so that, as
// for a linear layer, fprop is x w^T, dgrad dy w and wgrad dy^T x. A recipe's `mixer_rules` say what becomes
// of their operands. Adding one takes a row, and a mixer that runs it.
#pragma once
#include "nvfp4/reference_models/family/family.hpp"

namespace nvfp4::models {

struct MixerOperator {
  std::string_view role; ///< what recipes speak of; no linear layer has it
  MixerKind mixer;
  int number; ///< within a block, which keys stochastic rounding
  /// What x, w and y are, and what fprop, dgrad and wgrad contract, for README.md.
  std::string_view x, w, y, contractions;
};

inline constexpr MixerOperator kMixerOperators[] = {
    {"attn.qk", MixerKind::attention, 0, "q of a head (T, D)", "k of its key head (T, D)",
     "scores (T, T), before the scale D^-1/2", "D, keys, queries"},
    {"attn.pv", MixerKind::attention, 1, "P (T, T), the softmax, 0 where masked",
     "v^T of the key head (D, T)", "o of the head (T, D)", "keys, D, queries"},
    {"attn.qk", MixerKind::gla, 0, "q of a sub-chunk (M, K), decayed from its start, times K^-1/2 in fprop",
     "k of the chunk's earlier tokens (S, K), decayed to it", "their scores (M, S)", "K, S, M"},
    {"attn.av", MixerKind::gla, 2, "scores of a chunk (C, C), 0 after the diagonal", "v^T (V, C)",
     "what o has of the chunk (C, V), added to that of the state", "keys, V, queries"},
    {"attn.state_read", MixerKind::gla, 3, "q (C, K), decayed from the chunk's start, times K^-1/2",
     "S^T before the chunk (V, K)", "what o has of the state (C, V)", "K, V, queries"},
    {"attn.state_update", MixerKind::gla, 4, "k^T (K, C), decayed to the chunk's end", "v^T (V, C)",
     "what S gains (K, V), added to the decayed S", "tokens, V, K"},
    {"attn.qk", MixerKind::delta, 0, "q of a chunk (C, K)", "k of the chunk (C, K)",
     "scores (C, C), before decays and K^-1/2", "K, keys, queries"},
    {"attn.av", MixerKind::delta, 2, "scores of a chunk (C, C), 0 after the diagonal", "u^T (V, C)",
     "what o has of the chunk (C, V), added to that of the state", "tokens, V, queries"},
    {"attn.state_read", MixerKind::delta, 3, "q (C, K), decayed from the chunk's start, times K^-1/2",
     "S^T before the chunk (V, K)", "what o has of the state (C, V)", "K, V, queries"},
    {"attn.state_update", MixerKind::delta, 4, "k^T (K, C), decayed to the chunk's end", "u^T (V, C)",
     "what S gains (K, V), added to the decayed S", "tokens, V, K"},
    {"attn.kk", MixerKind::delta, 5, "k of a chunk (C, K)", "k of the chunk (C, K)",
     "products of keys (C, C), before decays and beta", "K, keys, keys"},
    {"attn.state_recall", MixerKind::delta, 6, "-k (C, K), decayed from the chunk's start",
     "S^T before the chunk (V, K)", "what S holds for the keys, negative (C, V), added to v", "K, V, keys"},
    {"attn.qk", MixerKind::slots, 0, "q of a chunk (C, K)", "k of the chunk (C, K)",
     "products (C, C), before decays", "K, keys, queries"},
    {"attn.slot_scores", MixerKind::slots, 7,
     "products of a sub-chunk with the chunk's earlier tokens (M, P)",
     "what these write, decayed to it, transposed (N, P)",
     "what they add to its slots' scores (M, N), to be decayed", "P, N, M"},
    {"attn.state_read_keys", MixerKind::slots, 9, "q of a chunk (C, K)", "Hk before the chunk (N, K)",
     "what the slots' scores have of it (C, N), to be decayed", "K, N, queries"},
    {"attn.state_update_keys", MixerKind::slots, 10,
     "what tokens write, decayed to the chunk's end, transposed (N, C)", "k^T (K, C)",
     "what Hk gains (N, K), added to the decayed Hk", "tokens, K, N"},
    {"attn.slot_weights", MixerKind::slots, 8, "p of a sub-chunk (M, N), decayed from its start",
     "what the chunk's earlier tokens write, decayed to it (P, N)", "the weights of these (M, P)", "N, P, M"},
    {"attn.av", MixerKind::slots, 2, "weights of a chunk (C, C), 0 after the diagonal", "v^T (V, C)",
     "what o has of the chunk (C, V), added to that of the state", "keys, V, queries"},
    {"attn.state_read", MixerKind::slots, 3, "p (C, N), decayed from the chunk's start",
     "Hv^T before the chunk (V, N)", "what o has of Hv (C, V)", "N, V, queries"},
    {"attn.state_update", MixerKind::slots, 4,
     "what tokens write, decayed to the chunk's end, transposed (N, C)", "v^T (V, C)",
     "what Hv gains (N, V), added to the decayed Hv", "tokens, V, N"},
    {"attn.qk", MixerKind::scan, 0, "C of a chunk (C, N)", "B of the chunk (C, N)",
     "products of all heads (C, C), before decays", "N, keys, queries"},
    {"attn.av", MixerKind::scan, 2, "decayed products of a chunk (C, C), 0 after the diagonal",
     "(dt x)^T (V, C)", "what y has of the chunk (C, V), added to that of the state", "keys, V, queries"},
    {"attn.state_read", MixerKind::scan, 3, "C (C, N), decayed from the chunk's start",
     "S^T before the chunk (V, N)", "what y has of the state (C, V)", "N, V, queries"},
    {"attn.state_update", MixerKind::scan, 4, "B^T (N, C), decayed to the chunk's end", "(dt x)^T (V, C)",
     "what S gains (N, V), added to the decayed S", "tokens, V, N"},
};

/// The first with the role; null where it is not that of an operator inside a mixer.
[[nodiscard]] const MixerOperator *mixer_operator_or_null(std::string_view role);
/// The row of a mixer's operator, which must exist.
[[nodiscard]] const MixerOperator &mixer_operator(MixerKind mixer, std::string_view role);
/// Roles of a family's operators, in order; empty: its mixer has none.
[[nodiscard]] std::vector<std::string> mixer_operator_roles(const ModelFamily &family);
/// The table that recipe/README.md has, in Markdown.
[[nodiscard]] std::string mixer_operator_table();

} // namespace nvfp4::models
