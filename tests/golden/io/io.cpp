// SPDX-License-Identifier: Apache-2.0
// Tensor files: what is written comes back, in both formats, and a failed write leaves things as they were.
#include "tests/golden/io/support.hpp"
#include "tests/temporary_folder.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/safetensors.hpp"
#include "nvfp4/golden/io/sha256.hpp"

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace fs = std::filesystem;
using namespace nvfp4::io;

namespace {

struct Folder : nvfp4::test::TemporaryFolder {
  [[nodiscard]] std::string operator/(const char *name) const { return (path / name).string(); }
  [[nodiscard]] size_t files() const { return size_t(std::distance(fs::directory_iterator(path), {})); }
};

/// A tensor of any dtype whose bytes count up (0 and 1 for booleans).
Tensor counting(const DTypeInfo &type, std::string name, std::vector<int64_t> shape) {
  std::vector<uint8_t> bytes(byte_count(type.dtype, shape).value());
  std::iota(bytes.begin(), bytes.end(), uint8_t(1));
  if (type.dtype == DType::boolean)
    for (uint8_t &byte : bytes) byte &= 1;
  return Tensor::from_bits(std::move(name), type.dtype, std::move(shape), bytes);
}

std::vector<uint8_t> to_vector(std::span<const uint8_t> bytes) { return {bytes.begin(), bytes.end()}; }

} // namespace

TEST_CASE("every dtype survives both formats", "[io]") {
  const Folder folder;
  TensorFile all{{}, {{"made by", "a test"}, {"ключ", "\"\\\n"}}, {}};
  for (const DTypeInfo &type : dtype_table) {
    CAPTURE(type.safetensors);
    for (const std::vector<int64_t> &shape : {std::vector<int64_t>{}, {3}, {2, 4}, {2, 0}, {1, 2, 1, 4}}) {
      if (!byte_count(type.dtype, shape)) continue; // packed elements that fill no byte
      const Tensor tensor = counting(type, "data", shape);
      if (type.npy.empty()) {
        check_message(error_of([&] {
                        write_tensors(folder / "one.npy", {{tensor}, {}, {}});
                      }),
                      {"one.npy", "tensor 'data'", std::string(type.safetensors), "use .safetensors"});
      } else {
        write_tensors(folder / "one.npy", {{tensor}, {}, {}});
        CHECK(read_tensors(folder / "one.npy").at("data") == tensor);
      }
      all.tensors.push_back(counting(type, std::string(type.safetensors) + shape_text(shape), shape));
    }
  }
  write_tensors(folder / "all.safetensors", all);
  const TensorFile back = read_tensors(folder / "all.safetensors");
  CHECK(back.source == folder / "all.safetensors");
  CHECK(back.metadata == all.metadata);
  REQUIRE(back.tensors.size() == all.tensors.size());
  for (const Tensor &tensor : all.tensors) CHECK(back.at(tensor.name) == tensor);
}

TEST_CASE("a dtype that is not known stops nobody who does not ask for its tensor", "[io]") {
  const Folder folder;
  const std::string header = R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                             R"("x":{"dtype":"F5_NEW","shape":[7],"data_offsets":[4,9]}})";
  const uint64_t size = header.size();
  std::ofstream(folder / "new.safetensors", std::ios::binary)
      << std::string(reinterpret_cast<const char *>(&size), 8) << header << std::string("\0\0\x80?abcde", 9);
  const TensorFile file = read_tensors(folder / "new.safetensors");
  CHECK(file.elements<float>("w")[0] == 1.0f);
  CHECK(file.unknown.at("x") == "F5_NEW");
  check_message(error_of([&] { (void)file.at("x"); }), {"new.safetensors", "tensor 'x'", "'F5_NEW'", "does not know"});
}

