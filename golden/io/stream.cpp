// SPDX-License-Identifier: Apache-2.0
// Headers first, bytes as they are needed.
#include "nvfp4/golden/io/stream.hpp"
#include "nvfp4/golden/io/npy.hpp"
#include "nvfp4/golden/io/posix.hpp"
#include "nvfp4/golden/io/safetensors.hpp"

#include <algorithm>
#include <new>

namespace nvfp4::io {
namespace {

/// `size` bytes from `offset` on; fewer where the file ends.
std::vector<std::byte> read_part(const Descriptor &fd, const std::string &path, size_t offset, size_t size) {
  try {
    std::vector<std::byte> bytes(size);
    size_t used = 0;
    while (used < size) {
      const size_t chunk = std::min(size - used, size_t(1) << 30); // Linux moves at most 2 GiB a call
      const ssize_t n = retry([&] { return ::pread(fd.get(), &bytes[used], chunk, off_t(offset + used)); });
      if (n < 0) fail(path, "cannot read", errno);
      if (n == 0) break;
      used += size_t(n);
    }
    bytes.resize(used);
    return bytes;
  } catch (const std::bad_alloc &) {
    fail(path, "cannot read", ENOMEM);
  } catch (const std::length_error &) { // a sparse file may claim 2^63 - 1 bytes
    fail(path, "cannot read", EFBIG);
  }
}

bool is_npy(std::span<const std::byte> bytes) {
  return std::string_view(reinterpret_cast<const char *>(bytes.data()), bytes.size()).starts_with(npy_magic);
}

TensorFile parse_whole(std::span<const std::byte> bytes, const std::string &path) {
  if (bytes.empty())
    throw Error(printable(path) + ": expected a .npy or .safetensors file, got an empty one");
  try {
    if (!is_npy(bytes)) return parse_safetensors(bytes, path);
    TensorFile file{{}, {}, path, {}};
    file.tensors.push_back(parse_npy(bytes, path));
    return file;
  } catch (const std::bad_alloc &) {
    fail(path, "cannot read", ENOMEM);
  }
}

} // namespace

void write_safetensors(const std::string &path, const TensorStream &stream) {
  const SafetensorsLayout layout = lay_out_safetensors(stream.tensors, stream.metadata, path);
  stream_file_atomically(path, [&](const ByteSink &write) {
    write(std::as_bytes(std::span(layout.start)));
    for (const size_t i : layout.order) {
      const auto bytes = stream.bytes(i);
      if (bytes.size() != stream.tensors[i].bytes())
        throw Error(message_prefix(path, stream.tensors[i].name) + "expected " +
                    std::to_string(stream.tensors[i].bytes()) + " bytes of its shape, got " +
                    std::to_string(bytes.size()));
      write(bytes);
    }
  });
}

TensorFile collect(const TensorStream &stream) {
  TensorFile file{{}, stream.metadata, {}, {}};
  for (size_t i = 0; i < stream.tensors.size(); ++i) {
    const TensorHeader &t = stream.tensors[i];
    const auto bytes = stream.bytes(i);
    file.tensors.push_back({t.name, t.dtype, t.shape, {bytes.begin(), bytes.end()}});
  }
  return file;
}

struct TensorReader::State {
  std::string path;
  std::unique_ptr<Descriptor> fd; ///< null: the tensors are in `file`
  SafetensorsIndex index;
  TensorFile file;
};

TensorReader::TensorReader() : TensorReader(TensorFile{}) {}

TensorReader::TensorReader(TensorFile file) {
  auto state = std::make_shared<State>();
  state->path = file.source;
  state->index.metadata = file.metadata;
  state->index.unknown = file.unknown;
  for (const Tensor &t : file.tensors) state->index.tensors.push_back({t.name, t.dtype, t.shape});
  state->file = std::move(file);
  state_ = std::move(state);
}

TensorReader::TensorReader(const std::string &path) {
  struct stat status {};
  // a named pipe must not be opened twice: its writer may be gone by then
  const bool pipe =
      ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
  if (pipe) {
    *this = TensorReader(parse_whole(read_file(path), path));
    return;
  }
  auto fd = std::make_unique<Descriptor>(open_file(path, O_RDONLY));
  if (fd->get() < 0 || ::fstat(fd->get(), &status) != 0) fail(path, "cannot open", errno);
  if (S_ISDIR(status.st_mode)) fail(path, "expected a file", EISDIR);
  const auto start = read_part(*fd, path, 0, 8);
  if (start.empty() || is_npy(start)) {
    *this = TensorReader(parse_whole(read_file(path), path));
    return;
  }
  auto state = std::make_shared<State>();
  const auto size = uint64_t(status.st_size);
  const auto header = read_part(*fd, path, 8, safetensors_header_size(start, size, path));
  const std::string_view text(reinterpret_cast<const char *>(header.data()), header.size());
  state->index = parse_safetensors_header(text, size, path);
  state->path = path;
  state->fd = std::move(fd);
  state_ = std::move(state);
}

const std::vector<TensorHeader> &TensorReader::headers() const { return state_->index.tensors; }
const std::map<std::string, std::string> &TensorReader::metadata() const { return state_->index.metadata; }

Tensor TensorReader::read(size_t index) const {
  if (!state_->fd) return state_->file.tensors.at(index);
  const TensorHeader &t = state_->index.tensors.at(index);
  auto bytes = read_part(*state_->fd, state_->path, state_->index.offsets[index], t.bytes());
  if (bytes.size() != t.bytes())
    throw Error(message_prefix(state_->path, t.name) + "the file became shorter while it was read");
  return {t.name, t.dtype, t.shape, std::move(bytes)};
}

TensorFile TensorReader::read_all() const {
  if (!state_->fd) return state_->file;
  TensorFile file{{}, metadata(), state_->path, state_->index.unknown};
  for (size_t i = 0; i < headers().size(); ++i) file.tensors.push_back(read(i));
  return file;
}

} // namespace nvfp4::io
