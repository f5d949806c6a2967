// SPDX-License-Identifier: Apache-2.0
// A tensor as a checkpoint's file stores it: name, type, shape, bytes in the mapped file. What it means
// beside others is weight.hpp's business.
#pragma once
#include "nvfp4/golden/io/tensor.hpp"

namespace nvfp4::checkpoint {

struct StoredTensor {
  std::string name;
  std::string type;               ///< as the file says: "F8_E4M3", "NVFP4", ...
  std::optional<io::DType> dtype; ///< nothing for blocks of GGUF and for types that no row knows
  std::vector<int64_t> shape;     ///< of elements, the last axis innermost; of a GGUF file reversed
  std::span<const std::byte> bytes;

  [[nodiscard]] int64_t elements() const { return io::element_count(shape).value_or(0); }
};

/// "tensor 'a.weight': ", for messages.
[[nodiscard]] inline std::string prefix(const StoredTensor &t) { return io::message_prefix({}, t.name); }

} // namespace nvfp4::checkpoint