TEST_CASE("tensors are viewed as their values or their bits, and as nothing else", "[io]") {
  const Tensor f32 = Tensor::from("w", {2}, std::array{1.0f, -2.0f});
  CHECK(f32.dtype == DType::f32);
  CHECK(f32.as<float>()[1] == -2.0f);
  CHECK(f32.as<uint32_t>()[0] == 0x3F800000);
  check_message(error_of([&] { (void)f32.as<int32_t>("f"); }),
                {"f: tensor 'w'", "expected", "I32", "got F32"});
  check_message(error_of([&] { (void)f32.as<double>(); }), {"tensor 'w'", "F64", "got F32"});
  CHECK(Tensor::from_bits("b", DType::bf16, {1}, std::array{uint16_t(0x3F80)}).as<uint16_t>()[0] == 0x3F80);
  CHECK(Tensor::from("i", {1}, std::vector<long long>{-5}).as<int64_t>()[0] == -5);
  CHECK(Tensor::from("t", {2}, std::array{true, false}).as<uint8_t>()[0] == 1);
  check_message(error_of([] { (void)Tensor::from("n", {3}, std::array{1.0}); }),
                {"'n'", "[3]", "24 bytes, got 8"});
  check_message(error_of([] { (void)Tensor::from("n", {-1}, std::array{1.0}); }),
                {"'n'", "[-1]", "negative"});

  Tensor cut = f32;
  cut.data.resize(7);
  check_message(error_of([&] { (void)cut.as<float>(); }), {"tensor 'w'", "needs 8 bytes, got 7"});

  const TensorFile file{{f32, cut}, {}, "m.safetensors"};
  CHECK(file.elements<float>("w")[0] == 1.0f);
  CHECK(file.find("x") == nullptr);
  check_message(error_of([&] { (void)file.at("x"); }),
                {"m.safetensors: expected a tensor 'x'", "holds 'w', 'w'"});
  check_message(error_of([] { (void)TensorFile{}.at("x"); }), {"'x'", "holds none"});
}

TEST_CASE("a shape's size is counted or refused", "[io]") {
  using Shape = std::vector<int64_t>;
  CHECK(element_count(Shape{}) == 1);
  CHECK(element_count(Shape{INT64_MAX}) == INT64_MAX);
  CHECK(element_count(Shape{INT64_MAX, 0}) == 0);
  CHECK_FALSE(element_count(Shape{INT64_MAX, 2}));
  CHECK_FALSE(element_count(Shape{0, INT64_MAX, 2}));
  CHECK_FALSE(element_count(Shape{0, -1}));
  CHECK_FALSE(byte_count(DType::u16, Shape{INT64_MAX}));
}

TEST_CASE("safetensors bytes depend on nothing but the content, and are aligned", "[io]") {
  const Tensor a = Tensor::from("a", {3}, std::array<uint8_t, 3>{1, 2, 3});
  const Tensor b = Tensor::from("b", {1}, std::array{1.0});
  const Tensor c = Tensor::from("c", {1}, std::array{1.0f});
  const auto bytes = to_safetensors({{a, b, c}, {{"k", "v"}}, {}});
  CHECK(bytes == to_safetensors({{c, b, a}, {{"k", "v"}}, "elsewhere"}));
  const std::string header =
      R"({"__metadata__":{"k":"v"},"b":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
      R"("c":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
      R"("a":{"dtype":"U8","shape":[3],"data_offsets":[12,15]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  CHECK(bytes == raw_safetensors(padded, std::string_view("\0\0\0\0\0\0\xF0\x3F\0\0\x80\x3F\1\2\3", 15)));
  CHECK(to_safetensors({}) == raw_safetensors("{}      ", ""));
  CHECK(parse_safetensors(raw_safetensors("{}", ""), "f").tensors.empty());
}

TEST_CASE("tensors of no elements lie anywhere in a safetensors file", "[io]") {
  const auto file =
      parse_safetensors(raw_safetensors(R"({"y":{"dtype":"F64","shape":[3,0],"data_offsets":[1,1]},)"
                                        R"("w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                        R"("x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})",
                                        "a"),
                        "f");
  CHECK(file.elements<double>("y").empty());
  CHECK(file.elements<uint8_t>("w")[0] == 'a');
}

