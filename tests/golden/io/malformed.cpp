// SPDX-License-Identifier: Apache-2.0
// Every kind of damage to a tensor file is refused by a message that says where and why.
#include "tests/golden/io/support.hpp"

#include "nvfp4/golden/io/safetensors.hpp"

#include <array>

using namespace nvfp4::io;
using Strings = std::vector<std::string>;

TEST_CASE("safetensors refuses to write what it could not read", "[io]") {
  const auto message = [](std::string name, size_t copies) {
    const Tensor tensor = Tensor::from(std::move(name), {1}, std::array{1.0f});
    return error_of([&] { (void)to_safetensors({std::vector(copies, tensor), {}, {}}, "o.safetensors"); });
  };
  check_message(message("w", 2), {"o.safetensors: tensor 'w'", "unique"});
  check_message(message("__metadata__", 1), {"o.safetensors: tensor '__metadata__'", "metadata"});
  check_message(message("\xFF", 1), {"o.safetensors", "'\\xff'", "UTF-8"});
}

TEST_CASE("a malformed safetensors file is refused with file, tensor and reason", "[io]") {
  struct Case {
    std::string header, data;
    Strings parts;
  };
  const std::string u8 = R"("dtype":"U8",)", one = R"({"dtype":"U8","shape":[1],"data_offsets":)";
  const auto offsets = [&](const char *range) { return R"({"w":)" + one + range + "}}"; };
  const auto shape = [&](const char *s) {
    return R"({"w":{)" + u8 + R"("shape":)" + s + R"(,"data_offsets":[0,1]}})";
  };
  const auto deep = [](const char *open) {
    std::string text = R"({"w":)";
    for (int i = 0; i < 200'000; ++i) text += open;
    return text;
  };
  const std::vector<Case> cases = {
      {"", "", {"starts with '{'"}},
      {" {}", "", {"starts with '{'"}},
      {"[]", "", {"starts with '{'"}},
      {"{", "", {"not valid JSON"}},
      {"{}{}", "", {"not valid JSON"}},
      {"{\"a\nb\":1}", "", {"not valid JSON"}},
      {"{\"\xFF\":1}", "", {"not valid JSON", "UTF-8"}},
      {R"({"w":3})", "", {"tensor 'w'", "expected an object", "got 3"}},
      {R"({"w\n":null})", "", {"tensor 'w\\x0a'", "got null"}},
      {R"({"w":[]})", "", {"tensor 'w'", "got an array"}},
      {R"({"w":{}})", "", {"tensor 'w'", "dtype is missing"}},
      {R"({"w":{)" + u8 + R"("shape":[]}})", "", {"tensor 'w'", "data_offsets is missing"}},
      {R"({"w":{"kind":1}})", "", {"tensor 'w'", "got 'kind'"}},
      {R"({"w":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", "ab", {"tensor 'w'", "F4", "no whole number"}},
      {R"({"w":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,2]}})", "ab", {"tensor 'w'", "needs 3 bytes"}},
      {R"({"w":{"dtype":4}})", "", {"tensor 'w'", "dtype: expected a string", "got 4"}},
      {R"({"w":{"dtype":["U8"]}})", "", {"tensor 'w'", "dtype: expected a string", "an array"}},
      {R"({"w":{"dtype":{"a":1}}})", "", {"tensor 'w'", "dtype: expected a string", "an object"}},
      {R"({"w":{"shape":{"a":1}}})", "", {"tensor 'w'", "shape: expected an array", "an object"}},
      {R"({"w":{)" + u8 + u8 + "}}", "", {"tensor 'w'", "'dtype' stands there twice"}},
      {R"({"w":)" + one + R"([0,1]},"w":)" + one + "[1,2]}}", "ab", {"the key 'w' twice"}},
      {shape("1"), "a", {"tensor 'w'", "shape: expected an array", "got 1"}},
      {shape("[-1]"), "a", {"tensor 'w'", "shape: expected integers", "got -1"}},
      {shape("[1.0]"), "a", {"tensor 'w'", "shape: expected integers", "got 1.0"}},
      {shape("[\"1\"]"), "a", {"tensor 'w'", "shape: expected integers", "'1'"}},
      {shape("[[1]]"), "a", {"tensor 'w'", "shape: expected integers", "an array"}},
      {shape("[1e999]"), "a", {"not valid JSON", "1e999"}},
      {shape("[9223372036854775808]"), "a", {"tensor 'w'", "got 9223372036854775808"}},
      {shape("[123456789012345678901234567890]"), "a", {"tensor 'w'", "got 123456789012345678901234567890"}},
      {shape("[4611686018427387904,4]"), "a", {"tensor 'w'", "more elements than 64 bits"}},
      {shape("[0,4611686018427387904,4]"), "a", {"tensor 'w'", "more elements than 64 bits"}},
      {shape("[2]"), "a", {"tensor 'w'", "[2] of U8 needs 2 bytes", "span 1"}},
      {offsets("[0]"), "a", {"tensor 'w'", "expected [begin, end]", "got 1 numbers"}},
      {offsets("[0,0.5]"), "a", {"tensor 'w'", "data_offsets: expected integers", "got 0.5"}},
      {offsets("[1,0]"), "a", {"tensor 'w'", "begin <= end <= 1", "got [1, 0]"}},
      {offsets("[0,2]"), "a", {"tensor 'w'", "begin <= end <= 1", "got [0, 2]"}},
      {offsets("[1,2]"), "ab", {"tensor 'w'", "hole", "bytes 0 to 1"}},
      {offsets("[0,1]"), "abc", {"after tensor 'w'", "bytes 1 to 3"}},
      {"{}", "a", {"without any tensor", "bytes 0 to 1"}},
      {R"({"v":)" + one + R"([0,1]},"w":)" + one + "[0,1]}}", "a", {"tensor 'w'", "overlaps tensor 'v'"}},
      {R"({"__metadata__":{"k":1}})", "", {"metadata: 'k'", "expected a string", "got 1"}},
      {R"({"__metadata__":{"k":"a","k":"b"}})", "", {"metadata", "'k' stands there twice"}},
      {R"({"__metadata__":null})", "", {"metadata", "an object of strings", "got null"}},
      {deep("["), "", {"tensor 'w'", "got an array"}},
      {deep(R"({"w":)"), "", {"tensor 'w'", "expected the keys"}},
  };
  for (const Case &c : cases) {
    CAPTURE(c.header.substr(0, 200));
    const std::string message =
        error_of([&] { (void)parse_safetensors(raw_safetensors(c.header, c.data), "f.safetensors"); });
    check_message(message, {"f.safetensors: "});
    check_message(message, c.parts);
  }
}

TEST_CASE("a safetensors header's length is checked against the file and the limit", "[io]") {
  const auto message = [](std::string_view file) {
    return error_of([&] { (void)parse_safetensors(bytes_of(file), "f.safetensors"); });
  };
  using namespace std::string_view_literals;
  check_message(message("\2\0\0"sv), {"f.safetensors", "8 bytes of header length", "got 3"});
  check_message(message("\5\0\0\0\0\0\0\0{}"sv), {"f.safetensors", "should have 5 bytes", "ends after 2"});
  check_message(message("\0\0\0\0\0\0\0\x80{}"sv),
                {"f.safetensors", "at most 100000000", "9223372036854775808"});
  // a file of 10 bytes by the time its size was asked for, and of 3 when they were read
  const auto whole = bytes_of("\2\0\0\0\0\0\0\0{}"sv);
  CHECK(safetensors_header_size(whole, 10, "f.safetensors") == 2);
  check_message(
      error_of([&] { (void)safetensors_header_size(std::span(whole).first(3), 10, "f.safetensors"); }),
      {"f.safetensors", "8 bytes of header length", "got 3"});
}

TEST_CASE("a malformed npy file is refused with file, tensor and reason", "[io]") {
  struct Case {
    std::string header, data;
    Strings parts;
  };
  const auto shape = [](const std::string &s) {
    return "{'descr': '|u1', 'fortran_order': False, 'shape': " + s + "}";
  };
  const auto descr = [](const std::string &d) {
    return "{'descr': " + d + ", 'fortran_order': False, 'shape': (1,)}";
  };
  std::string rank65 = "(";
  for (int i = 0; i < 65; ++i) rank65 += "1,";
  const std::vector<Case> cases = {
      {"", "", {"expected {", "the end of the header"}},
      {shape("(1,)") + "x", "a", {"expected its end", "'x'"}},
      {"{'descr': '|u1'", "", {"expected }", "end of the header"}},
      {"{'descr' '|u1'}", "", {"expected :"}},
      {"{descr: '|u1'}", "", {"expected a quoted string"}},
      {"{'descr", "", {"without an end"}},
      {"{'descr': '|u1', 'descr': '|u1'}", "", {"descr stands there twice"}},
      {"{'order': 1}", "", {"got 'order'"}},
      {"{}", "", {"descr is missing"}},
      {"{'descr': '|u1'}", "", {"fortran_order is missing"}},
      {"{'descr': '|u1', 'fortran_order': False}", "", {"shape is missing"}},
      {"{'fortran_order': 0}", "", {"True or False"}},
      {descr("'>f4'"), "", {"<f4", "got '>f4'", "big endian"}},
      {descr("'<V2'"), "", {"got '<V2'", "use .safetensors"}},
      {descr("'|O'"), "", {"got '|O'"}},
      {descr("'|f4'"), "", {"got '|f4'"}},
      {descr("[('a', '<f4')]"), "", {"structured"}},
      {shape("(2)"), "ab", {"shape: expected a tuple"}},
      {shape("(,)"), "a", {"shape: expected a non-negative integer"}},
      {shape("(1 1)"), "a", {"shape: expected , or )"}},
      {shape("(-1,)"), "a", {"shape: expected a non-negative integer", "'-1"}},
      {shape("(9223372036854775808,)"), "a", {"below 2^63"}},
      {shape("(4611686018427387904, 4)"), "a", {"more elements than 64 bits"}},
      {shape(rank65 + ")"), "a", {"at most 64 dimensions"}},
      {shape("(3,)"), "ab", {"truncated", "[3] of |u1 needs 3 bytes", "got 2"}},
      {shape("(3,)"), "abcd", {"trailing data", "needs 3 bytes", "got 4"}},
  };
  for (const Case &c : cases) {
    CAPTURE(c.header);
    const std::string message = error_of([&] { (void)npy(c.header, c.data); });
    check_message(message, {"a.npy: tensor 'data': "});
    check_message(message, c.parts);
  }
  check_message(error_of([] { (void)npy("{}", "", 4); }), {"a.npy", "1.0, 2.0 or 3.0", "got 4.0"});
  auto cut = raw_npy(shape("(1,)"), "");
  for (; !cut.empty(); cut.pop_back())
    CHECK(error_of([&] { (void)parse_npy(cut, "a.npy"); }).starts_with("a.npy: tensor 'data': "));
  Tensor deep = Tensor::from("deep", std::vector<int64_t>(65, 1), std::array{1.0f});
  check_message(error_of([&] { (void)to_npy(deep, "o.npy"); }),
                {"o.npy: tensor 'deep'", "64 dimensions, got 65"});
}
