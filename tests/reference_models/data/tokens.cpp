// SPDX-License-Identifier: Apache-2.0
// Token files: every container of the same tokens gives the same batches and the same digest, windows go over
// the seams of shards, and what is broken, mixed or out of range is refused with one line.
#include "tests/reference_models/data/support.hpp"

#include "nvfp4/golden/io/npy.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/data/text.hpp"
#include "nvfp4/reference_models/data/tokens.hpp"

#include <algorithm>
#include <fstream>
#include <functional>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {

/// All different at first, so that a window tells where it comes from; with the largest id of uint16.
std::vector<int64_t> some_tokens(size_t n) {
  std::vector<int64_t> tokens(n);
  for (size_t i = 0; i < n; ++i) tokens[i] = int64_t(i * 7919 % 50257);
  tokens[n / 2] = 65535;
  return tokens;
}

template <class T> std::string as(std::span<const int64_t> tokens) {
  std::string out(tokens.size() * sizeof(T), '\0');
  for (size_t i = 0; i < tokens.size(); ++i) {
    const T value = T(tokens[i]);
    std::memcpy(&out[i * sizeof(T)], &value, sizeof value);
  }
  return out;
}

template <class T> std::string llmc(std::span<const int64_t> tokens, int32_t magic, int32_t version) {
  std::string header(1024, '\0');
  const int32_t start[] = {magic, version, int32_t(tokens.size())};
  std::memcpy(header.data(), start, sizeof start);
  return header + as<T>(tokens);
}

template <class T>
std::string npy(std::span<const int64_t> tokens, io::DType type, std::vector<int64_t> shape) {
  const std::string bytes = as<T>(tokens);
  const auto data = io::bytes_of(bytes);
  const auto file = io::to_npy({"data", type, std::move(shape), {data.begin(), data.end()}});
  return {reinterpret_cast<const char *>(file.data()), file.size()};
}

/// Megatron's index of documents of the given lengths.
std::string index(uint8_t code, size_t width, std::span<const int64_t> lengths) {
  std::vector<int64_t> pointers, documents = {0};
  int64_t place = 0;
  for (const int64_t n : lengths) {
    pointers.push_back(place);
    place += n * int64_t(width);
    documents.push_back(int64_t(documents.size()));
  }
  const int64_t counts[] = {int64_t(lengths.size()), int64_t(documents.size())}, version[] = {1};
  return std::string("MMIDIDX\0\0", 9) + as<int64_t>(version) + char(code) + as<int64_t>(counts) +
         as<int32_t>(lengths) + as<int64_t>(pointers) + as<int64_t>(documents);
}

std::string refusal(const std::string &spec, const std::string &validation = {}) {
  return io::error_of([&] {
    const auto data = open_data(spec, 0.1, 8, validation);
    (void)data->vocabulary();
  });
}

} // namespace

