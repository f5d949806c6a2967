// SPDX-License-Identifier: Apache-2.0
// The golden library: text format, manifest, verification that really fails, quantized files.
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/cases/element.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/manifest.hpp"
#include "nvfp4/golden/quantize_case.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "nvfp4/golden/verify.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>

using namespace nvfp4;
using golden::TextFile;

namespace {

const char *const kCase = "# nvfp4 golden 1\n"
                          "# kind: mma\n"
                          "# unit: sm_90:wgmma.k8.f32.tf32\n"
                          "# provenance: exact\n"
                          "# columns: class a b c d\n"
                          "one 3f80000000000000000000000000000000000000000000000000000000000000 "
                          "4000000000000000000000000000000000000000000000000000000000000000 3f800000 40400000\n";

} // namespace

TEST_CASE("golden text: what is written is read again", "[golden]") {
  const TextFile f = golden::parse_text(kCase, "case.txt");
  CHECK(golden::format_text(f) == kCase);
  CHECK(f.require("unit") == "sm_90:wgmma.k8.f32.tf32");
  CHECK(f.rows.size() == 1);
  CHECK_THROWS_WITH(f.require("driver"), Catch::Contains("case.txt: header has no 'driver'"));
}

TEST_CASE("golden text: broken files name file and line", "[golden]") {
  CHECK_THROWS_WITH(golden::parse_text("hello\n", "x.txt"), Catch::Contains("x.txt: not a golden text file"));
  CHECK_THROWS_WITH(golden::parse_text("", "x.txt"), Catch::Contains("x.txt: empty"));
  CHECK_THROWS_WITH(golden::parse_text(std::string(kCase) + "two 00\n", "x.txt"), Catch::Contains("x.txt:7: expected 5 columns, got 2"));
  CHECK(golden::parse_text(std::string(kCase) + "  \n", "x.txt").rows.size() == 1); // found by the fuzzer
  CHECK_THROWS_WITH(golden::parse_text(std::string(kCase) + " # a b c d\n", "x.txt"), Catch::Contains("x.txt:7: a header line"));
  CHECK_THROWS_WITH(golden::parse_hex_words("12x4", 16, "x.txt: case 1"), Catch::Contains("'x' is not a hex digit"));
  CHECK_THROWS_WITH(golden::parse_hex_words("123", 16, "x.txt: case 1"), Catch::Contains("whole words"));
}

TEST_CASE("verification finds one wrong bit", "[golden][mutation]") {
  TextFile f = golden::parse_text(kCase, "case.txt");
  CHECK(golden::verify_text(f, {}).mismatches == 0);
  golden::VerifyOptions oracle;
  oracle.oracle = true;
  CHECK(golden::verify_text(f, oracle).mismatches == 0);
  f.rows[0][4] = "40400001";
  for (const bool by_oracle : {false, true}) {
    oracle.oracle = by_oracle;
    const golden::Verdict v = golden::verify_text(f, oracle);
    CHECK(v.mismatches == 1);
    CHECK(v.first == "case 1 (one): expected 40400001, computed 40400000");
  }
  f.rows[0][1] = f.rows[0][1].substr(8);
  CHECK_THROWS_WITH(golden::verify_text(f, {}), Catch::Contains("K of a and b"));
}

TEST_CASE("all accumulation models give the published words of a B200, by reference and oracle", "[golden]") {
  const golden::Manifest m = golden::read_manifest(golden::find_golden_folder());
  size_t cases = 0;
  for (const golden::Entry &e : m.entries) {
    if (e.provenance != golden::Provenance::published) continue;
    INFO(e.file);
    CHECK(e.source.find("sf-tensor/tcgen05 @") == 0);
    cases += e.cases;
    for (const Accumulation model : enumerators<Accumulation>())
      for (const bool oracle : {false, true}) {
        golden::VerifyOptions options;
        options.accumulation = model;
        options.oracle = oracle;
        CHECK(golden::verify_file(m.folder + "/" + e.file, options).mismatches == 0);
      }
  }
  CHECK(cases == 51);
}

TEST_CASE("a digest sees one different conversion", "[golden][mutation]") {
  const std::string header = "# nvfp4 golden 1\n# kind: convert-digest\n# conversion: cvt.rn.bf16.f32\n# columns: chunk digest\n";
  // the 64th row is always in the sample
  std::string rows;
  for (int i = 0; i < 64; ++i) rows += "3f 0000000000000000\n";
  const golden::Verdict v = golden::verify_text(golden::parse_text(header + rows, "d.txt"), {});
  CHECK(v.mismatches == 1);
}

TEST_CASE("quantized tensors survive the file", "[golden]") {
  std::vector<float> x(48 * 80);
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(int(i * 7919 % 257) - 128) / 32.0f;
  const MatrixView<const float> view(x.data(), 48, 80);
  for (const Convention &c : conventions())
    for (const Axis axis : {Axis::row, Axis::col})
      for (const ScaleLayout layout : {ScaleLayout::linear, ScaleLayout::tiled_128x4}) {
        INFO(c.name);
        QuantizeOptions o;
        o.axis = axis;
        o.layout = layout;
        const BlockScaled q = quantize(view, c, o);
        const BlockScaled back = golden::from_file(golden::to_file(q));
        CHECK(back.codes == q.codes);
        CHECK(back.scales == q.scales);
        CHECK(dequantize(back) == dequantize(q));
      }
  io::TensorFile f = golden::to_file(quantize(view, find_convention("te")));
  f.source = "q.safetensors";
  f.metadata["k"] = "81";
  CHECK_THROWS_WITH(golden::from_file(f), Catch::Contains("q.safetensors: tensor 'codes'"));
  f.metadata["k"] = "-1";
  CHECK_THROWS_WITH(golden::from_file(f), Catch::Contains("metadata 'k' = '-1'"));
  f.metadata["format"] = "something else";
  CHECK_THROWS_WITH(golden::from_file(f), Catch::Contains("not a quantized tensor"));
}

