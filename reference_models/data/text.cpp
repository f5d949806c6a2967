// SPDX-License-Identifier: Apache-2.0
// Windows of a row of tokens, held out by a fraction or by files of their own.
#include "nvfp4/reference_models/data/text.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/data/data_file.hpp"
#include "nvfp4/reference_models/data/random.hpp"
#include "nvfp4/reference_models/data/tokens.hpp"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <vector>

namespace nvfp4::models {
namespace {

class TextStream final : public TokenStream {
public:
  explicit TextStream(const std::string &path) : file_(path) {}
  uint64_t size() const override { return file_.size(); }
  int32_t largest() const override { return 255; }
  bool bytes() const override { return true; }
  std::string name() const override { return file_.path(); }
  std::string digest() const override { return file_.digest(); }
  void check_unchanged() const override { file_.check_unchanged(); }
  void read(uint64_t first, std::span<int32_t> out) const override {
    std::vector<uint8_t> window(out.size());
    file_.read(size_t(first), window);
    std::ranges::copy(window, out.begin());
  }

private:
  DataFile file_;
};

std::unique_ptr<TokenStream> open_stream(const std::string &spec) {
  return names_tokens(spec) ? open_token_stream(spec) : open_text_stream(spec);
}

/// A range of a row of tokens.
struct Part {
  const TokenStream *stream = nullptr;
  uint64_t begin = 0, size = 0;
};

class Text final : public DataSource {
public:
  Text(const std::string &spec, double validation_fraction, int64_t sequence, const std::string &held_out)
      : row_(open_stream(spec)) {
    if (!(validation_fraction > 0 && validation_fraction < 1)) {
      char text[32];
      std::snprintf(text, sizeof text, "%g", validation_fraction);
      throw Error(std::string("expected a validation fraction above 0 and below 1, got ") + text);
    }
    const uint64_t size = row_->size();
    if (held_out.empty()) {
      const auto end = uint64_t(double(size) * validation_fraction);
      training_ = {row_.get(), 0, size - end};
      validation_ = {row_.get(), size - end, end};
    } else {
      own_ = open_stream(held_out);
      if (own_->bytes() != row_->bytes())
        refuse_data(held_out, std::string("expected ") + (row_->bytes() ? "a text" : "token files") +
                                  " for validation, as for training");
      training_ = {row_.get(), 0, size};
      validation_ = {own_.get(), 0, own_->size()};
    }
    require(training_, "training", sequence);
    require(validation_, "validation", sequence);
  }

  int vocabulary() const override { return std::max(row_->largest(), own_ ? own_->largest() : 0) + 1; }
  bool bytes() const override { return row_->bytes(); }

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

  std::string digest() const override {
    if (!own_) return row_->digest();
    const std::string both = row_->digest() + " " + own_->digest();
    return io::sha256_hex(std::as_bytes(std::span(both)));
  }

  std::string describe() const override {
    return (bytes() ? "text " : "tokens ") + io::printable(row_->name()) + ": " +
           count_of(training_.size, unit()) + " for training, " + count_of(validation_.size, unit()) +
           (own_ ? " for validation in " + io::printable(own_->name()) : " held out");
  }

private:
  [[nodiscard]] const char *unit() const { return bytes() ? "byte" : "token"; }

  void require(const Part &part, const char *name, int64_t sequence) const {
    if (sequence >= 1 && part.size > uint64_t(sequence)) return;
    refuse_data(part.stream->name(), "too short: a sequence of " + std::to_string(sequence) + " needs " +
                                         count_of(uint64_t(sequence) + 1, unit()) + " for " + name +
                                         ", found " + count_of(part.size, unit()) + " (" +
                                         (bytes() ? "the file has " : "there are ") +
                                         count_of(part.stream->size(), unit()) + "); use " +
                                         (bytes() ? "a longer text" : "more tokens") +
                                         ", a shorter sequence or another validation fraction");
  }

  template <class OffsetOf>
  void fill(const Part &part, int64_t index, int64_t batch, int64_t sequence, std::span<int32_t> tokens,
            std::span<float> weights, OffsetOf offset_of) const {
    assert(index >= 0 && batch >= 0);
    assert(tokens.size() == size_t(batch * (sequence + 1)) && weights.size() == size_t(batch * sequence));
    const size_t row = size_t(sequence) + 1;
    for (int64_t s = 0; s < batch; ++s)
      part.stream->read(part.begin + offset_of(uint64_t(index * batch + s)),
                        tokens.subspan(size_t(s) * row, row));
    part.stream->check_unchanged();
    std::ranges::fill(weights, 1.0f);
  }

  std::unique_ptr<TokenStream> row_, own_; ///< own_: of validation, where it has files of its own
  Part training_, validation_;
};

} // namespace

uint64_t training_offset(uint64_t seed, uint64_t number, uint64_t tokens, uint64_t sequence) {
  const Windows windows = cut_into_windows(tokens, sequence);
  const RandomKey epoch = item_key(seed, DataStream::text_epoch, number / windows.count);
  const uint64_t window = IndexPermutation(windows.count, epoch.seed)(number % windows.count);
  return epoch.offset % windows.offsets + window * sequence; // biased by less than offsets / 2^64
}

std::unique_ptr<TokenStream> open_text_stream(const std::string &path) {
  return std::make_unique<TextStream>(path);
}

std::unique_ptr<DataSource> open_text(const std::string &spec, double validation_fraction, int64_t sequence,
                                      const std::string &validation) {
  return std::make_unique<Text>(spec, validation_fraction, sequence, validation);
}

} // namespace nvfp4::models