TEST_CASE("the same tokens in any container are the same data", "[data]") {
  const Folder folder;
  const std::vector<int64_t> t = some_tokens(3000);
  const auto at = [&](const char *name) { return (folder.path / name).string(); };
  const auto part = [&](size_t from, size_t to) { return std::span(t).subspan(from, to - from); };
  const auto all = std::span<const int64_t>(t);
  folder.write("gpt2.bin", llmc<uint16_t>(all, 20240520, 1));
  folder.write("llama.bin", llmc<uint32_t>(all, 20240801, 7));
  folder.write("nano.bin", as<uint16_t>(all));
  folder.write("raw32.bin", as<uint32_t>(all));
  folder.write("u16.npy", npy<uint16_t>(all, io::DType::u16, {3000}));
  folder.write("u32.npy", npy<uint32_t>(all, io::DType::u32, {30, 100}));
  folder.write("i32.npy", npy<int32_t>(all, io::DType::i32, {3000}));
  folder.write("i64.npy", npy<int64_t>(all, io::DType::i64, {1, 3000}));
  const std::vector<int64_t> lengths = {1, 0, 999, 2000};
  folder.write("megatron.bin", as<uint16_t>(all));
  folder.write("megatron.idx", index(8, 2, lengths));
  folder.write("megatron32.bin", as<int32_t>(all));
  folder.write("megatron32.idx", index(4, 4, lengths));
  folder.write("s-1.bin", llmc<uint16_t>(part(0, 7), 20240520, 1));
  folder.write("s-10.bin", as<uint16_t>(part(7, 8)));
  folder.write("s-2.bin", as<uint16_t>(part(8, 3000)));
  const std::string digest = io::sha256_hex(io::bytes_of(as<uint32_t>(all)));
  const auto first = open_data(at("nano.bin"), 0.1, 16);
  const Batch expected = training(*first, 5, 3, 6, 16), held_out = validation(*first, 2, 3, 16);
  for (size_t i = 0; i < 6; ++i) {
    const uint64_t from = training_offset(5, 18 + i, 2700, 16);
    for (size_t j = 0; j < 17; ++j) REQUIRE(expected.tokens[i * 17 + j] == t[from + j]);
  }
  for (size_t j = 0; j < 17; ++j) CHECK(held_out.tokens[j] == t[2700 + 6 * 16 + j]);
  CHECK(std::ranges::all_of(expected.weights, [](float w) { return w == 1.0f; }));
  for (const std::string &spec : {at("gpt2.bin"), at("llama.bin"), at("nano.bin"), at("nano.bin") + ":uint16",
                                  at("raw32.bin") + ":uint32", at("u16.npy"), at("u32.npy"), at("i32.npy"),
                                  at("i64.npy"), at("megatron.bin"), at("megatron32.bin"), at("s-*.bin"),
                                  at("s-1.bin") + "," + at("s-10.bin") + "," + at("s-2.bin"),
                                  at("s-1.bin") + "," + at("s-[12]*0.bin") + "," + at("s-2.bin")}) {
    INFO(spec);
    const auto data = open_data(spec, 0.1, 16);
    CHECK(data->digest() == digest);
    CHECK(data->vocabulary() == 65536);
    CHECK_FALSE(data->bytes());
    CHECK(training(*data, 5, 3, 6, 16) == expected);
    CHECK(validation(*data, 2, 3, 16) == held_out);
    io::check_message(data->describe(), {"tokens ", "2700 tokens for training", "300 tokens held out"});
  }
  // the order of a list is its own
  CHECK(open_data(at("s-2.bin") + "," + at("s-1.bin") + "," + at("s-10.bin"), 0.1, 16)->digest() != digest);
}

TEST_CASE("windows go over the seams of shards", "[data]") {
  const Folder folder;
  const std::vector<int64_t> t = some_tokens(200);
  std::string list;
  for (size_t i = 0; i < 40; ++i)
    list += (i ? "," : "") + folder.write(("s" + std::to_string(i) + ".bin").c_str(),
                                          as<uint16_t>(std::span(t).subspan(5 * i, 5)));
  const auto stream = open_token_stream(list);
  REQUIRE(stream->size() == 200);
  for (size_t from = 0; from < 200; ++from)
    for (const size_t n : {size_t{1}, size_t{5}, size_t{6}, 200 - from}) {
      if (from + n > 200) continue;
      std::vector<int32_t> found(n, -7);
      stream->read(from, found);
      REQUIRE(std::equal(found.begin(), found.end(), t.begin() + ptrdiff_t(from)));
    }
}

TEST_CASE("validation files stand for the held-out part", "[data]") {
  const Folder folder;
  const std::vector<int64_t> t = some_tokens(1000), v = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 70000};
  const std::string train = folder.write("train.bin", as<uint16_t>(t)),
                    val = folder.write("val.npy", npy<uint32_t>(v, io::DType::u32, {11}));
  const auto data = open_data(train, 0.1, 8, val), whole = open_data(train, 0.1, 8);
  CHECK(validation(*data, 0, 1, 8).tokens == std::vector<int32_t>{9, 8, 7, 6, 5, 4, 3, 2, 1});
  CHECK(validation(*data, 1, 1, 8) == validation(*data, 0, 1, 8)); // one window only
  uint64_t last = 0;
  for (int64_t i = 0; i < 124; ++i) { // an epoch, of all tokens
    const uint64_t from = training_offset(1, uint64_t(i), 1000, 8);
    last = std::max(last, from);
    REQUIRE(training(*data, 1, i, 1, 8).tokens[0] == t[from]);
  }
  CHECK(last > 980);
  CHECK(data->vocabulary() == 70001);
  CHECK(data->digest() != whole->digest());
  CHECK(data->digest() == open_data(train, 0.5, 8, val)->digest());
  io::check_message(data->describe(), {"1000 tokens for training, 11 tokens for validation in", "val.npy"});
  const std::string book = folder.write("book", std::string(300, 'a')),
                    other = folder.write("other", std::string(300, 'b'));
  CHECK(validation(*open_data(book, 0.1, 8, other), 0, 1, 8).tokens == std::vector<int32_t>(9, 'b'));
  io::check_message(refusal(train, book), {"book: expected token files for validation, as for training"});
  io::check_message(refusal(book, val), {"val.npy: expected a text for validation, as for training"});
  io::check_message(refusal("task:copy", val), {"a task makes its own validation data"});
  io::check_message(
      refusal(train, folder.write("few.bin", as<uint16_t>(std::span(v).first(8)))),
      {"few.bin: too short", "needs 9 tokens for validation, found 8 tokens (there are 8 tokens)"});
}

