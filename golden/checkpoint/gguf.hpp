// SPDX-License-Identifier: Apache-2.0
// The GGUF format, versions 2 and 3, little endian: key-value pairs, tensor infos, aligned data. Types that
// nothing here decodes are named by their row and kept. Source: ggml-org/ggml docs/gguf.md, src/ggml-common.h
// (block sizes).
#pragma once
#include "nvfp4/golden/checkpoint/stored_tensor.hpp"

namespace nvfp4::checkpoint {

/// A type of ggml: `block` elements take `bytes` bytes.
struct GgufType {
  uint32_t id;
  std::string_view name;
  int32_t block, bytes;
  std::optional<io::DType> dtype; ///< the plain type it is
  bool decoded;                   ///< whether its values can be read here
};
[[nodiscard]] std::span<const GgufType> gguf_types();
/// The row of a name, or nullptr.
[[nodiscard]] const GgufType *find_gguf_type(std::string_view name);

struct GgufFile {
  uint32_t version = 3;
  uint64_t alignment = 32;
  uint64_t pair_count = 0;
  std::span<const std::byte> pairs;           ///< the key-value pairs as they stand
  std::map<std::string, std::string> strings; ///< those of them that are strings
  std::map<std::string, double> numbers = {}; ///< those that are one number or a truth value
  std::vector<StoredTensor> tensors;
};

/// Reads a file from memory; spans point into it. An Error names `source`: counts and lengths beyond the
/// file, names that repeat, types that no row knows, data out of the file, overlapping or not aligned.
[[nodiscard]] GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string &source);

/// What precedes the data of a file of these tensors, version 3, padded to the alignment. Each tensor's data
/// are followed by zeros up to the alignment. Only names, types and shapes of `tensors` are read.
[[nodiscard]] std::string gguf_start(const GgufFile &file, std::string_view destination);

/// Key-value pairs of strings, in the form of GgufFile::pairs.
[[nodiscard]] std::string gguf_pairs(std::span<const std::pair<std::string, std::string>> pairs);

} // namespace nvfp4::checkpoint
