// SPDX-License-Identifier: Apache-2.0
// Files through POSIX calls, because only those say why a write failed and whether it reached the disk.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/npy.hpp"
#include "nvfp4/golden/io/posix.hpp"
#include "nvfp4/golden/io/stream.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <new>
#include <utility>

namespace nvfp4::io {
namespace {

/// Removes the file it names unless told to keep it.
struct TemporaryFile {
  std::string path;
  bool keep = false;
  ~TemporaryFile() {
    if (!keep) ::unlink(path.c_str());
  }
};

/// False with errno set if not every byte could be written.
[[nodiscard]] bool write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t chunk = std::min(bytes.size(), size_t(1) << 30); // Linux moves at most 2 GiB a call
    const ssize_t n = retry([&] { return ::write(fd, bytes.data(), chunk); });
    if (n < 0) return false;
    bytes = bytes.subspan(size_t(n));
  }
  return true;
}

/// The number of the process's own descriptor that a path such as /dev/stdout or /dev/fd/3 stands for, or -1.
/// Opening these anew would start a redirected file again from its beginning.
int own_descriptor(std::string_view path) {
  if (path == "/dev/stdout") return 1;
  if (path == "/dev/stderr") return 2;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!path.starts_with(folder)) continue;
    const auto *begin = path.data() + folder.size(), *end = path.data() + path.size();
    int number = -1;
    const auto [stop, error] = std::from_chars(begin, end, number);
    if (error == std::errc() && stop == end && number >= 0) return number;
  }
  return -1;
}

/// A pipe, a device or a descriptor of our own: something that bytes go into, with no content to replace.
bool is_sink(const std::string &path) {
  struct stat status {};
  if (own_descriptor(path) >= 0) return true;
  return ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

void write_directly(const std::string &path, const ByteProducer &produce) {
  const int own = own_descriptor(path);
  if (own == STDOUT_FILENO) std::fflush(stdout); // what was printed before comes first
  Descriptor fd(own >= 0 ? ::fcntl(own, F_DUPFD_CLOEXEC, 0) : open_file(path, O_WRONLY));
  if (fd.get() < 0) fail(path, "cannot open for writing", errno);
  produce([&](std::span<const std::byte> bytes) {
    if (!write_all(fd.get(), bytes)) fail(path, "cannot write", errno);
  });
  if (!fd.close()) fail(path, "cannot write", errno);
}

/// Creates a file that was not there before, in the folder of `target`. The name is short because the
/// target's may be as long as the file system allows.
std::pair<int, std::string> create_beside(const std::filesystem::path &target) {
  static std::atomic<unsigned> counter = 0;
  for (;;) {
    const std::string name =
        ".nvfp4-" + std::to_string(::getpid()) + "-" + std::to_string(counter++) + ".tmp";
    std::string path = (target.parent_path() / name).string();
    const int fd = open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (fd >= 0 || errno != EEXIST) return {fd, std::move(path)};
  }
}

} // namespace

std::vector<std::byte> read_file(const std::string &path) {
  const Descriptor fd(open_file(path, O_RDONLY));
  struct stat status {};
  if (fd.get() < 0 || ::fstat(fd.get(), &status) != 0) fail(path, "cannot open", errno);
  if (S_ISDIR(status.st_mode)) fail(path, "expected a file", EISDIR);
  try {
    // One byte more than the size, so that a read of nothing ends the loop without growing.
    std::vector<std::byte> bytes(S_ISREG(status.st_mode) ? size_t(status.st_size) + 1 : 0);
    for (size_t used = 0;;) {
      if (used == bytes.size()) bytes.resize(std::max<size_t>(1 << 16, used * 2));
      const size_t chunk = std::min(bytes.size() - used, size_t(1) << 30);
      const ssize_t n = retry([&] { return ::read(fd.get(), &bytes[used], chunk); });
      if (n < 0) fail(path, "cannot read", errno);
      used += size_t(n);
      if (n > 0) continue;
      bytes.resize(used);
      return bytes;
    }
  } catch (const std::bad_alloc &) {
    fail(path, "cannot read", ENOMEM);
  } catch (const std::length_error &) { // a sparse file may claim 2^63 - 1 bytes
    fail(path, "cannot read", EFBIG);
  }
}

bool is_same_file(const std::string &a, const std::string &b) {
  struct stat x {}, y {};
  if (::stat(a.c_str(), &x) != 0 || ::stat(b.c_str(), &y) != 0) return false;
  return S_ISREG(x.st_mode) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

void write_file_atomically(const std::string &path, std::span<const std::byte> bytes) {
  stream_file_atomically(path, [&](const ByteSink &write) { write(bytes); });
}

void stream_file_atomically(const std::string &path, const ByteProducer &produce) {
  if (is_sink(path)) return write_directly(path, produce);

  std::filesystem::path target = path;
  struct stat old {};
  const bool exists = ::stat(path.c_str(), &old) == 0;
  if (!exists && errno != ENOENT) fail(path, "cannot write", errno);
  if (exists && S_ISDIR(old.st_mode)) fail(path, "cannot write", EISDIR);
  if (exists && ::access(path.c_str(), W_OK) != 0) fail(path, "cannot write", errno);
  if (path.empty() || !target.has_filename()) fail(path, "cannot write", path.empty() ? ENOENT : EISDIR);
  if (exists) {
    std::error_code error;
    target = std::filesystem::canonical(target, error); // a link stays, its target is replaced
    if (error) fail(path, "cannot write", error.value());
  }

  auto [number, temporary] = create_beside(target);
  if (number < 0) fail(path, "cannot create a file in its folder", errno);
  Descriptor fd(number);
  TemporaryFile guard{std::move(temporary)};
  produce([&](std::span<const std::byte> bytes) {
    if (!write_all(fd.get(), bytes)) fail(path, "cannot write", errno);
  });
  if (exists && ::fchmod(fd.get(), old.st_mode & 07777) != 0)
    fail(path, "cannot keep its permissions", errno);
  if (retry([&] { return ::fsync(fd.get()); }) != 0 || !fd.close()) fail(path, "cannot write", errno);
  if (::rename(guard.path.c_str(), target.c_str()) != 0) fail(path, "cannot replace", errno);
  guard.keep = true;

  // The new name should outlive a power cut too. Some file systems refuse this, and the file is whole either
  // way.
  const auto folder = target.parent_path();
  const Descriptor directory(open_file(folder.empty() ? "." : folder.string(), O_RDONLY | O_DIRECTORY));
  if (directory.get() >= 0) (void)::fsync(directory.get());
}

TensorFile read_tensors(const std::string &path) { return TensorReader(path).read_all(); }

void write_tensors(const std::string &path, const TensorFile &file) {
  const auto extension = std::filesystem::path(path).extension();
  if (extension == ".npy") {
    if (file.tensors.size() != 1)
      throw Error(printable(path) + ": a .npy file holds exactly one tensor, got " +
                  std::to_string(file.tensors.size()) + ": use .safetensors");
    return write_file_atomically(path, to_npy(file.tensors.front(), path));
  }
  if (extension != ".safetensors" && !is_sink(path))
    throw Error(printable(path) + ": expected a name that ends in .npy or .safetensors");
  TensorStream stream;
  stream.metadata = file.metadata;
  for (const Tensor &t : file.tensors) {
    t.check(path);
    stream.tensors.push_back({t.name, t.dtype, t.shape});
  }
  stream.bytes = [&](size_t i) { return std::span(file.tensors[i].data); };
  write_safetensors(path, stream);
}

} // namespace nvfp4::io