TEST_CASE("broken, mixed and foreign token files are refused with one line", "[data]") {
  const Folder folder;
  const std::vector<int64_t> t = some_tokens(600);
  const auto all = std::span<const int64_t>(t);
  const auto at = [&](const char *name) { return (folder.path / name).string(); };
  const auto file = [&](const char *name, const std::string &bytes) { return folder.write(name, bytes); };
  CHECK(refusal(file("good.bin", as<uint16_t>(all))) == "no error");
  const std::string gpt2 = llmc<uint16_t>(all, 20240520, 1);
  io::check_message(refusal(file("cut.bin", gpt2.substr(0, gpt2.size() - 2))),
                    {"cut.bin: its header says 600 tokens, but 599 tokens and 0 bytes are there"});
  io::check_message(refusal(file("odd.bin", gpt2.substr(0, gpt2.size() - 1))),
                    {"599 tokens and 1 byte are there"});
  io::check_message(refusal(file("more.bin", gpt2 + "ab")), {"but 601 tokens"});
  io::check_message(refusal(file("head.bin", gpt2.substr(0, 100))), {"the shard is broken"});
  io::check_message(refusal(file("v2.bin", llmc<uint16_t>(all, 20240520, 2))),
                    {"expected version 1", "got 2"});
  io::check_message(refusal(file("odd-raw.bin", as<uint16_t>(all) + "x")),
                    {"expected uint16 tokens without a header, got 1201 bytes, which is no multiple of 2"});
  io::check_message(refusal(at("good.bin") + ":uint32"), {"good.bin: token 2 is 2594929596"}); // two tokens each
  io::check_message(refusal(file("six.bin", as<uint16_t>(std::span(t).first(599))) + ":uint32"),
                    {"no multiple of 4"});
  io::check_message(refusal(file("gpt2.bin", gpt2) + ":uint32"),
                    {"holds uint16, expected uint32 as the name says"});
  const std::string wide = file("wide.npy", npy<uint32_t>(all, io::DType::u32, {600}));
  io::check_message(refusal(at("good.bin") + "," + wide),
                    {"wide.npy: holds uint32, but", "good.bin uint16: expected one type in all shards"});
  io::check_message(refusal(at("good.bin") + "," + at("good.bin")), {"good.bin: stands there twice"});
  io::check_message(refusal(file("a.txt", "text") + "," + wide),
                    {"a.txt: expected a token file, .bin or .npy"});
  io::check_message(refusal(at("none-*.bin")), {"none-*.bin: no file has such a name"});
  io::check_message(refusal(at("none.bin")), {"none.bin: cannot open: No such file"});
  io::check_message(refusal(at("good.bin") + ",,x.bin"), {"'': expected a token file"});
  io::check_message(refusal(file("empty.bin", "")), {"empty.bin: expected a token file, got an empty one"});
  std::filesystem::create_directory(folder.path / "folder.bin");
  io::check_message(refusal(at("folder.bin")), {"expected a token file, got a folder"});

  io::check_message(refusal(file("f4.npy", npy<float>(all, io::DType::f32, {600}))),
                    {"expected tokens as uint16, uint32, int32 or int64, got <f4"});
  std::string fortran = npy<uint16_t>(all, io::DType::u16, {20, 30});
  fortran.replace(fortran.find("False"), 5, "True ");
  io::check_message(refusal(file("fortran.npy", fortran)), {"in C order, got one in Fortran order"});
  const std::string u16 = npy<uint16_t>(all, io::DType::u16, {600});
  io::check_message(refusal(file("cut.npy", u16.substr(0, 1000))), {"cut.npy", "truncated"});
  io::check_message(refusal(file("no.npy", "text that is none")), {"no.npy", "expected a .npy file"});

  std::vector<int64_t> bad = t;
  bad[417] = -1;
  io::check_message(refusal(file("minus.npy", npy<int32_t>(bad, io::DType::i32, {600}))),
                    {"minus.npy: token 417 is -1: expected an id from 0 to below 2^31 - 1"});
  bad[417] = int64_t{1} << 40;
  io::check_message(refusal(file("huge.npy", npy<int64_t>(bad, io::DType::i64, {600}))),
                    {"token 417 is 1099511627776"});
  bad[417] = 0x7FFFFFFF;
  io::check_message(refusal(file("most.npy", npy<uint32_t>(bad, io::DType::u32, {600}))),
                    {"token 417 is 2147483647"});
  bad[417] = 0x7FFFFFFE;
  CHECK(refusal(file("fits.npy", npy<uint32_t>(bad, io::DType::u32, {600}))) == "no error");
}

