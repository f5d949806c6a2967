// SPDX-License-Identifier: Apache-2.0
// Two files or two folders of the same kind: tensors, quantized tensors, checkpoints, logs. What `nvfp4
// compare` prints.
#pragma once
#include "nvfp4/golden/comparison/compare_json.hpp"
#include "nvfp4/golden/comparison/compare_tensors.hpp"

#include <functional>

namespace nvfp4::golden {

struct CompareOptions {
  /// One tensor of each file; the second alone: of the same name. Empty: all, by name; of two files with one
  /// tensor each, those, whatever their names.
  std::string a_tensor = {}, b_tensor = {};
  std::function<void(double)> progress = {}; ///< gets the fraction done
};

struct FileComparison {
  std::string a, b; ///< paths
  std::vector<PartComparison> parts = {};
  std::vector<std::string> only_a = {},
                           only_b = {};       ///< tensors, or files of folders, that one side alone has
  std::vector<ValueDifference> metadata = {}; ///< stands apart: it does not make files different
  std::optional<JsonComparison> json = {};    ///< of .json and .jsonl files
  std::vector<FileComparison> files = {};     ///< of folders, by name

  [[nodiscard]] bool equal() const;
  /// Over all parts and files.
  [[nodiscard]] int64_t nan_same() const;
};

/// Files ending in .jsonl are compared line by line, .json as one document, others as tensors; a quantized
/// file against a dense one by the values that it means. Folders: the .json, .jsonl, .npy and .safetensors
/// files in them. Throws Error for what cannot be read and for a file against a folder.
[[nodiscard]] FileComparison compare_files(const std::string &a, const std::string &b,
                                           const CompareOptions &options = {});

/// One sentence: "equal: ...", or how much differs and where it does first.
[[nodiscard]] std::string verdict_of(const FileComparison &c);

/// The sentence and tables of what differs, at most 20 rows each; `all`: everything, equal tensors too.
[[nodiscard]] std::string to_text(const FileComparison &c, bool all = false);

/// All of it as one line of JSON; numbers that are not finite are null.
[[nodiscard]] std::string to_json(const FileComparison &c);

} // namespace nvfp4::golden
