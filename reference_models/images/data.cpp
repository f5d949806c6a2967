// SPDX-License-Identifier: Apache-2.0
// The task and the files.
#include "nvfp4/reference_models/images/data.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/data/random.hpp"
#include "nvfp4/reference_models/data/tokens.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

namespace nvfp4::models {
namespace {

using Bytes = std::array<uint8_t, kImageSize>; // (32, 32, 3)

struct Colours {
  std::array<float, 3> mean, deviation;
};
constexpr Colours kTaskColours = {{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}};
constexpr Colours kCifarColours = {{0.4914f, 0.4822f, 0.4465f}, {0.2023f, 0.1994f, 0.2010f}};

void normalise(const Bytes &bytes, const Colours &c, std::span<float> pixels) {
  for (size_t i = 0; i < bytes.size(); ++i)
    pixels[i] = (float(bytes[i]) / 255.0f - c.mean[i % 3]) / c.deviation[i % 3];
}

/// Whether the figure of a class covers a place (x, y) from its middle.
bool covers(int64_t label, int64_t x, int64_t y, int64_t r) {
  const int64_t square = x * x + y * y, far = std::max(std::abs(x), std::abs(y));
  const auto striped = [&](int64_t at) { return far <= r && ((at + 64) / 3) % 2 == 0; };
  switch (label) {
  case 0: return square <= r * r;
  case 1: return square <= r * r && square > (r - 3) * (r - 3);
  case 2: return far <= r - 1;
  case 3: return far <= r - 1 && far > r - 4;
  case 4: return y >= -r && y <= r - 1 && 2 * std::abs(x) <= y + r;
  case 5: return far <= r && std::min(std::abs(x), std::abs(y)) <= 1;
  case 6: return far <= r - 1 && std::abs(std::abs(x) - std::abs(y)) <= 1;
  case 7: return striped(y);
  case 8: return striped(x);
  default: return far <= r && ((x + 64) / 4 + (y + 64) / 4) % 2 == 0;
  }
}

struct Shapes {
  int64_t noise = 32, contrast = 64;

  int32_t draw(RandomSequence random, Bytes &out) const {
    const auto label = int64_t(random.below(kImageClasses));
    const int64_t radius = 6 + int64_t(random.below(5)), middle_x = 11 + int64_t(random.below(10)),
                  middle_y = 11 + int64_t(random.below(10)), slope_x = int64_t(random.below(5)) - 2,
                  slope_y = int64_t(random.below(5)) - 2;
    std::array<int64_t, 3> ground{}, figure{};
    for (size_t c = 0; c < 3; ++c) {
      ground[c] = 64 + int64_t(random.below(128));
      figure[c] = ground[c] + (random.below(2) == 0 ? contrast : -contrast);
    }
    const uint64_t first = random.next; // what follows is drawn four words at a time
    size_t i = 0;
    PhiloxBlock words{};
    for (int64_t y = 0; y < kImageSide; ++y)
      for (int64_t x = 0; x < kImageSide; ++x) {
        const bool inside = covers(label, x - middle_x, y - middle_y, radius);
        const int64_t light = slope_x * (x - 16) + slope_y * (y - 16);
        for (size_t c = 0; c < 3; ++c, ++i) {
          if (i % 4 == 0) words = random.key.block(first + i / 4);
          const uint32_t w = words.word[i % 4];
          const int64_t four = int64_t(w & 255) + int64_t(w >> 8 & 255) + int64_t(w >> 16 & 255) + int64_t(w >> 24);
          const int64_t value = (inside ? figure[c] : ground[c]) + light + (four - 510) * noise / 148; // 148: their deviation
          out[i] = uint8_t(std::clamp<int64_t>(value, 0, 255));
        }
      }
    return int32_t(label);
  }
};

class TaskImages final : public ImageSource {
public:
  explicit TaskImages(Shapes shapes) : shapes_(shapes) {}

