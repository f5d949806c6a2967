// SPDX-License-Identifier: Apache-2.0
// Text as training data: every window of an epoch once, any batch found directly, nothing held out is trained
// on, and what cannot be used is refused with one line.
#include "tests/reference_models/data/support.hpp"

#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/data/random.hpp"
#include "nvfp4/reference_models/data/text.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include <sys/stat.h>
#include <unistd.h>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {

/// Text in which the two bytes at 2 i and 2 i + 1 say i, so that a window tells where it comes from.
std::string numbered(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = char(i % 2 == 0 ? i / 2 % 256 : i / 512);
  return text;
}

std::vector<int32_t> bytes_at(const std::string &text, size_t offset, size_t count) {
  std::vector<int32_t> out;
  for (size_t i = 0; i < count; ++i) out.push_back(uint8_t(text.at(offset + i)));
  return out;
}

} // namespace

TEST_CASE("a keyed permutation is one, for every size", "[data]") {
  for (uint64_t size = 1; size <= 600; ++size) {
    const IndexPermutation permute(size, size * 0x9E3779B97F4A7C15);
    std::vector<bool> hit(size);
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t to = permute(i);
      REQUIRE(to < size);
      REQUIRE_FALSE(hit[to]);
      hit[to] = true;
    }
  }
  for (const uint64_t size : {uint64_t{65536}, uint64_t{65537}, uint64_t{100003}}) {
    const IndexPermutation permute(size, 5);
    std::vector<bool> hit(size);
    for (uint64_t i = 0; i < size; ++i) hit.at(permute(i)) = true;
    CHECK(std::ranges::count(hit, true) == int64_t(size));
  }
  for (const uint64_t size : {(uint64_t{1} << 40) + 1, uint64_t{1} << 62, ~uint64_t{0}}) {
    const IndexPermutation permute(size, 5);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < 2000; ++i) seen.insert(permute(i));
    for (uint64_t i = 1; i <= 2000; ++i) seen.insert(permute(size - i));
    CHECK(seen.size() == 4000);
    CHECK(*seen.rbegin() < size);
    CHECK(*seen.rbegin() > size / 100 * 99); // spread over the whole range
    CHECK(*seen.begin() < size / 100);
  }
}

TEST_CASE("a permutation's key decides it, evenly", "[data]") {
  constexpr uint64_t size = 10, keys = 20000;
  uint64_t count[size][size] = {};
  for (uint64_t key = 0; key < keys; ++key)
    for (uint64_t i = 0; i < size; ++i) ++count[i][IndexPermutation(size, key)(i)];
  const double expected = double(keys) / double(size),
               deviation = std::sqrt(expected * (1 - 1.0 / double(size)));
  for (const auto &row : count)
    for (const uint64_t n : row) CHECK(std::abs(double(n) - expected) < 4.5 * deviation);
}

TEST_CASE("windows fit at every offset and leave little out", "[data]") {
  for (uint64_t sequence = 1; sequence <= 24; ++sequence)
    for (uint64_t bytes = sequence + 1; bytes <= 6 * sequence + 3; ++bytes) {
      const Windows w = cut_into_windows(bytes, sequence);
      INFO("bytes " << bytes << " sequence " << sequence);
      REQUIRE(w.count >= 1);
      REQUIRE(w.offsets >= 1);
      REQUIRE(w.offsets <= sequence);
      REQUIRE(w.offsets - 1 + w.count * sequence < bytes); // the last target is inside
      REQUIRE(w.count * sequence + 2 * sequence > bytes);  // fewer than two windows are left out
      if (bytes >= 2 * sequence) REQUIRE(w.offsets == sequence);
    }
}

