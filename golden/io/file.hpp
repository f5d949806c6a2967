// SPDX-License-Identifier: Apache-2.0
// Tensor files on disk, and plain files written so that a reader sees the old content or the new, never half.
#pragma once
#include "nvfp4/golden/io/tensor.hpp"

#include <functional>

namespace nvfp4::io {

/// The whole of a file, or of whatever a pipe delivers. An Error names the path and the system's reason.
[[nodiscard]] std::vector<std::byte> read_file(const std::string &path);

/// Whether both are regular files and the same one, by whatever names.
[[nodiscard]] bool is_same_file(const std::string &a, const std::string &b);

/// Puts `bytes` where `path` says: into a temporary file beside it, synced to disk, then renamed over it. If
/// anything fails the old file is untouched, the temporary one is gone and an Error names the path and the
/// system's reason. A symbolic link is followed. Pipes, devices and the process's own descriptors
/// (/dev/stdout, /dev/fd/3) are written to directly.
void write_file_atomically(const std::string &path, std::span<const std::byte> bytes);

/// Takes the next bytes of a file.
using ByteSink = std::function<void(std::span<const std::byte>)>;
/// Gives a file's bytes, in order, to the sink.
using ByteProducer = std::function<void(const ByteSink &)>;
/// write_file_atomically for content that is made while it is written. What `produce` throws leaves the old
/// file as well.
void stream_file_atomically(const std::string &path, const ByteProducer &produce);

/// Reads a .npy file, known by its first bytes, or else a .safetensors file; see npy.hpp and safetensors.hpp.
/// The array of a .npy file is the tensor "data".
[[nodiscard]] TensorFile read_tensors(const std::string &path);

/// Writes the format that the path's extension names; a pipe or device without one gets .safetensors. A .npy
/// file takes exactly one tensor and keeps neither its name nor the metadata.
void write_tensors(const std::string &path, const TensorFile &file);

} // namespace nvfp4::io