  void training_batch(uint64_t seed, int64_t index, std::span<float> pixels, std::span<int32_t> labels) const override {
    fill(seed, DataStream::image_training, index * int64_t(labels.size()), pixels, labels);
  }
  void validation_images(int64_t first, std::span<float> pixels, std::span<int32_t> labels) const override {
    fill(0, DataStream::image_validation, first, pixels, labels);
  }
  int64_t validation_count() const override { return int64_t{1} << 40; }
  std::string digest() const override {
    const std::string text = name();
    return io::sha256_hex(std::as_bytes(std::span(text)));
  }
  std::string describe() const override { return name() + ": generated, 10 classes of 32 x 32 x 3"; }

private:
  [[nodiscard]] std::string name() const {
    return std::string(kShapesTask) + ",noise=" + std::to_string(shapes_.noise) + ",contrast=" + std::to_string(shapes_.contrast);
  }
  void fill(uint64_t seed, DataStream stream, int64_t first, std::span<float> pixels, std::span<int32_t> labels) const {
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < labels.size(); ++i) {
      Bytes bytes;
      labels[i] = shapes_.draw({item_key(seed, stream, uint64_t(first) + i)}, bytes);
      normalise(bytes, kTaskColours, pixels.subspan(i * size_t(kImageSize), size_t(kImageSize)));
    }
  }
  Shapes shapes_;
};

/// Records of files, one behind the other.
struct Records {
  static constexpr size_t kBytes = 1 + size_t(kImageSize);
  std::vector<std::byte> bytes;

  [[nodiscard]] int64_t count() const { return int64_t(bytes.size() / kBytes); }
  [[nodiscard]] int32_t label(int64_t i) const { return int32_t(bytes[size_t(i) * kBytes]); }
  /// Shifted so that pixel (0, 0) is the record's (dy, dx), black outside.
  void image(int64_t i, int64_t dy, int64_t dx, bool mirrored, Bytes &out) const {
    const std::byte *const from = bytes.data() + size_t(i) * kBytes + 1;
    for (int64_t y = 0; y < kImageSide; ++y)
      for (int64_t x = 0; x < kImageSide; ++x) {
        const int64_t py = y + dy, px = (mirrored ? kImageSide - 1 - x : x) + dx;
        const bool inside = py >= 0 && py < kImageSide && px >= 0 && px < kImageSide;
        for (int64_t c = 0; c < 3; ++c)
          out[size_t((y * kImageSide + x) * 3 + c)] =
              inside ? uint8_t(from[(c * kImageSide + py) * kImageSide + px]) : uint8_t{0};
      }
  }
};

Records read_records(const std::string &spec) {
  Records all;
  for (const std::string &path : token_files(spec)) {
    const std::vector<std::byte> bytes = io::read_file(path);
    if (bytes.empty() || bytes.size() % Records::kBytes != 0)
      throw Error(io::printable(path) + ": expected records of 3073 bytes (a label and 32 x 32 x 3 pixels, CIFAR-10's binary "
                  "version), got " + std::to_string(bytes.size()) + " bytes");
    for (size_t i = 0; i < bytes.size(); i += Records::kBytes)
      if (int64_t(bytes[i]) >= kImageClasses)
        throw Error(io::printable(path) + ": record " + std::to_string(i / Records::kBytes) + ": expected a label of 0 to 9, got " +
                    std::to_string(int(bytes[i])));
    all.bytes.insert(all.bytes.end(), bytes.begin(), bytes.end());
  }
  return all;
}

class FileImages final : public ImageSource {
public:
  FileImages(const std::string &spec, double fraction, const std::string &validation, bool augment)
      : spec_(spec), augment_(augment), records_(read_records(spec)), training_(records_.count()) {
    digest_ = io::sha256_hex(records_.bytes);
    if (!validation.empty()) {
      held_out_ = read_records(validation);
      const std::string both = digest_ + io::sha256_hex(held_out_.bytes);
      digest_ = io::sha256_hex(std::as_bytes(std::span(both)));
      return;
    }
    const auto held = std::max<int64_t>(1, int64_t(std::floor(fraction * double(training_))));
    if (!(fraction > 0 && fraction < 1) || held >= training_)
      throw Error("expected a fraction of " + std::to_string(training_) + " images to hold out that leaves some on both sides, got " +
                  std::to_string(fraction) + "; or give --validation-data");
    training_ -= held;
    held_out_.bytes.assign(records_.bytes.begin() + long(size_t(training_) * Records::kBytes), records_.bytes.end());
  }

