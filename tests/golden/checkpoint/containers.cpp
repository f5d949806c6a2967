// SPDX-License-Identifier: Apache-2.0
// Every container's bytes against what they mean by its own description.
#include "tests/golden/checkpoint/support.hpp"

#include "nvfp4/emulator/quantize/scale_layout.hpp"
#include "nvfp4/golden/checkpoint/weight.hpp"

using namespace nvfp4;
using namespace nvfp4::checkpoint;
using io::DType;

namespace {

constexpr int64_t kRows = 5, kK = 192;

struct Opened {
  Checkpoint checkpoint;
  Weights weights;
  explicit Opened(const std::string &path)
      : checkpoint(open_checkpoint(path)), weights(find_weights(checkpoint)) {}
  const Weight &at(const std::string &name) const {
    for (const Weight &w : weights.all)
      if (w.name == name) return w;
    throw Error("no weight " + name);
  }
};

/// Words of the decoded values of matrix `index`, rows asked for in two parts.
void check_values(const Weight &w, int64_t index, const std::vector<double> &expected) {
  REQUIRE(w.faults.empty());
  REQUIRE(w.decodable);
  std::vector<float> got = values(w, index, 0, 2);
  const std::vector<float> rest = values(w, index, 2, w.rows - 2);
  got.insert(got.end(), rest.begin(), rest.end());
  REQUIRE(got.size() == expected.size());
  int64_t differing = 0;
  for (size_t i = 0; i < got.size(); ++i)
    differing += std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(float(expected[i]));
  CHECK(differing == 0);
}

std::vector<double> expected(const Bytes8 &codes, const Bytes8 &scales, int block, double (*scale)(uint8_t),
                             double global) {
  std::vector<double> out(codes.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = e2m1(codes[i]) * scale(scales[i / size_t(block)]) * global;
  return out;
}

} // namespace

TEST_CASE("NVFP4 of every container decodes to its values", "[checkpoint]") {
  Folder folder;
  const Bytes8 codes = made_codes(kRows, kK, 16, 1), scales = made_scales(kRows * kK / 16, 2);
  const auto packed = even_low(codes);
  const float p = 0x1p-9f; // products with a power of two are exact
  const auto wanted = expected(codes, scales, 16, e4m3, p);
  folder.tensors("modelopt.safetensors", {bits("a.weight", DType::u8, {kRows, kK / 2}, packed),
                                          bits("a.weight_scale", DType::f8_e4m3, {kRows, kK / 16}, scales),
                                          number("a.weight_scale_2", p), number("a.input_scale", 0.01f)});
  folder.tensors("ct.safetensors", {bits("a.weight_packed", DType::u8, {kRows, kK / 2}, packed),
                                    bits("a.weight_scale", DType::f8_e4m3, {kRows, kK / 16}, scales),
                                    number("a.weight_global_scale", 1 / p, {1})});
  folder.tensors("ao.safetensors", {bits("a._weight_qdata", DType::u8, {kRows, kK / 2}, packed),
                                    bits("a._weight_scale", DType::f8_e4m3, {kRows, kK / 16}, scales),
                                    number("a._weight_per_tensor_scale", p)});
  folder.tensors("tiled.safetensors",
                 {bits("a._weight_qdata", DType::u8, {kRows, kK / 2}, packed),
                  bits("a._weight_scale", DType::f8_e4m3, {32, 48}, tile_scales(scales, kRows, kK / 16)),
                  number("a._weight_per_tensor_scale", p)},
                 {{"a.weight", R"({"_type":"NVFP4Tensor","_data":{"is_swizzled_scales":true}})"}});
  Bytes8 word(4);
  std::memcpy(word.data(), &p, 4);
  folder.text("a.gguf", made_gguf({{"a.weight", "NVFP4", {kRows, kK}, ggml_blocks(codes, scales, 16, 4)},
                                   {"a.scale", "F32", {1}, word}}));
  const std::pair<const char *, const char *> cases[] = {{"modelopt.safetensors", "modelopt-nvfp4"},
                                                         {"ct.safetensors", "compressed-tensors-nvfp4"},
                                                         {"ao.safetensors", "torchao-nvfp4"},
                                                         {"tiled.safetensors", "torchao-nvfp4"},
                                                         {"a.gguf", "gguf-nvfp4"}};
  for (const auto &[file, kind] : cases) {
    INFO(file);
    const Opened o(folder / file);
    REQUIRE(o.weights.all.size() == 1);
    CHECK(o.weights.orphans.empty());
    const Weight &w = o.at("a.weight");
    CHECK(w.kind() == kind);
    check_values(w, 0, wanted);
    const BlockScaled q = block_scaled(w, 0, 1, kRows - 1); // the same form of all of them
    CHECK(std::equal(q.codes.begin(), q.codes.end(), packed.begin() + kK / 2));
    CHECK(std::equal(q.scales.begin(), q.scales.end(), scales.begin() + kK / 16));
  }
}

TEST_CASE("second-level scales round where each software rounds", "[checkpoint]") {
  Folder folder;
  const Bytes8 codes = made_codes(kRows, kK, 16, 3), scales = made_scales(kRows * kK / 16, 4),
               packed = even_low(codes);
  const float p = 6.337e-4f, g = 1577.3f;
  folder.tensors("m.safetensors", {bits("a.weight", DType::u8, {kRows, kK / 2}, packed),
                                   bits("a.weight_scale", DType::f8_e4m3, {kRows, kK / 16}, scales),
                                   number("a.weight_scale_2", p)});
  folder.tensors("c.safetensors", {bits("a.weight_packed", DType::u8, {kRows, kK / 2}, packed),
                                   bits("a.weight_scale", DType::f8_e4m3, {kRows, kK / 16}, scales),
                                   number("a.weight_global_scale", g, {1})});
  Bytes8 word(4);
  std::memcpy(word.data(), &p, 4);
  folder.text("g.gguf", made_gguf({{"a.weight", "NVFP4", {kRows, kK}, ggml_blocks(codes, scales, 16, 4)},
                                   {"a.scale", "F32", {1}, word}}));
  std::vector<double> multiplied, divided, after;
  for (size_t i = 0; i < codes.size(); ++i) {
    const float v = float(e2m1(codes[i])), sf = float(e4m3(scales[i / 16]));
    multiplied.push_back(v * (sf * p));
    divided.push_back(v * (sf / g));
    after.push_back((v * sf) * p);
  }
  check_values(Opened(folder / "m.safetensors").at("a.weight"), 0, multiplied);
  check_values(Opened(folder / "c.safetensors").at("a.weight"), 0, divided);
  check_values(Opened(folder / "g.gguf").at("a.weight"), 0, after);
}

TEST_CASE("MXFP4 of every container decodes to its values", "[checkpoint]") {
  Folder folder;
  const Bytes8 codes = made_codes(2 * kRows, kK, 32, 5), scales = made_exponents(2 * kRows * kK / 32, 6),
               packed = even_low(codes);
  const auto wanted = expected(codes, scales, 32, e8m0, 1);
  const int64_t rows = 2 * kRows;
  folder.tensors("ct.safetensors", {bits("a.weight_packed", DType::u8, {rows, kK / 2}, packed),
                                    bits("a.weight_scale", DType::u8, {rows, kK / 32}, scales)});
  folder.tensors("ao.safetensors", {bits("a._weight_qdata", DType::u8, {rows, kK / 2}, packed),
                                    bits("a._weight_scale", DType::f8_e8m0, {rows, kK / 32}, scales)});
  folder.tensors("oss.safetensors", {bits("experts.up_blocks", DType::u8, {2, kRows, kK / 32, 16}, packed),
                                     bits("experts.up_scales", DType::u8, {2, kRows, kK / 32}, scales)});
  folder.text("a.gguf", made_gguf({{"a.weight", "MXFP4", {rows, kK}, ggml_blocks(codes, scales, 32, 1)}}));
  for (const char *file : {"ct.safetensors", "ao.safetensors", "a.gguf"}) {
    INFO(file);
    check_values(Opened(folder / file).at("a.weight"), 0, wanted);
  }
  const Opened oss(folder / "oss.safetensors");
  const Weight &experts = oss.at("experts.up");
  CHECK(experts.kind() == "gpt-oss-mxfp4");
  REQUIRE(experts.batch == 2);
  const auto half = wanted.begin() + kRows * kK;
  check_values(experts, 0, {wanted.begin(), half});
  check_values(experts, 1, {half, wanted.end()});
}

TEST_CASE("FP8 under dense scales and Q8_0 decode to their values", "[checkpoint]") {
  Folder folder;
  const int64_t rows = 130, k = 200; // ragged against 128
  Bytes8 codes(size_t(rows * k));
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = uint8_t(mix(i) & 0xFF) == 0x7F || uint8_t(mix(i)) == 0xFF ? 0x08 : uint8_t(mix(i));
  const std::vector<float> tiles = {0.5f, 3.0f, 0x1p-20f, 0.1f}, one = {0.3f};
  std::vector<float> each(static_cast<size_t>(rows));
  for (size_t r = 0; r < each.size(); ++r) each[r] = 0.01f * float(r + 1);
  const auto code = bits("a.weight", DType::f8_e4m3, {rows, k}, codes);
  folder.tensors("tiles.safetensors", {code, io::Tensor::from("a.weight_scale_inv", {2, 2}, tiles)});
  folder.tensors("rows.safetensors", {code, io::Tensor::from("a.weight_scale", {rows, 1}, each)});
  folder.tensors("one.safetensors", {code, io::Tensor::from("a.weight_scale", {}, one)});
  std::vector<double> by_tile, by_row, by_one;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i) {
      const float v = float(e4m3(codes[size_t(r * k + i)]));
      by_tile.push_back(v * tiles[size_t(r / 128 * 2 + i / 128)]);
      by_row.push_back(v * each[size_t(r)]);
      by_one.push_back(v * one[0]);
    }
  const Opened deepseek(folder / "tiles.safetensors");
  CHECK(deepseek.at("a.weight").kind() == "deepseek-fp8");
  check_values(deepseek.at("a.weight"), 0, by_tile);
  check_values(Opened(folder / "rows.safetensors").at("a.weight"), 0, by_row);
  check_values(Opened(folder / "one.safetensors").at("a.weight"), 0, by_one);

  Bytes8 q8;
  std::vector<double> wanted;
  for (int block = 0; block < 12; ++block) { // d = 1 + block / 1024 in FP16, then INT8
    const uint16_t d = uint16_t(0x3C00 + block);
    q8.insert(q8.end(), {uint8_t(d), uint8_t(d >> 8)});
    for (int i = 0; i < 32; ++i) {
      q8.push_back(uint8_t(mix(uint64_t(block * 32 + i))));
      wanted.push_back(int8_t(q8.back()) * (1 + block / 1024.0));
    }
  }
  folder.text("q8.gguf",
              made_gguf({{"a.weight", "Q8_0", {4, 96}, q8}, {"b.weight", "Q4_K", {1, 256}, Bytes8(144)}}));
  const Opened gguf(folder / "q8.gguf");
  check_values(gguf.at("a.weight"), 0, wanted);
  CHECK_FALSE(gguf.at("b.weight").decodable); // named, not decoded
  CHECK(gguf.at("b.weight").kind() == "Q4_K");
}
