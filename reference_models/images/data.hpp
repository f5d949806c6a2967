// SPDX-License-Identifier: Apache-2.0
// Where labelled images of 32 x 32 x 3 come from: a generated task, or files of CIFAR-10's binary version. A batch is a
// function of (seed, index) and nothing else is state, as in data/source.hpp.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace nvfp4::models {

inline constexpr int64_t kImageSide = 32, kImageChannels = 3, kImageClasses = 10;
inline constexpr int64_t kImageSize = kImageSide * kImageSide * kImageChannels;

/// Image i of batch `index` is number index * batch + i of an endless stream.
class ImageSource {
public:
  virtual ~ImageSource() = default;
  /// pixels (batch, 32, 32, 3), labels (batch) of 0 to 9.
  virtual void training_batch(uint64_t seed, int64_t index, std::span<float> pixels, std::span<int32_t> labels) const = 0;
  /// Images from `first` on that training never sees; the same for any seed.
  virtual void validation_images(int64_t first, std::span<float> pixels, std::span<int32_t> labels) const = 0;
  /// How many there are; a task has as many as anyone asks for, up to 2^40.
  [[nodiscard]] virtual int64_t validation_count() const = 0;
  /// SHA-256 of the files or of the task's name, as 64 hexadecimal digits.
  [[nodiscard]] virtual std::string digest() const = 0;
  [[nodiscard]] virtual std::string describe() const = 0; ///< one line
};

/// The generated task.
inline constexpr const char *kShapesTask = "task:shapes";

/// `spec`: task:shapes[,noise=N][,contrast=N], or files as token_files() has them, each of records of 3073 bytes: a label
/// of 0 to 9, then 1024 bytes of red, of green and of blue, rows from the top. `validation` files, or the last
/// `validation_fraction` of the records, are held out. augment: training images of files are shifted by -4 to 4 pixels
/// each way, black from outside, and mirrored or not.
///
/// task:shapes, ten classes: disc, ring, square, frame, triangle, plus, cross (x), horizontal stripes, vertical stripes,
/// checkerboard, of radius 6 to 10 at a random place. Background and figure differ by `contrast` (64) in each colour with a
/// random sign, a plane of brightness lies over both, and every byte gets noise of standard deviation `noise` (32): one
/// word of Philox, whose four bytes are added. Whole numbers throughout. Pixels are (byte / 255 - 0.5) / 0.25; of files
/// (byte / 255 - mean) / std of CIFAR-10's channels: (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010).
[[nodiscard]] std::unique_ptr<ImageSource> open_images(const std::string &spec, double validation_fraction,
                                                       const std::string &validation, bool augment);

} // namespace nvfp4::models
