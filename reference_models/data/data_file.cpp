// SPDX-License-Identifier: Apache-2.0
// Reading, hashing, and noticing that a file is not what it was.
#include "nvfp4/reference_models/data/data_file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/sha256.hpp"

#include <algorithm>
#include <cerrno>
#include <vector>

namespace nvfp4::models {
namespace {

bool same_time(const timespec &a, const timespec &b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

} // namespace

void refuse_data(const std::string &path, const std::string &why) {
  throw Error((path.empty() ? "''" : io::printable(path)) + ": " + why);
}

DataFile::DataFile(const std::string &path, const std::string &kind)
    : path_(path), fd_(io::open_file(path, O_RDONLY | O_NONBLOCK)) { // a pipe without a writer must not block
  if (fd_.get() < 0) refuse_data(path, "cannot open: " + io::errno_text(errno));
  const struct stat status = stat_now();
  if (!S_ISREG(status.st_mode))
    refuse_data(path, "expected a " + kind + " file, got " +
                          (S_ISDIR(status.st_mode) ? "a folder" : "a pipe or device"));
  if (status.st_size == 0) refuse_data(path, "expected a " + kind + " file, got an empty one");
  size_ = size_t(status.st_size);
  written_ = status.st_mtim;
}

void DataFile::read(size_t offset, std::span<uint8_t> out) const {
  while (!out.empty()) {
    const ssize_t n = io::retry([&] { return ::pread(fd_.get(), out.data(), out.size(), off_t(offset)); });
    if (n < 0) refuse_data(path_, "cannot read: " + io::errno_text(errno));
    if (n == 0)
      refuse_data(path_, "has become shorter while it was in use: it had " + count_of(size_, "byte") +
                             ", now " + count_of(uint64_t(stat_now().st_size), "byte") +
                             "; restore it and start or resume again");
    offset += size_t(n);
    out = out.subspan(size_t(n));
  }
}

void DataFile::each_piece(size_t from, const std::function<void(std::span<const uint8_t>)> &take) const {
  std::vector<uint8_t> piece(std::min<size_t>(size_ - from, 1 << 20));
  for (size_t at = from; at < size_; at += piece.size()) {
    piece.resize(std::min(piece.size(), size_ - at));
    read(at, piece);
    take(piece);
  }
}

std::string DataFile::digest() const {
  const std::lock_guard lock(mutex_);
  if (digest_.empty()) digest_ = read_digest();
  return digest_;
}

void DataFile::check_unchanged() const {
  const std::lock_guard lock(mutex_);
  const struct stat now = stat_now();
  if (size_t(now.st_size) == size_ && same_time(now.st_mtim, written_)) return;
  if (size_t(now.st_size) != size_ || digest_.empty() || read_digest() != digest_)
    refuse_data(path_, "was changed while it was in use; restore it and start or resume again");
  written_ = now.st_mtim;
}

struct stat DataFile::stat_now() const {
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) refuse_data(path_, "cannot open: " + io::errno_text(errno));
  return status;
}

std::string DataFile::read_digest() const {
  io::Sha256 hash;
  each_piece(0, [&](std::span<const uint8_t> piece) { hash.add(std::as_bytes(piece)); });
  return hash.hex();
}

} // namespace nvfp4::models