TEST_CASE("a matrix has the codec's word of every code, of a few elements as of many", "[golden]") {
  for (const auto &[dtype, id] : {std::pair{io::DType::bf16, FormatId::bf16}, {io::DType::f16, FormatId::f16},
                                  {io::DType::f8_e4m3, FormatId::e4m3}, {io::DType::f8_e5m2, FormatId::e5m2}}) {
    const int bits = format(id).storage_bits;
    for (const int64_t count : {int64_t{16}, int64_t{4} << bits}) {
      const int64_t first = count < 256 ? (int64_t{1} << bits) - count : 0; // NaN of every sign among the few
      io::Tensor t{"x", dtype, {count / 16, 16}, std::vector<std::byte>(size_t(count * bits / 8))};
      for (int64_t i = 0; i < count; ++i) {
        const auto code = uint16_t(first + i);
        std::memcpy(t.data.data() + i * bits / 8, &code, size_t(bits / 8));
      }
      const golden::DenseMatrix m = golden::to_matrix(t, "file");
      int64_t wrong = 0;
      for (int64_t i = 0; i < count; ++i)
        wrong += bit_cast<uint32_t>(m.values[size_t(i)]) !=
                 bit_cast<uint32_t>(value_f32(id, uint64_t(first + i) & ((uint64_t{1} << bits) - 1)));
      INFO(format(id).name << ", " << count << " elements");
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("golden quantizer cases know a given amax and refuse keys that nobody reads", "[golden]") {
  QuantizeOptions o;
  o.global_amax = 10.0f;
  const std::string text = golden::to_json(o);
  CHECK(text.find("\"global_amax\":\"41200000\"") != std::string::npos);
  const QuantizeOptions back = golden::options_from_json(text, "f");
  REQUIRE(back.global_amax);
  CHECK(*back.global_amax == 10.0f);
  CHECK(!back.global_scale);
  std::string misspelt = text;
  misspelt.replace(misspelt.find("global_amax"), 11, "global_amux");
  CHECK_THROWS_WITH(golden::options_from_json(misspelt, "f"), Catch::Contains("f: unknown key 'global_amux'; known are axis"));

  // a file with such a case, and with no case at all
  std::vector<float> x(4 * 64);
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(int(i * 7919 % 257) - 128) / 32.0f;
  const BlockScaled q = quantize({x.data(), 4, 64}, find_convention("te"), o);
  io::TensorFile f;
  f.tensors = {io::Tensor::from("n.input", {4, 64}, x), io::Tensor::from("n.k.codes", {4, 32}, q.codes),
               io::Tensor::from("n.k.block_scales", {4, 4}, q.scales),
               io::Tensor::from("n.k.global_amax", {1}, std::vector<float>{10.0f})};
  f.metadata = {{"kind", "quantize"}, {"subject", "te"}, {"provenance", "model"}, {"cases", "1"}, {"case.n.k", text}};
  const std::string folder = std::filesystem::temp_directory_path() / "nvfp4_golden_amax";
  std::filesystem::create_directories(folder);
  const std::string path = folder + "/amax.safetensors";
  io::write_tensors(path, f);
  golden::Verdict v = golden::verify_file(path, {});
  CHECK(v.cases == 1);
  CHECK(v.mismatches == 0);
  f.metadata.erase("case.n.k");
  io::write_tensors(path, f);
  CHECK_THROWS_WITH(golden::verify_file(path, {}), Catch::Contains("holds no cases"));

  const std::string manifest = R"({"format": "nvfp4-golden-1", "files": [], "note": ""})";
  io::write_file_atomically(folder + "/manifest.json", std::as_bytes(std::span(manifest)));
  CHECK_THROWS_WITH(golden::read_manifest(folder), Catch::Contains("unknown key 'note'"));
  std::filesystem::remove_all(folder);
}

TEST_CASE("inputs of integers and of every other element are what the emulator reads", "[golden]") {
  for (int e = 0; e < golden::cases::kElements; ++e) {
    const golden::cases::ElementFormat &f = golden::cases::format_of(golden::cases::Element(e));
    INFO(f.name);
    const std::optional<FormatId> id = find_format(f.name);
    REQUIRE(id);
    if (f.bits > 16) continue;
    for (uint64_t code = 0; code < uint64_t{1} << format(*id).code_bits; ++code) {
      const double v = golden::cases::decode(f, code), want = value(*id, code);
      REQUIRE((v == want || (v != v && want != want)));
      uint64_t back = 0;
      if (!std::isfinite(v) || (f.complement && code == golden::cases::sign_bit(f))) continue; // the lowest is not made
      REQUIRE(golden::cases::encode_exact(f, v, back));
      REQUIRE(back == code);
      if (format(*id).has_sign && v != 0) REQUIRE(golden::cases::decode(f, golden::cases::negated(f, code)) == -v);
    }
  }
}
