// SPDX-License-Identifier: Apache-2.0
// Text through pread: a file that shrinks is an error, where memory mapped from it would be a signal.
#include "nvfp4/reference_models/data/text.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/posix.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/data/random.hpp"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdio>
#include <mutex>
#include <vector>

namespace nvfp4::models {
namespace {

/// "book.txt: cannot open: No such file or directory".
[[noreturn]] void refuse(const std::string &path, const std::string &why) {
  throw Error((path.empty() ? "''" : io::printable(path)) + ": " + why);
}

std::string count_of_bytes(uint64_t n) { return std::to_string(n) + (n == 1 ? " byte" : " bytes"); }

/// An open file whose bytes are asked for when they are needed. What was opened stays readable when its name
/// is given to another file or taken away; that its content stays is checked.
class Bytes {
public:
  explicit Bytes(const std::string &path)
      : path_(path),
        fd_(io::open_file(path, O_RDONLY | O_NONBLOCK)) { // a pipe without a writer must not block
    if (fd_.get() < 0) refuse(path, "cannot open: " + io::errno_text(errno));
    const struct stat status = stat_now();
    if (!S_ISREG(status.st_mode))
      refuse(path, std::string("expected a text file, got ") +
                       (S_ISDIR(status.st_mode) ? "a folder" : "a pipe or device"));
    if (status.st_size == 0) refuse(path, "expected a text file, got an empty one");
    size_ = size_t(status.st_size);
    written_ = status.st_mtim;
  }
  [[nodiscard]] size_t size() const { return size_; }

  /// Error where the file has become shorter.
  void read(size_t offset, std::span<uint8_t> out) const {
    while (!out.empty()) {
      const ssize_t n = io::retry([&] { return ::pread(fd_.get(), out.data(), out.size(), off_t(offset)); });
      if (n < 0) refuse(path_, "cannot read: " + io::errno_text(errno));
      if (n == 0)
        refuse(path_, "has become shorter while it was in use: it had " + count_of_bytes(size_) + ", now " +
                          count_of_bytes(uint64_t(stat_now().st_size)) +
                          "; restore it and start or resume again");
      offset += size_t(n);
      out = out.subspan(size_t(n));
    }
  }

  [[nodiscard]] std::string digest() const {
    const std::lock_guard lock(mutex_);
    if (digest_.empty()) digest_ = read_digest();
    return digest_;
  }

  /// Error if the file was written to and is not what it was. Call it after reading.
  void check_unchanged() const {
    const std::lock_guard lock(mutex_);
    const struct stat now = stat_now();
    if (size_t(now.st_size) == size_ && same_time(now.st_mtim, written_)) return;
    if (size_t(now.st_size) != size_ || digest_.empty() || read_digest() != digest_)
      refuse(path_, "was changed while it was in use; restore it and start or resume again");
    written_ = now.st_mtim;
  }

private:
  static bool same_time(const timespec &a, const timespec &b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
  }
  [[nodiscard]] struct stat stat_now() const {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) refuse(path_, "cannot open: " + io::errno_text(errno));
    return status;
  }
  [[nodiscard]] std::string read_digest() const {
    io::Sha256 hash;
    std::vector<uint8_t> chunk(std::min<size_t>(size_, 1 << 20));
    for (size_t at = 0; at < size_; at += chunk.size()) {
      chunk.resize(std::min(chunk.size(), size_ - at));
      read(at, chunk);
      hash.add(std::as_bytes(std::span(chunk)));
    }
    return hash.hex();
  }

  std::string path_;
  io::Descriptor fd_;
  size_t size_ = 0;
  mutable std::mutex mutex_;
  mutable timespec written_{};
  mutable std::string digest_; ///< empty until it is asked for
};

/// A range of a file.
struct Part {
  size_t begin = 0, size = 0;
};

class Text final : public DataSource {
public:
  Text(const std::string &path, double validation_fraction, int64_t sequence) : path_(path), file_(path) {
    if (!(validation_fraction > 0 && validation_fraction < 1)) {
      char text[32];
      std::snprintf(text, sizeof text, "%g", validation_fraction);
      throw Error(std::string("expected a validation fraction above 0 and below 1, got ") + text);
    }
    const size_t size = file_.size();
    const auto held_out = size_t(double(size) * validation_fraction);
    training_ = {0, size - held_out};
    validation_ = {size - held_out, held_out};
    require(training_, "training", sequence);
    require(validation_, "validation", sequence);
  }

  int vocabulary() const override { return 256; }
  bool bytes() const override { return true; }

  void training_batch(uint64_t seed, int64_t index, int64_t batch, int64_t sequence,
                      std::span<int32_t> tokens, std::span<float> weights) const override {
    require(training_, "training", sequence);
    fill(training_, index, batch, sequence, tokens, weights,
         [&](uint64_t number) { return training_offset(seed, number, training_.size, uint64_t(sequence)); });
  }

  void validation_batch(int64_t index, int64_t batch, int64_t sequence, std::span<int32_t> tokens,
                        std::span<float> weights) const override {
    require(validation_, "validation", sequence);
    const uint64_t windows = (validation_.size - 1) / uint64_t(sequence);
    fill(validation_, index, batch, sequence, tokens, weights,
         [&](uint64_t number) { return number % windows * uint64_t(sequence); });
  }

  std::string digest() const override { return file_.digest(); }

  std::string describe() const override {
    return "text " + io::printable(path_) + ": " + count_of_bytes(training_.size) + " for training, " +
           count_of_bytes(validation_.size) + " held out";
  }

private:
  void require(const Part &part, const char *name, int64_t sequence) const {
    if (sequence >= 1 && part.size > uint64_t(sequence)) return;
    refuse(path_, "too short: a sequence of " + std::to_string(sequence) + " needs " +
                      count_of_bytes(uint64_t(sequence) + 1) + " for " + name + ", found " +
                      count_of_bytes(part.size) + " (the file has " + count_of_bytes(file_.size()) +
                      "); use a longer text, a shorter sequence or another validation fraction");
  }

  template <class OffsetOf>
  void fill(const Part &part, int64_t index, int64_t batch, int64_t sequence, std::span<int32_t> tokens,
            std::span<float> weights, OffsetOf offset_of) const {
    assert(index >= 0 && batch >= 0);
    assert(tokens.size() == size_t(batch * (sequence + 1)) && weights.size() == size_t(batch * sequence));
    const size_t row = size_t(sequence) + 1;
    std::vector<uint8_t> window(row);
    for (int64_t s = 0; s < batch; ++s) {
      file_.read(part.begin + offset_of(uint64_t(index * batch + s)), window);
      std::ranges::copy(window, tokens.subspan(size_t(s) * row, row).begin());
    }
    file_.check_unchanged();
    std::ranges::fill(weights, 1.0f);
  }

  std::string path_;
  Bytes file_;
  Part training_, validation_;
};

} // namespace

uint64_t training_offset(uint64_t seed, uint64_t number, uint64_t bytes, uint64_t sequence) {
  const Windows windows = cut_into_windows(bytes, sequence);
  const RandomKey epoch = item_key(seed, DataStream::text_epoch, number / windows.count);
  const uint64_t window = IndexPermutation(windows.count, epoch.seed)(number % windows.count);
  return epoch.offset % windows.offsets + window * sequence; // biased by less than offsets / 2^64
}

std::unique_ptr<DataSource> open_text(const std::string &path, double validation_fraction, int64_t sequence) {
  return std::make_unique<Text>(path, validation_fraction, sequence);
}

} // namespace nvfp4::models
