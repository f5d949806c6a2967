// SPDX-License-Identifier: Apache-2.0
// Bad files are refused in one line that says where and why.
#include "tests/golden/checkpoint/support.hpp"

#include "nvfp4/golden/checkpoint/weight.hpp"

using namespace nvfp4;
using namespace nvfp4::checkpoint;
using io::DType;

namespace {

void check_open(const std::string &path, const std::string &part) {
  check_refused([&] { (void)open_checkpoint(path); }, part);
}

io::Tensor small(const char *name) { return io::Tensor::from(name, {2}, std::vector<float>{1, 2}); }

std::string gguf() {
  return made_gguf({{"a.weight", "NVFP4", {2, 64}, Bytes8(72)}, {"b", "F32", {3}, Bytes8(12)}});
}

/// The file with `size` bytes at `at` replaced by those of a number.
template <class T> std::string with(std::string file, size_t at, T value) {
  REQUIRE(at + sizeof value <= file.size());
  std::memcpy(file.data() + at, &value, sizeof value);
  return file;
}

} // namespace

TEST_CASE("an index and its shards must fit", "[checkpoint]") {
  Folder folder;
  const std::string index = "model.safetensors.index.json";
  const auto with_map = [&](const std::string &map) { folder.text(index, R"({"weight_map":)" + map + "}"); };
  folder.tensors("1.safetensors", {small("a"), small("b")});
  folder.tensors("2.safetensors", {small("c")});
  with_map(R"({"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"})");
  CHECK(open_checkpoint(folder.path()).tensors.size() == 3);
  CHECK(open_checkpoint(folder / index).tensors.size() == 3);
  with_map(R"({"a":"1.safetensors","c":"2.safetensors"})");
  CHECK(open_checkpoint(folder.path()).not_in_index == std::vector<std::string>{"b"});
  with_map(R"({"a":"1.safetensors","z":"2.safetensors"})");
  check_open(folder.path(), "holds 'z', but it does not");
  with_map(R"({"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors"})"); // it is in the other
  check_open(folder.path(), "holds 'b', but it does not");
  with_map(R"({"a":"2.safetensors"})");
  check_open(folder.path(), "holds 'a', but it does not");
  with_map(R"({"a":"3.safetensors"})");
  check_open(folder.path(), "3.safetensors: cannot open: No such file");
  with_map(R"({"a":"../1.safetensors"})");
  check_open(folder.path(), "expected files of its own folder");
  with_map(R"({"a":".."})");
  check_open(folder.path(), "expected files of its own folder");
  with_map("{\"a\":\"" + index + "\"}"); // itself
  check_open(folder.path(), index);
  with_map(R"({"a":7})");
  check_open(folder.path(), "names no file");
  with_map("[]");
  check_open(folder.path(), "weight_map");
  folder.text(index, R"({"weight_map":{)");
  check_open(folder.path(), "broken JSON");
  folder.text(index, std::string(100'000, '['));
  check_open(folder.path(), "expected a JSON object");
  folder.text(index, R"({"x":)" + std::string(1000, '[') + std::string(1000, ']') + "}");
  check_open(folder.path(), "nested too deep");
  with_map(R"({"a":"1.safetensors","c":"2.safetensors"})");
  folder.tensors("2.safetensors", {small("c"), small("a")});
  check_open(folder.path(), "stands in another file");
  const std::string whole = content(folder / "2.safetensors");
  for (size_t size = 1; size < whole.size(); size += 7) {
    folder.text("2.safetensors", whole.substr(0, size));
    check_open(folder.path(), "2.safetensors");
  }
  folder.text("2.safetensors", "");
  check_open(folder.path(), "is empty");
  folder.text("2.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  check_open(folder.path(), "Git LFS pointer");
  fs::remove(folder / "2.safetensors");
  fs::create_symlink("2.safetensors", folder / "2.safetensors");
  check_open(folder.path(), "2.safetensors: cannot open: Too many levels of symbolic links");
  Folder none;
  check_open(none.path(), "expected model.safetensors.index.json");
  check_open(none / "nothing", "cannot open");
  check_open("/dev/null", "regular file");
}

TEST_CASE("a lying GGUF file is refused", "[checkpoint]") {
  Folder folder;
  const std::string whole = gguf();
  folder.text("a.gguf", whole);
  REQUIRE(open_checkpoint(folder / "a.gguf").tensors.size() == 2);
  const auto check = [&](const std::string &file, const std::string &part) {
    folder.text("a.gguf", file);
    check_open(folder / "a.gguf", part);
  };
  // magic 4, version 4, tensors 8, pairs 8; the pair: 8 + 20 bytes of key, type 4, 8 + 5 bytes; the first
  // tensor's info
  constexpr size_t info = 24 + 8 + 20 + 4 + 8 + 5, name = 8 + 8, axes = info + name;
  check(with(whole, 4, uint32_t(1)), "version 2 or 3");
  check(with(whole, 4, uint32_t(0x03000000)), "version 2 or 3"); // big endian
  check(with(whole, 8, UINT64_MAX), "number of tensors");
  check(with(whole, 8, uint64_t(1) << 60), "number of tensors");
  check(with(whole, 8, uint64_t(3)), "a.gguf");
  check(with(whole, 16, UINT64_MAX), "number of key-value pairs");
  check(with(whole, 24, UINT64_MAX), "cut short or damaged");
  check(with(whole, 24 + 28, uint32_t(13)), "type 13");
  check(with(whole, axes, uint32_t(5)), "at most 4 axes");
  check(with(whole, axes + 4, uint64_t(65)), "blocks of 64");
  check(with(whole, axes + 4, UINT64_MAX), "length");
  check(with(whole, axes + 12, uint64_t(1) << 57), "more elements than 64 bits");
  check(with(whole, axes + 12, uint64_t(1) << 50), "cut short or damaged");
  check(with(whole, axes + 20, uint32_t(999)), "number 999");
  check(with(whole, axes + 24, uint64_t(16)), "multiple of the alignment");
  check(with(whole, axes + 24, uint64_t(1) << 40), "cut short or damaged");
  check(with(whole, axes + 32 + 9 + 16, uint64_t(64)), "overlap");
  check(with(whole, info + 8, 'b').replace(info + 8, 8, "a.weight").substr(0, 40), "a.gguf");
  for (size_t size = 1; size + 32 < whole.size(); ++size) check(whole.substr(0, size), "a.gguf");
  std::string arrays = "GGUF"; // arrays of arrays of arrays
  const auto put = [&](auto v) { arrays.append(reinterpret_cast<const char *>(&v), sizeof v); };
  put(uint32_t(3)), put(uint64_t(0)), put(uint64_t(1)), put(uint64_t(1)), arrays += 'k', put(uint32_t(9));
  for (int i = 0; i < 1000; ++i) put(uint32_t(9)), put(uint64_t(1));
  check(arrays, "more than 4 deep");
}

TEST_CASE("weights whose parts do not fit are faults, not crashes", "[checkpoint]") {
  Folder folder;
  const auto fault = [&](std::vector<io::Tensor> list) {
    folder.tensors("a.safetensors", std::move(list));
    const Checkpoint c = open_checkpoint(folder / "a.safetensors");
    const Weights w = find_weights(c);
    REQUIRE_FALSE(w.all.empty());
    CHECK_FALSE(w.all.front().faults.empty());
    CHECK_FALSE((w.all.front().container && w.all.front().decodable));
  };
  const auto codes = [](std::vector<int64_t> shape, size_t n) {
    return bits("a.weight", DType::u8, std::move(shape), Bytes8(n));
  };
  const auto scales = [](std::vector<int64_t> shape, size_t n) {
    return bits("a.weight_scale", DType::f8_e4m3, std::move(shape), Bytes8(n));
  };
  fault({codes({2, 7}, 14), scales({2, 1}, 2)});
  fault({codes({2, 8}, 16), scales({2, 2}, 4)});
  fault({codes({2, 8}, 16), scales({1, 2}, 2)});
  fault({codes({2, 8}, 16), scales({2}, 2)});
  fault({codes({2, 8}, 16), scales({}, 1)});
  fault({codes({16}, 16), scales({2}, 2)});
  fault({codes({int64_t{1} << 40, int64_t{1} << 20, 0}, 0), scales({0}, 0)});
  fault({codes({2, 8}, 16), scales({2, 1}, 2),
         io::Tensor::from("a.weight_scale_2", {2}, std::vector<float>{1, 2})});
  fault({codes({2, 8}, 16), scales({2, 1}, 2), bits("a.weight_scale_2", DType::u8, {1}, Bytes8(1))});
  fault({codes({2, 8}, 16)});
  fault({bits("a_blocks", DType::u8, {2, 3}, Bytes8(6)), bits("a_scales", DType::u8, {2}, Bytes8(2))});
  fault({bits("a.weight", DType::f8_e4m3, {4, 4}, Bytes8(16)),
         io::Tensor::from("a.weight_scale", {3}, std::vector<float>{1, 2, 3})});
}
