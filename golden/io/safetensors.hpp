// SPDX-License-Identifier: Apache-2.0
// The safetensors format: 8 bytes of header length, a JSON header, raw bytes. Bytes in, bytes out; files are
// file.hpp's business.
#pragma once
#include "golden/io/tensor.hpp"

namespace nvfp4::io {

/// Reads a whole file from memory. Refuses with an Error, which names `source`, whatever the format's
/// description (github.com/huggingface/safetensors) forbids: tensors must cover the data exactly once, names
/// must be unique, the header is at most 100 MB. Tensors keep the header's order.
[[nodiscard]] TensorFile parse_safetensors(std::span<const std::byte> bytes, std::string source);

/// The bytes of a file. They depend on the tensors and metadata alone: tensors go by element size, largest
/// first, then by name, which aligns each to its element. An Error names `destination`.
[[nodiscard]] std::vector<std::byte> to_safetensors(const TensorFile &file,
                                                    std::string_view destination = {});

} // namespace nvfp4::io