  void training_batch(uint64_t seed, int64_t index, std::span<float> pixels, std::span<int32_t> labels) const override {
    const auto n = uint64_t(training_), first = uint64_t(index) * labels.size();
    for (size_t i = 0; i < labels.size(); ++i) {
      const uint64_t number = first + i;
      const RandomKey epoch = item_key(seed, DataStream::image_epoch, number / n);
      const auto place = int64_t(IndexPermutation(n, epoch.seed)(number % n));
      Bytes bytes;
      int64_t dy = 0, dx = 0;
      bool mirrored = false;
      if (augment_) {
        RandomSequence random{item_key(seed, DataStream::image_augmentation, number)};
        dy = int64_t(random.below(9)) - 4, dx = int64_t(random.below(9)) - 4, mirrored = random.below(2) == 1;
      }
      records_.image(place, dy, dx, mirrored, bytes);
      labels[i] = records_.label(place);
      normalise(bytes, kCifarColours, pixels.subspan(i * size_t(kImageSize), size_t(kImageSize)));
    }
  }
  void validation_images(int64_t first, std::span<float> pixels, std::span<int32_t> labels) const override {
    for (size_t i = 0; i < labels.size(); ++i) {
      Bytes bytes;
      held_out_.image(first + int64_t(i), 0, 0, false, bytes);
      labels[i] = held_out_.label(first + int64_t(i));
      normalise(bytes, kCifarColours, pixels.subspan(i * size_t(kImageSize), size_t(kImageSize)));
    }
  }
  int64_t validation_count() const override { return held_out_.count(); }
  std::string digest() const override { return digest_; }
  std::string describe() const override {
    return io::printable(spec_) + ": " + std::to_string(training_) + " images to train on, " + std::to_string(held_out_.count()) +
           " held out";
  }

private:
  std::string spec_;
  bool augment_;
  Records records_, held_out_;
  int64_t training_;
  std::string digest_;
};

Shapes parse_shapes(std::string_view parameters) {
  Shapes shapes;
  bool given[2] = {};
  while (!parameters.empty()) {
    parameters.remove_prefix(1); // the comma
    const std::string_view part = parameters.substr(0, parameters.find(','));
    parameters.remove_prefix(part.size());
    const size_t equals = std::min(part.find('='), part.size());
    const std::string_view name = part.substr(0, equals), text = part.substr(std::min(equals + 1, part.size()));
    int64_t value = -1;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool noise = name == "noise";
    if ((!noise && name != "contrast") || error != std::errc() || stop != text.data() + text.size() || value < 0 || value > 255 ||
        given[noise])
      throw Error(std::string(kShapesTask) + ": expected noise=N or contrast=N, each once, with N from 0 to 255, got " +
                  io::in_quotes(part));
    given[noise] = true;
    (noise ? shapes.noise : shapes.contrast) = value;
  }
  return shapes;
}

} // namespace

std::unique_ptr<ImageSource> open_images(const std::string &spec, double validation_fraction, const std::string &validation,
                                         bool augment) {
  const std::string_view task = kShapesTask;
  if (spec.starts_with("task:")) {
    if (!validation.empty())
      throw Error("a task makes its own validation images: expected no files for them beside " + io::in_quotes(spec));
    if (spec != task && !spec.starts_with(std::string(task) + ","))
      throw Error("unknown task " + io::in_quotes(spec) + ": expected " + std::string(task));
    return std::make_unique<TaskImages>(parse_shapes(std::string_view(spec).substr(task.size())));
  }
  return std::make_unique<FileImages>(spec, validation_fraction, validation, augment);
}

} // namespace nvfp4::models
