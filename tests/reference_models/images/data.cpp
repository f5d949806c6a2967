// SPDX-License-Identifier: Apache-2.0
// Images: the task does not depend on how it is asked, files are read as CIFAR-10 writes them and refused otherwise.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/reference_models/images/data.hpp"
#include "tests/reference_models/images/support.hpp"
#include "tests/temporary_folder.hpp"

#include <algorithm>
#include <set>

namespace nvfp4::test {
namespace {

struct Images {
  Floats pixels;
  std::vector<int32_t> labels;

  explicit Images(int64_t n) : pixels(size_t(n * kImageSize)), labels(size_t(n)) {}
  [[nodiscard]] Floats one(size_t i) const {
    return {pixels.begin() + long(i * size_t(kImageSize)), pixels.begin() + long((i + 1) * size_t(kImageSize))};
  }
};

Images training(const ImageSource &s, uint64_t seed, int64_t index, int64_t n) {
  Images out(n);
  s.training_batch(seed, index, out.pixels, out.labels);
  return out;
}
Images held_out(const ImageSource &s, int64_t first, int64_t n) {
  Images out(n);
  s.validation_images(first, out.pixels, out.labels);
  return out;
}

/// Records whose label is their number modulo 10 and whose bytes tell record, channel and place.
std::vector<std::byte> records(int64_t n, int64_t from = 0) {
  std::vector<std::byte> out;
  for (int64_t i = from; i < from + n; ++i) {
    out.push_back(std::byte(i % 10));
    for (int64_t k = 0; k < kImageSize; ++k) out.push_back(std::byte((i * 31 + k / 1024 * 80 + k % 1024 / 32 * 3 + k % 32) % 256));
  }
  return out;
}

} // namespace

TEST_CASE("The generated task is a function of seed and number", "[images][data]") {
  const auto task = open_images("task:shapes", 0.1, "", true);
  const Images whole = training(*task, 5, 0, 60);
  for (int64_t i = 0; i < 3; ++i) {
    const Images part = training(*task, 5, i, 20);
    for (size_t k = 0; k < 20; ++k) {
      CHECK(part.labels[k] == whole.labels[size_t(i) * 20 + k]);
      CHECK(same_words(part.one(k), whole.one(size_t(i) * 20 + k)));
    }
  }
  CHECK_FALSE(same_words(training(*task, 6, 0, 60).pixels, whole.pixels));
  CHECK_FALSE(same_words(held_out(*task, 0, 60).pixels, whole.pixels));
  CHECK(same_words(held_out(*task, 7, 1).pixels, held_out(*task, 0, 8).one(7)));
  const Images many = training(*task, 1, 0, 2000);
  std::vector<int> of_class(10);
  for (const int32_t label : many.labels) ++of_class.at(size_t(label));
  for (const int n : of_class) CHECK((n > 140 && n < 270));
  CHECK(std::all_of(many.pixels.begin(), many.pixels.end(), [](float x) { return x >= -2 && x <= 2; }));
  uint64_t digest = 0; // of the words, so that another machine has the same
  for (const float x : whole.pixels) digest = digest * 0x9E3779B97F4A7C15u + bit_cast<uint32_t>(x);
  CHECK(digest == 0x71cf4531995d498eu);
  CHECK(open_images("task:shapes,contrast=64,noise=32", 0.1, "", true)->digest() == task->digest());
  CHECK(open_images("task:shapes,noise=0", 0.1, "", true)->digest() != task->digest());
}

TEST_CASE("Without noise the classes differ from their background by the contrast", "[images][data]") {
  const auto task = open_images("task:shapes,noise=0,contrast=60", 0.1, "", true);
  const Images some = training(*task, 2, 0, 200);
  std::set<int32_t> seen;
  for (size_t i = 0; i < 200; ++i) {
    seen.insert(some.labels[i]);
    int64_t figure = 0;
    const Floats one = some.one(i);
    // a plane of at most 2 a pixel lies over both: a step of more than 20 between neighbours is an edge
    for (size_t p = 0; p + 3 < one.size(); p += 3)
      if (p / 3 % 32 != 31 && std::fabs(one[p + 3] - one[p]) * 63.75f > 20) ++figure;
    CAPTURE(some.labels[i], figure);
    CHECK((some.labels[i] == 7 ? figure >= 6 : figure >= 10));
  }
  CHECK(seen.size() == 10);
}

TEST_CASE("Files of CIFAR-10's binary version: pixels, order, what is held out", "[images][data]") {
  const TemporaryFolder folder;
  const std::string a = folder.path / "data_batch_1.bin", b = folder.path / "data_batch_2.bin", t = folder.path / "test_batch.bin";
  io::write_file_atomically(a, records(30));
  io::write_file_atomically(b, records(20, 30));
  io::write_file_atomically(t, records(7, 100));
  const auto plain = open_images((folder.path / "data_batch_*.bin").string(), 0.2, "", false);
  CHECK(plain->validation_count() == 10);
  const Images end = held_out(*plain, 0, 10);
  for (int64_t i = 0; i < 10; ++i) {
    CHECK(end.labels[size_t(i)] == (40 + i) % 10);
    const float mean[] = {0.4914f, 0.4822f, 0.4465f}, deviation[] = {0.2023f, 0.1994f, 0.2010f};
    for (int64_t y : {0, 5, 31})
      for (int64_t x : {0, 17, 31})
        for (int64_t c = 0; c < 3; ++c) {
          const auto byte = float(((40 + i) * 31 + c * 80 + y * 3 + x) % 256);
          CHECK(end.one(size_t(i))[size_t((y * 32 + x) * 3 + c)] == (byte / 255.0f - mean[c]) / deviation[c]);
        }
  }
  // an epoch has every record once, another epoch another order
  const Images epoch = training(*plain, 3, 0, 40), next = training(*plain, 3, 1, 40);
  std::vector<int> of_class(10);
  for (const int32_t label : epoch.labels) ++of_class[size_t(label)];
  CHECK(of_class == std::vector<int>(10, 4));
  CHECK(epoch.labels != next.labels);
  const auto tested = open_images(a + "," + b, 0.2, t, true);
  CHECK(tested->validation_count() == 7);
  CHECK(held_out(*tested, 0, 1).labels[0] == 0);
  CHECK(tested->digest() != plain->digest());
  // shifted and mirrored: not the records as they are, the same each time
  const Images shifted = training(*tested, 3, 0, 50);
  CHECK(same_words(shifted.pixels, training(*tested, 3, 0, 50).pixels));
  int64_t black = 0;
  for (const float x : shifted.pixels) black += x == (0.0f - 0.4914f) / 0.2023f;
  CHECK(black > 1000);
}

TEST_CASE("Files that are none are refused in one line", "[images][data]") {
  const TemporaryFolder folder;
  const std::string path = folder.path / "x.bin";
  std::vector<std::byte> bytes = records(3);
  bytes.pop_back();
  io::write_file_atomically(path, bytes);
  CHECK_THROWS_WITH(open_images(path, 0.1, "", true),
                    Catch::Contains("x.bin: expected records of 3073 bytes") && Catch::Contains("got 9218"));
  bytes = records(3);
  bytes[3073] = std::byte(200);
  io::write_file_atomically(path, bytes);
  CHECK_THROWS_WITH(open_images(path, 0.1, "", true), Catch::Contains("record 1: expected a label of 0 to 9, got 200"));
  io::write_file_atomically(path, {});
  CHECK_THROWS_WITH(open_images(path, 0.1, "", true), Catch::Contains("got 0 bytes"));
  io::write_file_atomically(path, records(1));
  CHECK_THROWS_WITH(open_images(path, 0.5, "", true), Catch::Contains("leaves some on both sides"));
  CHECK_THROWS(open_images((folder.path / "none.bin").string(), 0.5, "", true));
  for (const char *spec : {"task:shape", "task:shapes,noise=300", "task:shapes,noise=1,noise=2", "task:shapes,", "task:shapes,size=3"})
    CHECK_THROWS_AS(open_images(spec, 0.1, "", true), Error);
  CHECK_THROWS_WITH(open_images("task:shapes", 0.1, path, true), Catch::Contains("makes its own validation images"));
}

} // namespace nvfp4::test