TEST_CASE("the training order is pinned", "[data]") {
  // Computed by a separate implementation in Python.
  const std::vector<uint64_t> expected = {573, 781, 461, 893, 845, 13, 477, 365, 861, 484, 756};
  std::vector<uint64_t> numbers = {0, 1, 2, 3, 4, 5, 6, 7, 60, 61, 62}, found;
  for (const uint64_t n : numbers) found.push_back(training_offset(1, n, 1000, 16));
  CHECK(found == expected);
  CHECK(training_offset(0x123456789abcdef, 0, 4'000'000'000, 64) == 1907700230);
  CHECK(training_offset(0x123456789abcdef, 1'000'000'000'000, 4'000'000'000, 64) == 1913723331);
}

TEST_CASE("an epoch shows every window once and no held-out byte", "[data]") {
  const Folder folder;
  const std::string text = numbered(5000);
  constexpr int64_t sequence = 16, batch = 3;
  const auto data = open_data(folder.write("text", text), 0.1, sequence);
  CHECK(data->vocabulary() == 256);
  CHECK(data->bytes());
  CHECK(data->digest() == io::sha256_hex(io::bytes_of(text)));
  io::check_message(data->describe(), {"text", "4500 bytes for training", "500 bytes held out"});

  std::map<std::vector<int32_t>, size_t> place; // of each possible window
  for (size_t o = 0; o + 17 <= text.size(); ++o) place[bytes_at(text, o, 17)] = o;
  REQUIRE(place.size() == text.size() - 16);
  const uint64_t count = cut_into_windows(4500, 16).count;
  REQUIRE(count == 280);

  std::set<std::vector<size_t>> orders;
  std::set<size_t> offsets;
  for (const uint64_t seed : {1u, 2u}) {
    std::vector<size_t> stream;
    for (int64_t i = 0; stream.size() < 4 * count; ++i) {
      const Batch b = training(*data, seed, i, batch, sequence);
      CHECK(std::ranges::all_of(b.weights, [](float w) { return w == 1.0f; }));
      for (int64_t s = 0; s < batch; ++s) {
        const auto row = b.tokens.begin() + s * (sequence + 1);
        stream.push_back(place.at({row, row + sequence + 1}));
      }
    }
    for (size_t epoch = 0; epoch < 4; ++epoch) {
      std::vector<size_t> order(stream.begin() + ptrdiff_t(epoch * count),
                                stream.begin() + ptrdiff_t((epoch + 1) * count));
      orders.insert(order);
      std::ranges::sort(order);
      offsets.insert(order.front());
      CHECK(order.front() < 16);
      CHECK(order.back() + 16 < 4500);
      for (size_t w = 0; w < count; ++w) REQUIRE(order[w] == order.front() + 16 * w);
    }
  }
  CHECK(orders.size() == 8);
  CHECK(offsets.size() >= 4);
}

TEST_CASE("a batch is a function of seed and index", "[data]") {
  const Folder folder;
  const auto data = open_data(folder.write("text", numbered(3000)), 0.2, 8);
  const Batch once = training(*data, 9, 12345, 4, 8);
  (void)training(*data, 3, 7, 4, 8);
  CHECK(training(*data, 9, 12345, 4, 8) == once);
  CHECK(training(*data, 10, 12345, 4, 8) != once);
  CHECK(training(*data, 9, 12346, 4, 8) != once);
  // the order does not depend on the size of a micro-batch
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < 4; ++i) {
    const Batch one = training(*data, 9, 4 * 12345 + i, 1, 8);
    rows.insert(rows.end(), one.tokens.begin(), one.tokens.end());
  }
  CHECK(rows == once.tokens);
}

TEST_CASE("validation reads the held-out end in order and starts again", "[data]") {
  const Folder folder;
  const std::string text = numbered(960);
  const auto data = open_data(folder.write("text", text), 0.1, 16);
  std::vector<int32_t> expected;
  for (const size_t w : {0u, 1u, 2u, 3u, 4u, 0u, 1u, 2u}) { // (96 - 1) / 16 = 5 windows
    const auto window = bytes_at(text, 864 + 16 * w, 17);
    expected.insert(expected.end(), window.begin(), window.end());
  }
  CHECK(validation(*data, 0, 8, 16).tokens == expected);
  const Batch third = validation(*data, 3, 2, 16);
  CHECK(std::ranges::equal(third.tokens, std::span(expected).last(34)));
  CHECK(std::ranges::all_of(third.weights, [](float w) { return w == 1.0f; }));
}

TEST_CASE("the shortest text that works, and the longest that does not", "[data]") {
  const Folder folder;
  const std::string text = numbered(18);
  const auto data = open_data(folder.write("18", text), 0.5, 8);
  for (int64_t i = 0; i < 5; ++i) CHECK(training(*data, 1, i, 1, 8).tokens == bytes_at(text, 0, 9));
  CHECK(validation(*data, 4, 1, 8).tokens == bytes_at(text, 9, 9));
  const std::string short_one = folder.write("17", numbered(17));
  io::check_message(io::error_of([&] { (void)open_data(short_one, 0.5, 8); }),
                    {"17: too short", "needs 9 bytes for validation", "found 8 bytes", "has 17 bytes"});
  io::check_message(io::error_of([&] { (void)open_data(short_one, 0.6, 8); }),
                    {"needs 9 bytes for training", "found 7 bytes"});
  Batch b = empty_batch(1, 9);
  io::check_message(io::error_of([&] { data->training_batch(1, 0, 1, 9, b.tokens, b.weights); }),
                    {"needs 10 bytes"});
  io::check_message(io::error_of([&] { data->validation_batch(0, 1, 9, b.tokens, b.weights); }),
                    {"needs 10 bytes"});
}

TEST_CASE("bytes above 127 are tokens above 127", "[data]") {
  const Folder folder;
  const auto data = open_data(folder.write("text", std::string(100, '\xE9')), 0.5, 4);
  CHECK(training(*data, 1, 0, 1, 4).tokens == std::vector<int32_t>(5, 0xE9));
}

TEST_CASE("texts that cannot be used are refused with one line", "[data]") {
  const Folder folder;
  const auto refusal = [](const std::string &path, double fraction = 0.1, int64_t sequence = 8) {
    return io::error_of([&] { (void)open_data(path, fraction, sequence); });
  };
  io::check_message(refusal((folder.path / "none\nsuch").string()),
                    {"none\\x0asuch: cannot open: No such file"});
  io::check_message(refusal(""), {"'': cannot open"});
  io::check_message(refusal(folder.path.string()), {"expected a text file, got a folder"});
  io::check_message(refusal(folder.write("empty", "")), {"empty: expected a text file, got an empty one"});
  io::check_message(refusal("/dev/null"), {"got a pipe or device"});
  const std::string pipe = (folder.path / "pipe").string();
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  io::check_message(refusal(pipe), {"got a pipe or device"});
  const std::string good = folder.write("good", numbered(1000));
  CHECK(refusal(good) == "no error");
  for (const double fraction : {0.0, 1.0, -0.1, 1.5, std::nan(""), std::numeric_limits<double>::infinity()})
    io::check_message(refusal(good, fraction), {"expected a validation fraction above 0 and below 1, got"});
  for (const int64_t sequence : {int64_t{0}, int64_t{-5}, max_sequence + 1})
    io::check_message(refusal(good, 0.1, sequence),
                      {"expected a sequence of 1 to", std::to_string(sequence)});
  if (::geteuid() != 0) { // root may read everything
    REQUIRE(::chmod(good.c_str(), 0) == 0);
    io::check_message(refusal(good), {"good: cannot open: Permission denied"});
  }
}

TEST_CASE("a text that changes while it is in use is an error, one that moves is not", "[data]") {
  const Folder folder;
  const std::string text = numbered(4000), path = folder.write("text", text);
  const auto refusal = [](const DataSource &data) {
    return io::error_of([&] {
      for (int64_t i = 0; i < 200; ++i) {
        (void)training(data, 1, i, 2, 16);
        (void)validation(data, i, 2, 16);
      }
    });
  };
  const auto write_in_place = [&](size_t at, std::string_view bytes) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(std::streamoff(at));
    file.write(bytes.data(), std::streamsize(bytes.size()));
  };
  const auto data = open_data(path, 0.1, 16);
  const std::string digest = data->digest();
  CHECK(digest == io::sha256_hex(io::bytes_of(text)));
  const Batch first = training(*data, 1, 0, 2, 16);
  CHECK(refusal(*data) == "no error");

  std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  CHECK(refusal(*data) == "no error"); // touched
  write_in_place(17, text.substr(17, 5));
  CHECK(refusal(*data) == "no error"); // the same bytes again
  folder.write("text", std::string(4000, 'x')); // another file of this name
  CHECK(refusal(*data) == "no error");
  std::filesystem::remove(path);
  CHECK(refusal(*data) == "no error");
  CHECK(training(*data, 1, 0, 2, 16) == first);
  CHECK(data->digest() == digest);

  folder.write("text", text);
  const auto again = open_data(path, 0.1, 16);
  (void)again->digest();
  for (const size_t at : {size_t{0}, size_t{1999}, size_t{3999}}) {
    write_in_place(at, "\xFE");
    io::check_message(refusal(*again), {"text: was changed while it was in use"});
    write_in_place(at, text.substr(at, 1));
    CHECK(refusal(*again) == "no error");
  }
  write_in_place(4000, "more");
  io::check_message(refusal(*again), {"text: was changed while it was in use"});
  for (const uintmax_t size : {uintmax_t{3990}, uintmax_t{100}, uintmax_t{0}}) {
    std::filesystem::resize_file(path, size);
    const std::string message = refusal(*again);
    CHECK((message.find("has become shorter while it was in use: it had 4000 bytes, now " + std::to_string(size)) !=
               std::string::npos ||
           message.find("was changed while it was in use") != std::string::npos));
  }
  folder.write("text", text);
  const auto unread = open_data(path, 0.1, 16); // nobody asked what it was
  write_in_place(0, "\xFE");
  io::check_message(refusal(*unread), {"was changed while it was in use"});
}
