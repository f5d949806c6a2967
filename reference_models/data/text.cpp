// SPDX-License-Identifier: Apache-2.0
// Text through mmap.
#include "nvfp4/reference_models/data/text.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/data/random.hpp"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdio>
#include <string_view>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace nvfp4::models {
namespace {

/// "book.txt: cannot open: No such file or directory".
[[noreturn]] void refuse(const std::string &path, const std::string &why) {
  throw Error((path.empty() ? "''" : io::printable(path)) + ": " + why);
}

std::string count_of_bytes(uint64_t n) { return std::to_string(n) + (n == 1 ? " byte" : " bytes"); }

/// A file's bytes, mapped read only.
class Mapping {
public:
  explicit Mapping(const std::string &path) {
    int fd;
    do fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe without a writer must not block
    while (fd < 0 && errno == EINTR);
    if (fd < 0) refuse(path, "cannot open: " + io::errno_text(errno));
    struct stat status {};
    const int failure = ::fstat(fd, &status) != 0 ? errno : 0;
    const bool regular = S_ISREG(status.st_mode), folder = S_ISDIR(status.st_mode);
    size_ = regular ? size_t(status.st_size) : 0;
    void *address = MAP_FAILED;
    if (size_ > 0) address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const int map_failure = errno;
    ::close(fd);
    if (failure != 0) refuse(path, "cannot open: " + io::errno_text(failure));
    if (!regular)
      refuse(path, std::string("expected a text file, got ") + (folder ? "a folder" : "a pipe or device"));
    if (size_ == 0) refuse(path, "expected a text file, got an empty one");
    if (address == MAP_FAILED) refuse(path, "cannot map into memory: " + io::errno_text(map_failure));
    data_ = static_cast<const uint8_t *>(address);
  }
  Mapping(const Mapping &) = delete;
  Mapping &operator=(const Mapping &) = delete;
  ~Mapping() {
    if (data_ != nullptr) ::munmap(const_cast<uint8_t *>(data_), size_);
  }
  [[nodiscard]] std::span<const uint8_t> bytes() const { return {data_, size_}; }

private:
  const uint8_t *data_ = nullptr;
  size_t size_ = 0;
};

class Text final : public DataSource {
public:
  Text(const std::string &path, double validation_fraction, int64_t sequence) : path_(path), file_(path) {
    if (!(validation_fraction > 0 && validation_fraction < 1)) {
      char text[32];
      std::snprintf(text, sizeof text, "%g", validation_fraction);
      throw Error(std::string("expected a validation fraction above 0 and below 1, got ") + text);
    }
    const size_t size = file_.bytes().size();
    const auto held_out = size_t(double(size) * validation_fraction);
    training_ = file_.bytes().first(size - held_out);
    validation_ = file_.bytes().last(held_out);
    require(training_, "training", sequence);
    require(validation_, "validation", sequence);
  }

  int vocabulary() const override { return 256; }
  bool bytes() const override { return true; }

  void training_batch(uint64_t seed, int64_t index, int64_t batch, int64_t sequence,
                      std::span<int32_t> tokens, std::span<float> weights) const override {
    require(training_, "training", sequence);
    fill(training_, index, batch, sequence, tokens, weights, [&](uint64_t number) {
      return training_offset(seed, number, training_.size(), uint64_t(sequence));
    });
  }

  void validation_batch(int64_t index, int64_t batch, int64_t sequence, std::span<int32_t> tokens,
                        std::span<float> weights) const override {
    require(validation_, "validation", sequence);
    const uint64_t windows = (validation_.size() - 1) / uint64_t(sequence);
    fill(validation_, index, batch, sequence, tokens, weights,
         [&](uint64_t number) { return number % windows * uint64_t(sequence); });
  }

  std::string digest() const override { return io::sha256_hex(std::as_bytes(file_.bytes())); }

  std::string describe() const override {
    return "text " + io::printable(path_) + ": " + count_of_bytes(training_.size()) + " for training, " +
           count_of_bytes(validation_.size()) + " held out";
  }

private:
  void require(std::span<const uint8_t> part, const char *name, int64_t sequence) const {
    if (sequence >= 1 && part.size() > uint64_t(sequence)) return;
    refuse(path_, "too short: a sequence of " + std::to_string(sequence) + " needs " +
                      count_of_bytes(uint64_t(sequence) + 1) + " for " + name + ", found " +
                      count_of_bytes(part.size()) + " (the file has " + count_of_bytes(file_.bytes().size()) +
                      "); use a longer text, a shorter sequence or another validation fraction");
  }

  template <class OffsetOf>
  static void fill(std::span<const uint8_t> part, int64_t index, int64_t batch, int64_t sequence,
                   std::span<int32_t> tokens, std::span<float> weights, OffsetOf offset_of) {
    assert(index >= 0 && batch >= 0);
    assert(tokens.size() == size_t(batch * (sequence + 1)) && weights.size() == size_t(batch * sequence));
    const size_t row = size_t(sequence) + 1;
    for (int64_t s = 0; s < batch; ++s) {
      const auto window = part.subspan(offset_of(uint64_t(index * batch + s)), row);
      std::ranges::copy(window, tokens.subspan(size_t(s) * row, row).begin());
    }
    std::ranges::fill(weights, 1.0f);
  }

  std::string path_;
  Mapping file_;
  std::span<const uint8_t> training_, validation_;
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
