// SPDX-License-Identifier: Apache-2.0
// Texts, a token a byte, and token files (tokens.hpp), read where a batch needs them: they may be larger than
// the memory.
//
// The last part of the tokens is held out for validation, or files of its own are. The rest is trained in
// epochs: an epoch cuts it into windows of `sequence` inputs (and the target behind the last one) that touch
// but do not overlap, from an offset below `sequence` that changes with the epoch, and visits each window
// once in an order that changes too. Offset and order are keyed by (seed, epoch); nothing is stored, so any
// place of any epoch is found at once.
#pragma once
#include "nvfp4/reference_models/data/source.hpp"

namespace nvfp4::models {

/// How a training part of `tokens` tokens is cut: `count` windows an epoch, the same in each, and `offsets`
/// possible places for the first. Window w of an epoch with offset o reads tokens [o + w * sequence, o + (w +
/// 1) * sequence], both ends included. tokens is at least sequence + 1.
struct Windows {
  uint64_t count;
  uint64_t offsets;
};
[[nodiscard]] constexpr Windows cut_into_windows(uint64_t tokens, uint64_t sequence) {
  const uint64_t count =
      tokens / sequence > 1 ? tokens / sequence - 1 : 1; // leaves room for every offset if it can
  const uint64_t slack = tokens - 1 - count * sequence;
  return {count, slack + 1 < sequence ? slack + 1 : sequence};
}

/// Where sequence `number` of the endless training stream starts.
[[nodiscard]] uint64_t training_offset(uint64_t seed, uint64_t number, uint64_t tokens, uint64_t sequence);

/// Opens a text or token files, and, where `validation` is not empty, those to validate on instead of a
/// fraction. An Error if a file cannot be read, is a folder, empty or broken, if the fraction is not above 0
/// and below 1, or if one of the parts is shorter than sequence + 1 tokens. Once they are open, files may be
/// removed or replaced; a batch is an Error if a file itself was changed.
[[nodiscard]] std::unique_ptr<DataSource> open_text(const std::string &spec, double validation_fraction,
                                                    int64_t sequence, const std::string &validation = {});

} // namespace nvfp4::models
