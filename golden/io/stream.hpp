// SPDX-License-Identifier: Apache-2.0
// Files of tensors, one tensor at a time: for those too large to stand in memory beside what is there
// already.
#pragma once
#include "nvfp4/golden/io/file.hpp"

#include <memory>

namespace nvfp4::io {

/// Tensors that are made when their turn comes.
struct TensorStream {
  std::vector<TensorHeader> tensors;
  std::map<std::string, std::string> metadata;
  /// The bytes of tensors[index], as many as its shape says. Called once for each, in the order of the file;
  /// they are used before the next call.
  std::function<std::span<const std::byte>(size_t index)> bytes;
};

/// Writes a .safetensors file, the same bytes as to_safetensors() of the whole; atomic as
/// write_file_atomically(). Nothing larger than the header is held.
void write_safetensors(const std::string &path, const TensorStream &stream);

/// All of a stream in memory.
[[nodiscard]] TensorFile collect(const TensorStream &stream);

/// A file whose tensors are read when they are asked for. Copies share it; it stays open, so that one that
/// replaces it does not mix with it. Pipes and .npy files are read at once.
class TensorReader {
public:
  TensorReader();
  /// Reads the header; throws what read_tensors() throws.
  explicit TensorReader(const std::string &path);
  explicit TensorReader(TensorFile file);

  [[nodiscard]] const std::vector<TensorHeader> &headers() const;
  [[nodiscard]] const std::map<std::string, std::string> &metadata() const;
  /// Throws Error where the file cannot be read or has become shorter since.
  [[nodiscard]] Tensor read(size_t index) const;
  [[nodiscard]] TensorFile read_all() const;

private:
  struct State;
  std::shared_ptr<const State> state_;
};

} // namespace nvfp4::io
