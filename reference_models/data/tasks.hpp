// SPDX-License-Identifier: Apache-2.0
// Generated tasks that need no download: copy, multi-query associative recall, Dyck. An example is a function
// of (seed, its number in the stream). All fill a row of sequence + 1 tokens; a target counts if its weight
// is 1.
#pragma once
#include "nvfp4/reference_models/data/random.hpp"
#include "nvfp4/reference_models/data/source.hpp"

#include <functional>
#include <string_view>

namespace nvfp4::models {

inline constexpr std::string_view task_prefix = "task:";

/// A task with its parameters set.
struct Task {
  std::string name; ///< as open_data takes it, every parameter written out
  int vocabulary = 0;
  /// Fills one row: tokens[sequence + 1], weights[sequence]; weights[t] belongs to the target tokens[t + 1].
  std::function<void(RandomSequence &random, std::span<int32_t> tokens, std::span<float> weights)> example;
};

/// task:copy,length=L,vocab=V (default: L = sequence / 2, V = 32). `length` random symbols out of 0..V-3, the
/// separator V-2, the same symbols again; as many of these as fit stand one behind the other, then padding
/// V-1. The repeated symbols count. A model that copies reaches a loss of 0.
[[nodiscard]] Task copy_task(int64_t length, int64_t vocab, int64_t sequence);

/// task:mqar,pairs=P,vocab=V (default: P = 8, V = 64). First P bindings, key and value: distinct keys out
/// of 1..V/2-1, distinct values out of V/2..V-1. The rest is cut into slots of two tokens; every key is asked
/// once, in a slot of its own, followed by its value. Slot x = 0, 1, ... is drawn with a weight of 1 / (x +
/// 1), so most queries stand near the bindings. Other slots, and a last odd token, are 0. The values behind
/// the queries count. A model that recalls reaches a loss of 0. Source: Arora et al., "Zoology" (arXiv
/// 2312.04927), whose weight is (x + 1)^(a - 1) with a = 0.01. There the value is a label only and unused
/// places hold random tokens; here the value is the next token, as in text.
[[nodiscard]] Task mqar_task(int64_t pairs, int64_t vocab, int64_t sequence);

/// task:dyck,kinds=K,depth=D (default: K = 4, D = 8). A prefix of a well-formed string of brackets of K
/// kinds, never nested deeper than D: at depth 0 it opens, at depth D it closes, else it does either with
/// probability 1/2; the kind of an opening bracket is uniform. Token k opens kind k, token K + k closes it.
/// The vocabulary is 2 K rounded up to a multiple of 16. The closing brackets count: which kind it must be is
/// decided by the stack, and that it closes costs nothing to assume, so a model that tracks the stack reaches
/// a loss of 0.
[[nodiscard]] Task dyck_task(int64_t kinds, int64_t depth, int64_t sequence);

/// Opens `task:NAME[,parameter=N...]`. An Error names the tasks, the parameters or their ranges.
[[nodiscard]] std::unique_ptr<DataSource> open_task(const std::string &spec, int64_t sequence);

} // namespace nvfp4::models
