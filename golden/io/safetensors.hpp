// SPDX-License-Identifier: Apache-2.0
// The safetensors format: 8 bytes of header length, a JSON header, raw bytes. Bytes in, bytes out; files are
// file.hpp's business.
#pragma once
#include "nvfp4/golden/io/tensor.hpp"

namespace nvfp4::io {

/// The header of a file: what is in it and where.
struct SafetensorsIndex {
  std::vector<TensorHeader> tensors; ///< in the header's order
  std::vector<size_t> offsets;       ///< of each tensor's first byte, from the start of the file
  std::map<std::string, std::string> metadata;
  std::map<std::string, std::string> unknown; ///< names and dtypes of tensors whose dtype no row of dtype_table has
};

/// How many bytes of JSON follow the 8 bytes of length that `start` begins with. An Error if a file of
/// `file_size` bytes cannot have that many.
[[nodiscard]] size_t safetensors_header_size(std::span<const std::byte> start, uint64_t file_size,
                                             const std::string &source);
/// Reads that JSON. Refuses what parse_safetensors refuses.
[[nodiscard]] SafetensorsIndex parse_safetensors_header(std::string_view json, uint64_t file_size,
                                                        const std::string &source);

/// What a file of these tensors starts with, and the order of its tensors.
struct SafetensorsLayout {
  std::string start; ///< length and header
  std::vector<size_t> order;
};
[[nodiscard]] SafetensorsLayout lay_out_safetensors(std::span<const TensorHeader> tensors,
                                                    const std::map<std::string, std::string> &metadata,
                                                    std::string_view destination);

/// Reads a whole file from memory. Refuses with an Error, which names `source`, whatever the format's
/// description (github.com/huggingface/safetensors) forbids: tensors must cover the data exactly once, names
/// must be unique, the header is at most 100 MB. Tensors keep the header's order.
[[nodiscard]] TensorFile parse_safetensors(std::span<const std::byte> bytes, std::string source);

/// The bytes of a file. They depend on the tensors and metadata alone: tensors go by element size, largest
/// first, then by name, which aligns each to its element. An Error names `destination`.
[[nodiscard]] std::vector<std::byte> to_safetensors(const TensorFile &file,
                                                    std::string_view destination = {});

} // namespace nvfp4::io
