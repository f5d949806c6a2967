// SPDX-License-Identifier: Apache-2.0
// open, fstat, mmap, madvise.
#include "nvfp4/golden/checkpoint/mapped_file.hpp"
#include "nvfp4/golden/io/posix.hpp"

#include <cstdint>
#include <sys/mman.h>
#include <unistd.h>

namespace nvfp4::checkpoint {

struct MappedFile::Mapping {
  void *start = MAP_FAILED;
  size_t size = 0;
  Mapping() = default;
  Mapping(const Mapping &) = delete;
  Mapping &operator=(const Mapping &) = delete;
  ~Mapping() {
    if (start != MAP_FAILED) ::munmap(start, size);
  }
};

MappedFile::MappedFile(const std::string &path) {
  // a pipe without a writer would never open
  const io::Descriptor fd(io::open_file(path, O_RDONLY | O_NONBLOCK));
  struct stat status {};
  if (fd.get() < 0 || ::fstat(fd.get(), &status) != 0) io::fail(path, "cannot open", errno);
  if (!S_ISREG(status.st_mode))
    throw Error(io::printable(path) + ": expected a regular file, which can be mapped into memory");
  if (status.st_size == 0) throw Error(io::printable(path) + ": is empty; was it downloaded?");
  auto mapping = std::make_shared<Mapping>();
  mapping->size = size_t(status.st_size);
  mapping->start = ::mmap(nullptr, mapping->size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (mapping->start == MAP_FAILED) io::fail(path, "cannot map into memory", errno);
  mapping_ = std::move(mapping);
}

std::span<const std::byte> MappedFile::bytes() const {
  return {static_cast<const std::byte *>(mapping_->start), mapping_->size};
}

void MappedFile::forget(std::span<const std::byte> part) noexcept {
  const auto page = uintptr_t(::sysconf(_SC_PAGESIZE)), start = reinterpret_cast<uintptr_t>(part.data());
  const uintptr_t first = (start + page - 1) / page * page, last = (start + part.size()) / page * page;
  if (first < last) (void)::madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
}

} // namespace nvfp4::checkpoint
