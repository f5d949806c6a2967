// SPDX-License-Identifier: Apache-2.0
// What the tests of training data share: a batch with its memory, a folder for texts.
#pragma once
#include "tests/golden/io/support.hpp"
#include "tests/temporary_folder.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/reference_models/data/source.hpp"

#include <filesystem>

#include <stdlib.h>

namespace nvfp4::models {

struct Batch {
  std::vector<int32_t> tokens; ///< (batch, sequence + 1)
  std::vector<float> weights;  ///< (batch, sequence)
  bool operator==(const Batch &) const = default;
};

/// What was there before must not show through.
inline Batch empty_batch(int64_t batch, int64_t sequence) {
  return {std::vector<int32_t>(size_t(batch * (sequence + 1)), -7),
          std::vector<float>(size_t(batch * sequence), -7.0f)};
}

inline Batch training(const DataSource &data, uint64_t seed, int64_t index, int64_t batch, int64_t sequence) {
  Batch b = empty_batch(batch, sequence);
  data.training_batch(seed, index, batch, sequence, b.tokens, b.weights);
  return b;
}

inline Batch validation(const DataSource &data, int64_t index, int64_t batch, int64_t sequence) {
  Batch b = empty_batch(batch, sequence);
  data.validation_batch(index, batch, sequence, b.tokens, b.weights);
  return b;
}

struct Folder : test::TemporaryFolder {
  std::string write(const char *name, std::string_view text) const {
    const std::string file = (path / name).string();
    io::write_file_atomically(file, io::bytes_of(text));
    return file;
  }
};

} // namespace nvfp4::models