TEST_CASE("a Megatron index that does not fit its tokens is refused", "[data]") {
  const Folder folder;
  const std::vector<int64_t> t = some_tokens(600), lengths = {100, 500};
  const std::string path = folder.write("m.bin", as<uint16_t>(t)), good = index(8, 2, lengths);
  const auto with = [&](std::string idx) {
    folder.write("m.idx", idx);
    return refusal(path);
  };
  CHECK(with(good) == "no error");
  CHECK(with(good + std::string(2, '\0')) == "no error"); // modes of sequences
  io::check_message(with("MMIDIDX"), {"m.idx: expected a Megatron index, which starts with MMIDIDX"});
  io::check_message(with("x" + good.substr(1)), {"remove it if", "m.bin is none of Megatron's"});
  io::check_message(with(good.substr(0, good.size() - 8)), {"m.idx: truncated: 2 sequences and 3 documents"});
  std::string other = good;
  other[9] = 2;
  io::check_message(with(other), {"expected version 1 of Megatron's index, got 2"});
  io::check_message(with(index(5, 8, lengths)),
                    {"expected tokens of type 8 (uint16) or 4 (int32), got type 5"});
  other = good;
  other[18 + 16 + 8 + 8] = 3; // the second pointer
  io::check_message(with(other), {"sequence 1 does not lie behind the one before it"});
  const std::vector<int64_t> longer = {100, 501}, negative = {-1, 601};
  io::check_message(with(index(8, 2, longer)), {"m.bin: expected 1202 bytes, as", "m.idx says, got 1200"});
  io::check_message(with(index(8, 2, negative)), {"sequence 0"});
  io::check_message(with(index(4, 4, lengths)), {"expected 2400 bytes"});
  other = good;
  std::memset(&other[18], 0xFF, 8); // 2^64 - 1 sequences
  io::check_message(with(other), {"truncated"});
}

TEST_CASE("token files that change while they are in use are an error", "[data]") {
  const Folder folder;
  const std::vector<int64_t> t = some_tokens(600);
  const std::string a = folder.write("a.bin", as<uint16_t>(std::span(t).first(300))),
                    b = folder.write("b.bin", as<uint16_t>(std::span(t).last(300)));
  const auto data = open_data(a + "," + b, 0.1, 8);
  (void)data->digest();
  const Batch first = training(*data, 1, 0, 2, 8);
  {
    std::fstream file(b, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(599);
    file.write("\x01", 1);
  }
  std::filesystem::last_write_time(b, std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  io::check_message(io::error_of([&] { (void)training(*data, 1, 0, 2, 8); }),
                    {"b.bin: was changed while it was in use"});
  std::filesystem::resize_file(b, 10);
  CHECK(io::error_of([&] {
          for (int64_t i = 0; i < 50; ++i) (void)validation(*data, i, 2, 8);
        }).find("b.bin: has become shorter") != std::string::npos);
  CHECK(first ==
        training(*open_data(a + "," + folder.write("b.bin", as<uint16_t>(std::span(t).last(300))), 0.1, 8), 1,
                 0, 2, 8));
}