TEST_CASE("npy headers are read in all the ways that NumPy writes them", "[io]") {
  const std::vector<uint8_t> ab = {'a', 'b'};
  for (const char major : {char(1), char(2), char(3)})
    CHECK(to_vector(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }   \n", "ab", major)
                        .as<uint8_t>()) == ab);
  CHECK(to_vector(npy(R"({"shape":(2L ,),"fortran_order":False,"descr":"<u1"})", "ab").as<uint8_t>()) == ab);
  CHECK(npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", "\1\2\3\4").shape.empty());
  CHECK(npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 0, 3)}", "").shape ==
        std::vector<int64_t>{2, 0, 3});
  const auto written = to_npy(Tensor::from("any", {2}, std::array{1.0f, 2.0f}));
  CHECK(written.size() == 128 + 8);
  CHECK(written[127] == std::byte('\n'));
  for (size_t rank = 0; rank <= 64; ++rank) { // headers of every length
    const auto file = to_npy(Tensor::from("data", std::vector<int64_t>(rank, 1), std::array{uint8_t(7)}));
    CHECK(file.size() % 64 == 1);
    CHECK(file[file.size() - 2] == std::byte('\n'));
    CHECK(parse_npy(file, "f").shape.size() == rank);
  }
}

TEST_CASE("an npy array in Fortran order arrives in C order", "[io]") {
  // Element (i, j, k) of a (2,1,3,2) array holds 100i + 10j + k; Fortran's first index runs fastest.
  std::string data;
  for (int k = 0; k < 2; ++k)
    for (int j = 0; j < 3; ++j)
      for (int i = 0; i < 2; ++i) data += {char(100 * i + 10 * j + k), '\0'};
  const Tensor tensor = npy("{'descr': '<i2', 'fortran_order': True, 'shape': (2, 1, 3, 2)}", data);
  CHECK(tensor.shape == std::vector<int64_t>{2, 1, 3, 2});
  size_t at = 0;
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 3; ++j)
      for (int k = 0; k < 2; ++k) CHECK(tensor.as<int16_t>()[at++] == 100 * i + 10 * j + k);
  CHECK(to_vector(npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2,)}", "ab").as<uint8_t>())[1] ==
        'b');
}

TEST_CASE("files that cannot be read or written name the path and the system's reason", "[io]") {
  const Folder folder;
  const std::string empty = folder / "empty.npy";
  write_file_atomically(empty, {});
  CHECK(read_file(empty).empty());
  check_message(error_of([&] { (void)read_tensors(empty); }), {empty, "got an empty one"});
  check_message(error_of([&] { (void)read_tensors(folder / "no"); }), {"/no: ", errno_text(ENOENT)});
  check_message(error_of([&] { (void)read_tensors(folder.path.string()); }),
                {folder.path, errno_text(EISDIR)});
  check_message(error_of([&] { (void)read_file(""); }), {"''", errno_text(ENOENT)});
  if (::geteuid() != 0) {
    fs::permissions(empty, fs::perms::none);
    check_message(error_of([&] { (void)read_tensors(empty); }), {empty, errno_text(EACCES)});
  }

  const auto write_error = [&](const char *name) {
    return error_of([&] { write_file_atomically(folder / name, bytes_of("x")); });
  };
  check_message(write_error("no/such/file"), {"no/such/file", errno_text(ENOENT)});
  check_message(write_error("."), {errno_text(EISDIR)});
  check_message(write_error("new/"), {errno_text(EISDIR)});
  check_message(write_error("empty.npy/x"), {"empty.npy/x", errno_text(ENOTDIR)});
  check_message(error_of([] { write_file_atomically("/dev/full", bytes_of("x")); }),
                {"/dev/full", errno_text(ENOSPC)});
  CHECK(folder.files() == 1);

  const Tensor t = Tensor::from("t", {1}, std::array{1.0f});
  check_message(error_of([&] {
                  write_tensors(folder / "two.npy", {{t, t}, {}, {}});
                }),
                {"two.npy", "exactly one tensor, got 2", "use .safetensors"});
  check_message(error_of([&] {
                  write_tensors(folder / "t.bin", {{t}, {}, {}});
                }),
                {"t.bin", ".npy or .safetensors"});
  CHECK(folder.files() == 1);
}

TEST_CASE("a write that fails half-way leaves the old file and nothing else", "[io]") {
  const Folder folder;
  const std::string path = folder / "kept.safetensors";
  write_file_atomically(path, bytes_of("old"));

  // A file size limit fails a write as a full disk does: after part of it went through.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::vector<std::byte> large(10'000);
  const std::string over_old = error_of([&] { write_file_atomically(path, large); });
  const std::string anew = error_of([&] { write_file_atomically(folder / "new", large); });
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);

  check_message(over_old, {path, "cannot write", errno_text(EFBIG)});
  check_message(anew, {folder / "new", errno_text(EFBIG)});
  CHECK(read_file(path) == bytes_of("old"));
  CHECK(folder.files() == 1);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) // they reserve terabytes
