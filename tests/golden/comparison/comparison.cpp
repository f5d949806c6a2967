// SPDX-License-Identifier: Apache-2.0
// Comparison of tensors, quantized tensors, logs and metadata: every kind of difference is planted and must
// be found where it was planted, and nothing else.
#include "tests/catch.hpp"
#include "tests/temporary_folder.hpp"

#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/comparison/compare_files.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <unistd.h>

namespace nvfp4::golden {
namespace {

namespace fs = std::filesystem;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

struct Folder : nvfp4::test::TemporaryFolder {
  std::string operator/(const char *name) const { return (path / name).string(); }
  std::string text(const char *name, std::string_view content) const {
    std::ofstream(path / name) << content;
    return *this / name;
  }
};

io::Tensor floats(std::vector<int64_t> shape, const std::vector<float> &v) {
  return io::Tensor::from("w", std::move(shape), v);
}

std::string error_of(auto call) {
  try {
    call();
  } catch (const Error &e) {
    return e.what();
  }
  return "no error";
}

TEST_CASE("words are compared: NaN by bits, zeros by sign, the first difference by row and column") {
  const float other_nan = std::bit_cast<float>(0x7FC00001u);
  const std::vector<float> x = {1, -0.0f, kNan, kNan, kInf, 3, 1e-40f, 2};
  std::vector<float> y = {1, 0.0f, kNan, other_nan, -kInf, kNan, 2e-40f, std::nextafter(2.0f, 3.0f)};
  PartComparison c = compare_tensors(floats({2, 4}, x), floats({2, 4}, y));
  CHECK(!c.equal());
  CHECK(c.words.total == 8);
  CHECK(c.words.differing == 6);
  CHECK(c.index(c.words.first) == std::vector<int64_t>{0, 1});
  CHECK(c.words.zero_signs == 1);
  CHECK(c.words.nan_same == 1);
  CHECK(c.words.nan_words == 1);
  CHECK(c.words.nan_missing == 1);
  CHECK(c.words.infinities == 1);
  CHECK(c.words.rows_hit == 2);
  CHECK(c.words.max_ulp == 71363); // the subnormals
  c = compare_tensors(floats({2, 4}, x), floats({2, 4}, x));
  CHECK(c.equal());
  CHECK(c.words.nan_same == 2);
}

TEST_CASE("every type of a file finds one changed word at its place") {
  for (const io::DTypeInfo &type : io::dtype_table) {
    CAPTURE(type.safetensors);
    const std::vector<int64_t> shape = {3, 8};
    io::Tensor a{"t", type.dtype, shape, {}};
    a.data.resize(*io::byte_count(type.dtype, shape), std::byte{0x11});
    io::Tensor b = a;
    CHECK(compare_tensors(a, b).equal());
    const size_t at = a.data.size() * 2 / 3; // the first byte of row 2
    b.data[at] ^= std::byte{0x02};
    const PartComparison c = compare_tensors(a, b);
    CHECK(c.words.differing == 1);
    CHECK(c.words.first >= 0);
    if (type.bits != 6) {
      CHECK(c.index(c.words.first) == std::vector<int64_t>{2, 0});
      CHECK(c.words.rows_hit == 1);
    }
    CHECK(c.words.first_got != c.words.first_want);
  }
}

TEST_CASE("integers count differences, also across the range") {
  const PartComparison c = compare_tensors(io::Tensor::from("i", {2}, std::vector<int64_t>{INT64_MIN, 5}),
                                           io::Tensor::from("i", {2}, std::vector<int64_t>{INT64_MAX, 5}));
  CHECK(c.words.differing == 1);
  CHECK(c.words.max_ulp == UINT64_MAX);
  CHECK(c.first_a == -0x1p63);
  const PartComparison d = compare_tensors(io::Tensor::from("i", {1}, std::vector<int8_t>{-3}),
                                           io::Tensor::from("i", {1}, std::vector<int8_t>{4}));
  CHECK(d.words.max_ulp == 7);
  CHECK(d.first_a == -3);
}

TEST_CASE("other types are compared by value and are never equal; other shapes are told") {
  const std::vector<uint16_t> halves = {0x3F80, 0x4000, 0x7FC0, 0x4040}; // 1, 2, NaN, 3
  const io::Tensor b = io::Tensor::from_bits("w", io::DType::bf16, {2, 2}, halves);
  PartComparison c = compare_tensors(floats({2, 2}, {1, 2, kNan, 3}), b);
  CHECK(c.by_value);
  CHECK(c.words.differing == 0);
  CHECK(!c.equal());
  CHECK(compare_tensors(floats({2, 2}, {1, 2, kNan, 3.5f}), b).words.first == 3);
  CHECK(compare_tensors(io::Tensor::from("w", {2}, std::vector<int32_t>{-1, 2}), floats({2}, {-1, 2}))
            .words.differing == 0);
  CHECK(compare_tensors(floats({4}, {1, 2, 3, 4}), b).unlike == "shape [4] against [2, 2]");
  CHECK(compare_tensors(floats({0, 3}, {}), floats({0, 3}, {})).equal());
}

std::vector<float> hard_matrix() {
  std::vector<float> x(20 * 40);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::ldexp(float(int(i * 37 % 101) - 50), int(i % 7) - 3);
  x[5] = 4000.0f;
  x[77] = -0.0f;
  for (size_t i = 400; i < 440; ++i) x[i] = 0.0f;
  return x;
}

TEST_CASE("quantized tensors: each part is found in either layout") {
  const std::vector<float> x = hard_matrix();
  const MatrixView<const float> view(x.data(), 20, 40);
  const BlockScaled a = quantize(view, find_convention("te"));
  BlockScaled b = quantize(view, find_convention("te"), {.layout = ScaleLayout::tiled_128x4});
  const auto part = [](const std::vector<PartComparison> &list, const std::string &name) {
    for (const PartComparison &p : list)
      if (p.name == name) return p;
    FAIL("no part " + name);
    return PartComparison{};
  };
  for (const PartComparison &p : compare_quantized(a, b)) CHECK(p.equal());
  b.codes[size_t(3 * b.row_bytes() + 2)] ^= 0x10; // row 3, k = 5
  b.scales[size_t(scale_offset_128x4(7, 1, b.scale_cols()))] ^= 1;
  b.global_decode = std::nextafter(b.global_decode, 1.0f);
  const std::vector<PartComparison> parts = compare_quantized(a, b);
  CHECK(part(parts, "codes").words.differing == 1);
  CHECK(part(parts, "codes").index(part(parts, "codes").words.first) == std::vector<int64_t>{3, 5});
  CHECK(part(parts, "block_scales").index(part(parts, "block_scales").words.first) ==
        std::vector<int64_t>{7, 1});
  CHECK(part(parts, "global_amax").equal());
  CHECK(part(parts, "global_decode_scale").words.max_ulp == 1);
  const PartComparison values = part(parts, "values");
  CHECK(values.words.differing >= 2);
  CHECK(values.index(values.words.first) == std::vector<int64_t>{3, 5});
  const BlockScaled mx = quantize(view, find_convention("mxfp4"));
  CHECK(!part(compare_quantized(a, mx), "block_scales").unlike.empty());
}

TEST_CASE(
    "files: tensors by name, the only ones whatever their names, dense against quantized, metadata apart") {
  const Folder folder;
  const std::vector<float> x = hard_matrix();
  const BlockScaled q = quantize(MatrixView<const float>(x.data(), 20, 40), find_convention("te"));
  io::write_tensors(folder / "q.safetensors", to_file(q));
  io::TensorFile values;
  values.tensors = {io::Tensor::from("v", {20, 40}, dequantize(q))};
  values.metadata = {{"model", R"({"hidden":4,"name":"a"})"}, {"step", "3"}};
  io::write_tensors(folder / "v.npy", values);
  CHECK(compare_files(folder / "q.safetensors", folder / "v.npy").equal());
  CHECK(compare_files(folder / "v.npy", folder / "q.safetensors").equal());

  io::TensorFile two = values;
  two.tensors.push_back(io::Tensor::from("z", {2}, std::vector<int32_t>{1, 2}));
  io::write_tensors(folder / "two.safetensors", two);
  two.metadata = {{"model", R"({"hidden":8,"name":"a"})"}, {"step", "3"}};
  io::write_tensors(folder / "meta.safetensors", two);
  FileComparison c = compare_files(folder / "two.safetensors", folder / "meta.safetensors");
  CHECK(c.equal());
  REQUIRE(c.metadata.size() == 1);
  CHECK(c.metadata[0].key == "model.hidden");
  CHECK(c.metadata[0].a == "4");
  two.tensors[1].name = "y";
  two.tensors[0].data[0] ^= std::byte{1};
  io::write_tensors(folder / "other.safetensors", two);
  c = compare_files(folder / "two.safetensors", folder / "other.safetensors");
  CHECK(c.only_a == std::vector<std::string>{"z"});
  CHECK(c.only_b == std::vector<std::string>{"y"});
  CHECK(verdict_of(c).find("first at row 0, column 0 of 'v'") != std::string::npos);
  CHECK(compare_files(folder / "two.safetensors", folder / "other.safetensors", {"z", "y", {}}).equal());
  CHECK(error_of([&] {
          (void)compare_files(folder / "two.safetensors", folder / "other.safetensors", {"v", "w", {}});
        }).find("there are v, y") != std::string::npos);
  CHECK(error_of([&] { (void)compare_files(folder / "v.npy", folder.path.string()); }).find("is a folder") !=
        std::string::npos);
  CHECK(!compare_files(folder / "two.safetensors", folder / "v.npy").equal());
}

TEST_CASE("logs: line and key of the first difference; times count apart; nothing crashes a reader") {
  const Folder folder;
  const std::string a = folder.text(
      "a.jsonl", "{\"step\":1,\"loss\":2.5,\"tokens_per_s\":1}\n{\"step\":2,\"loss\":2.0,\"top\":[1,2]}\n");
  const std::string b = folder.text(
      "b.jsonl", "{\"step\":1,\"loss\":2.5,\"tokens_per_s\":9}\n\n{\"step\":2,\"loss\":2.5,\"top\":[1,3]}\n");
  FileComparison c = compare_files(a, b);
  REQUIRE(c.json);
  CHECK(c.json->differing == 2);
  CHECK(c.json->times == 1);
  CHECK(c.json->first->line == 2);
  CHECK(c.json->first->key == "loss");
  CHECK(c.json->keys.at("loss").max_relative == 0.2);
  CHECK(c.json->keys.at("top").count == 1);
  CHECK(!c.equal());
  CHECK(compare_files(a, a).equal());
  const std::string longer =
      folder.text("c.jsonl", "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2.0,\"top\":[1,2]}\n{}\n");
  CHECK(verdict_of(compare_files(a, longer)) == "differ: 2 lines against 3");
  const std::string deep = folder.text("d.jsonl", std::string(80000, '['));
  CHECK(error_of([&] { (void)compare_files(a, deep); }).find("got deeper ones") != std::string::npos);
  const std::string broken = folder.text("e.jsonl", "{\"step\":1e400}\n");
  CHECK(error_of([&] { (void)compare_files(broken, a); }).find("e.jsonl: line 1: expected numbers that FP64 can hold") !=
        std::string::npos);
  CHECK(!compare_json("{\"x\":0.0}", "{\"x\":-0.0}", false, "a", "b").equal());
  CHECK(!compare_json("{\"x\":1}", "{\"x\":1.0}", false, "a", "b").equal());
  CHECK(compare_json("{\"x\":1,\"y\":null}", "{\"y\":null,\"x\":1}", false, "a", "b").equal());
}

TEST_CASE("folders: files by name; a verdict says NaN that are equal, JSON is JSON") {
  const Folder folder;
  for (const char *side : {"one", "two"}) {
    fs::create_directories(folder.path / side);
    io::TensorFile f;
    f.tensors = {floats({2}, {1, kNan})};
    io::write_tensors((folder.path / side / "w.safetensors").string(), f);
    std::ofstream(folder.path / side / "log.jsonl") << "{\"loss\":1}\n";
  }
  const FileComparison c = compare_files(folder / "one", folder / "two");
  CHECK(c.equal());
  CHECK(c.files.size() == 2);
  CHECK(verdict_of(c) == "equal: all 2 files, 1 NaN among them, with the same bits on both sides");
  std::ofstream(folder.path / "two" / "more.json") << "{}";
  CHECK(!compare_files(folder / "one", folder / "two").equal());
  const std::string json = to_json(c);
  CHECK(json.find("nan_same\":1") != std::string::npos);
  CHECK(json.find('\n') == std::string::npos);
}

} // namespace
} // namespace nvfp4::golden
