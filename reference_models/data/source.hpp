// SPDX-License-Identifier: Apache-2.0
// Where tokens come from: a text file, byte by byte, token files, or a generated task. A batch is a function
// of (seed, index) and nothing else is state, so a run that resumes at micro-batch i asks for micro-batch i.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace nvfp4::models {

inline constexpr int64_t max_sequence = int64_t{1} << 24;

/// Sequences of tokens for next-token prediction. Sequence s of micro-batch i is number i * batch + s of an
/// endless stream, so the order of sequences does not depend on how they are grouped. Safe to use from
/// several threads.
class DataSource {
public:
  DataSource() = default;
  DataSource(const DataSource &) = delete;
  DataSource &operator=(const DataSource &) = delete;
  virtual ~DataSource() = default;

  /// Tokens are in [0, vocabulary); 256 for bytes, one more than the largest that is there for token files.
  [[nodiscard]] virtual int vocabulary() const = 0;
  /// Whether a token is a byte of text, so that bits per byte has a meaning.
  [[nodiscard]] virtual bool bytes() const = 0;

  /// Fills tokens[batch, sequence + 1], row major: inputs are tokens[:, :-1], targets are tokens[:, 1:].
  /// Fills weights[batch, sequence] with 1 for the targets that count and 0 for the others (text: all 1).
  /// index and batch may not be negative. `sequence` is the one that open_data was given; an Error if the
  /// data cannot serve it.
  virtual void training_batch(uint64_t seed, int64_t index, int64_t batch, int64_t sequence,
                              std::span<int32_t> tokens, std::span<float> weights) const = 0;
  /// The same from data that training never sees; does not depend on a seed.
  virtual void validation_batch(int64_t index, int64_t batch, int64_t sequence, std::span<int32_t> tokens,
                                std::span<float> weights) const = 0;

  /// SHA-256 of the whole text, of all tokens as uint32, or of the task's name and parameters, as 64
  /// hexadecimal digits; with files for validation, of both digests.
  [[nodiscard]] virtual std::string digest() const = 0;
  /// One line for people: what it is and how much of it there is.
  [[nodiscard]] virtual std::string describe() const = 0;
};

/// Opens what `spec` names: `task:NAME[,parameter=N...]` is a generated task (tasks.hpp lists them), a name
/// that ends in .bin or .npy token files (tokens.hpp), anything else the path of a text file (text.hpp;
/// ./task:x is a file). `validation_fraction` of the tokens, the last ones, are held out, or those of
/// `validation`, which is of the same kind, stand for them; tasks use neither. `sequence` is the number of
/// input tokens that batches will ask for. An Error says in one line what was expected and what came.
[[nodiscard]] std::unique_ptr<DataSource> open_data(const std::string &spec, double validation_fraction,
                                                    int64_t sequence, const std::string &validation = {});

} // namespace nvfp4::models