TEST_CASE("a file that memory holds only once is refused by name", "[io]") {
  const Folder folder;
  constexpr size_t size = size_t(64) << 20;
  const std::string path = folder / "large.npy";
  write_tensors(path, {{Tensor::from_bits("data", DType::u8, {1}, std::array{uint8_t(0)})}, {}, {}});
  std::vector<std::byte> start = read_file(path);
  std::string header(reinterpret_cast<const char *>(start.data()), start.size() - 1);
  header.replace(header.find("(1,)"), 4, "(" + std::to_string(size) + ",)");
  header.erase(header.size() - std::to_string(size).size(),
               std::to_string(size).size() - 1); // of its padding
  write_file_atomically(path, bytes_of(header));
  fs::resize_file(path, header.size() + size);
  CHECK(read_tensors(path).at("data").shape == std::vector<int64_t>{int64_t(size)});

  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_AS, &before) == 0);
  const rlimit small{pages * size_t(::sysconf(_SC_PAGESIZE)) + size + size / 2, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_AS, &small) == 0);
  std::string message;
  try {
    message = error_of([&] { (void)read_tensors(path); });
  } catch (const std::bad_alloc &) {
    message = "bad_alloc";
  }
  REQUIRE(::setrlimit(RLIMIT_AS, &before) == 0);
  check_message(message, {path, "cannot read", errno_text(ENOMEM)});
}
#endif

TEST_CASE("a write replaces the content and keeps links and permissions", "[io]") {
  const Folder folder;
  const std::string path = folder / "file", link = folder / "link";
  write_file_atomically(path, bytes_of("old"));
  fs::permissions(path, fs::perms(0640));
  fs::create_symlink("file", link);
  write_file_atomically(link, bytes_of("new"));
  CHECK(fs::is_symlink(link));
  CHECK(read_file(path) == bytes_of("new"));
  CHECK(fs::status(path).permissions() == fs::perms(0640));
  CHECK(folder.files() == 2);
  const std::string longest(255, 'n');
  write_file_atomically(folder / longest.c_str(), bytes_of("x"));
  CHECK(read_file(folder / longest.c_str()) == bytes_of("x"));
}

TEST_CASE("pipes and own descriptors are written to directly", "[io]") {
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const Tensor t = Tensor::from("t", {1}, std::array{1.0f});
  write_tensors("/dev/fd/" + std::to_string(ends[1]), {{t}, {}, {}});
  ::close(ends[1]);
  const TensorFile back = read_tensors("/dev/fd/" + std::to_string(ends[0]));
  ::close(ends[0]);
  CHECK(back.at("t") == t);

  // A redirection may point into a file: what it holds already stays before what is written.
  const Folder folder;
  const int file = ::open((folder / "log").c_str(), O_RDWR | O_CREAT, 0600);
  REQUIRE(::write(file, "one ", 4) == 4);
  write_file_atomically("/dev/fd/" + std::to_string(file), bytes_of("two"));
  ::close(file);
  CHECK(read_file(folder / "log") == bytes_of("one two"));
  CHECK_NOTHROW(write_file_atomically("/dev/null", bytes_of("x")));
}

TEST_CASE("what stands in a message is one line of UTF-8", "[io]") {
  CHECK(printable("Größe_ω𝄞") == "Größe_ω𝄞");
  CHECK(printable("a\tb'\\\x7F") == "a\\x09b\\x27\\x5c\\x7f");
  CHECK(printable("\xC3") == "\\xc3");
  CHECK(printable("\xC0\x80\xED\xA0\x80") == "\\xc0\\x80\\xed\\xa0\\x80"); // overlong, surrogate
  CHECK(printable("\xE2\x80\xA8") == "\\xe2\\x80\\xa8");                   // U+2028 breaks lines
  CHECK(printable("\xF4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");          // beyond U+10FFFF
  CHECK(printable("abcdef", 3) == "abc...");
}

TEST_CASE("SHA-256 gives the published digests", "[io]") {
  CHECK(sha256_hex({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex(bytes_of("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_hex(std::vector(1'000'000, std::byte('a'))) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}
