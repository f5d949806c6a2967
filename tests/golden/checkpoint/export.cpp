// SPDX-License-Identifier: Apache-2.0
// Codes and block scales move untouched, files come back byte for byte, and what a container cannot hold is
// refused.
#include "tests/golden/checkpoint/support.hpp"

#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/checkpoint/against.hpp"
#include "nvfp4/golden/checkpoint/export.hpp"

#include <algorithm>

using namespace nvfp4;
using namespace nvfp4::checkpoint;
using io::DType;

namespace {

constexpr int64_t kRows = 8, kK = 128;

ExportReport write(const std::string &from, const std::string &to, Target target,
                   const std::string &convention = {}, bool exact = false) {
  ExportOptions o;
  o.target = target;
  o.convention = convention;
  o.exact = exact;
  return export_checkpoint(open_checkpoint(from), to, o);
}

/// A ModelOpt folder with an outlier, zero scales and a global scale whose reciprocal does not come back.
void make_modelopt(const Folder &folder, float global, uint8_t last_scale = 0x7E) {
  Bytes8 scales = made_scales(kRows * kK / 16, 9);
  scales.back() = last_scale;
  fs::create_directories(folder / "m");
  folder.tensors("m/model.safetensors",
                 {bits("l.q_proj.weight", DType::u8, {kRows, kK / 2}, even_low(made_codes(kRows, kK, 16, 8))),
                  bits("l.q_proj.weight_scale", DType::f8_e4m3, {kRows, kK / 16}, scales),
                  number("l.q_proj.weight_scale_2", global), number("l.q_proj.input_scale", 0.0123f),
                  io::Tensor::from("norm.weight", {3}, std::vector<float>{1, -0.0f, 3e-41f})});
  folder.text("m/config.json", R"({"model_type":"qwen3","hidden_size":128})");
  folder.text("m/hf_quant_config.json", R"({"quantization":{"quant_algo":"NVFP4"}})");
  folder.text("m/tokenizer.json", "{}");
}

float not_returning() {
  float g = 4.1e-4f;
  while (1.0f / (1.0f / g) == g) g = std::nextafter(g, 1.0f);
  return g;
}

} // namespace

TEST_CASE("containers give back each other's files byte for byte", "[checkpoint]") {
  Folder folder;
  make_modelopt(folder, not_returning());
  CHECK(write(folder / "m", folder / "m2", Target::modelopt).carried == 1);
  for (const char *name : {"model.safetensors", "config.json", "hf_quant_config.json", "tokenizer.json"})
    CHECK(content(folder / (std::string("m2/") + name)).size() > 0);
  CHECK(content(folder / "m2/config.json") == content(folder / "m/config.json"));
  const ExportReport there = write(folder / "m2", folder / "c", Target::compressed_tensors);
  CHECK(there.inverted == 1);
  CHECK(content(folder / "c/config.json").find("nvfp4-pack-quantized") != std::string::npos);
  (void)write(folder / "c", folder / "c2", Target::compressed_tensors); // keeps what it knows of the first
  (void)write(folder / "c2", folder / "g.gguf", Target::gguf);
  (void)write(folder / "g.gguf", folder / "g2.gguf", Target::gguf);
  (void)write(folder / "c2", folder / "m3", Target::modelopt);
  (void)write(folder / "m2", folder / "mg.gguf", Target::gguf);
  (void)write(folder / "mg.gguf", folder / "m4", Target::modelopt);
  CHECK(content(folder / "c/model.safetensors") == content(folder / "c2/model.safetensors"));
  CHECK(content(folder / "g.gguf") == content(folder / "g2.gguf"));
  CHECK(content(folder / "m2/model.safetensors") == content(folder / "m3/model.safetensors"));
  CHECK(content(folder / "m2/model.safetensors") == content(folder / "m4/model.safetensors"));
  const Checkpoint a = open_checkpoint(folder / "m"), b = open_checkpoint(folder / "c");
  CHECK(std::ranges::equal(a.find("l.q_proj.weight")->bytes, b.find("l.q_proj.weight_packed")->bytes));
  CHECK(std::ranges::equal(a.find("l.q_proj.weight_scale")->bytes, b.find("l.q_proj.weight_scale")->bytes));
  float p = 0, g = 0;
  std::memcpy(&p, a.find("l.q_proj.weight_scale_2")->bytes.data(), 4);
  std::memcpy(&g, b.find("l.q_proj.weight_global_scale")->bytes.data(), 4);
  CHECK(g == 1.0f / p); // as compressed-tensors' own converter of ModelOpt files has it
}

TEST_CASE("exact export passes powers of two and refuses what rounds otherwise", "[checkpoint]") {
  Folder folder;
  make_modelopt(folder, 0x1p-11f);
  CHECK(write(folder / "m", folder / "c", Target::compressed_tensors, "", true).values_apart == 0);
  make_modelopt(folder, not_returning());
  check_refused([&] { (void)write(folder / "m", folder / "d", Target::compressed_tensors, "", true); },
                "inverted");
  CHECK_FALSE(fs::exists(folder / "d"));
  CHECK(write(folder / "m", folder / "d", Target::compressed_tensors).values_apart == 1);
}

TEST_CASE("a container that divides gets the reciprocal of conventions that have p alone", "[checkpoint]") {
  Folder folder;
  std::vector<float> x(size_t(kRows * kK));
  for (size_t i = 0; i < x.size(); ++i) // log-normal-like, with outliers and zeros
    x[i] = mix(i) % 11 == 0 ? 0.0f : std::ldexp(float(int64_t(mix(i) % 4096) - 2048), -16 - int(mix(i + 77) % 9));
  x[37] = 3.7f;
  folder.tensors("x.safetensors", {io::Tensor::from("l.q_proj.weight", {kRows, kK}, x)});
  int apart = 0, same = 0;
  for (const std::string name : {"modelopt", "torchao", "metis-nvfp4", "quartet2-eden", "alto-nvfp4"}) {
    CAPTURE(name);
    const BlockScaled q = quantize({x.data(), kRows, kK}, find_convention(name), {});
    REQUIRE(q.global_encode == 1.0f); // unused
    const ExportReport r = write(folder / "x.safetensors", folder / ("c-" + name), Target::compressed_tensors, name);
    CHECK(r.quantized == 1);
    CHECK(r.inverted == 1);
    const Checkpoint c = open_checkpoint(folder / ("c-" + name));
    float word = 0;
    std::memcpy(&word, c.find("l.q_proj.weight_global_scale")->bytes.data(), 4);
    CHECK(word == 1.0f / q.global_decode);
    // what a reader of the container makes of it
    const std::vector<float> got = values(find_weights(c).all.front(), 0, 0, kRows), want = dequantize(q);
    double worst = 0;
    for (size_t i = 0; i < want.size(); ++i)
      worst = std::max(worst, want[i] == 0 ? std::fabs(double(got[i])) : std::fabs(double(got[i]) / double(want[i]) - 1));
    CHECK(worst < 1e-6);
    // and the way back
    (void)write(folder / ("c-" + name), folder / ("m-" + name), Target::modelopt);
    const Checkpoint back = open_checkpoint(folder / ("m-" + name));
    std::memcpy(&word, back.find("l.q_proj.weight_scale_2")->bytes.data(), 4);
    CHECK(word == q.global_decode);
    // values are the same words where p comes back from its reciprocal and the rule multiplies in the reader's order
    if (got != want) CHECK(r.values_apart == 1);
    const auto exactly = [&] { (void)write(folder / "x.safetensors", folder / ("e-" + name), Target::compressed_tensors, name, true); };
    if (r.values_apart == 1)
      check_refused(exactly, "has to be inverted");
    else
      exactly();
    (r.values_apart == 1 ? apart : same) += 1;
    CHECK(write(folder / "x.safetensors", folder / ("mm-" + name), Target::modelopt, name, true).inverted == 0);
  }
  CHECK(apart > 0);
  CHECK(same > 0);
  folder.tensors("zero.safetensors", {io::Tensor::from("l.q_proj.weight", {kRows, kK}, std::vector<float>(x.size()))});
  check_refused([&] { (void)write(folder / "zero.safetensors", folder / "z", Target::compressed_tensors, "torchao"); },
                "no finite positive reciprocal");
}

TEST_CASE("export refuses with the reason and leaves nothing", "[checkpoint]") {
  Folder folder;
  make_modelopt(folder, 0x1p-11f, 0x7F);
  check_refused([&] { (void)write(folder / "m", folder / "x.gguf", Target::gguf); }, "block scale is NaN");
  make_modelopt(folder, 0x1p-11f, 0xB8);
  check_refused([&] { (void)write(folder / "m", folder / "x.gguf", Target::gguf); }, "sign bit");
  make_modelopt(folder, 0.0f);
  check_refused([&] { (void)write(folder / "m", folder / "x", Target::compressed_tensors); },
                "no finite positive reciprocal");
  make_modelopt(folder, 0x1p-11f);
  check_refused([&] { (void)write(folder / "m", folder / "m", Target::modelopt); }, "exists already");
  folder.tensors("mx.safetensors", {bits("a.weight_packed", DType::u8, {2, 16}, Bytes8(32)),
                                    bits("a.weight_scale", DType::u8, {2, 1}, Bytes8(2))});
  check_refused([&] { (void)write(folder / "mx.safetensors", folder / "x", Target::modelopt); },
                "cannot hold");
  folder.tensors("k80.safetensors",
                 {bits("a.weight", DType::u8, {2, 40}, Bytes8(80)),
                  bits("a.weight_scale", DType::f8_e4m3, {2, 5}, Bytes8(10)), number("a.weight_scale_2", 1)});
  check_refused([&] { (void)write(folder / "k80.safetensors", folder / "x.gguf", Target::gguf); },
                "multiple of 64");
  folder.tensors("k100.safetensors",
                 {io::Tensor::from("a_proj.weight", {1, 100}, std::vector<float>(100, 1.0f))});
  check_refused([&] { (void)write(folder / "k100.safetensors", folder / "x", Target::modelopt); },
                "whole number of blocks");
  check_refused([&] { (void)write(folder / "k100.safetensors", folder / "x", Target::modelopt, "mxfp4"); },
                "does not hold");
  for (const char *name : {"x", "x.gguf"}) CHECK_FALSE(fs::exists(folder / name));
  for (const auto &entry : fs::directory_iterator(folder.path()))
    CHECK(entry.path().string().find("partial") == std::string::npos);
}

TEST_CASE("numbers are quantized by a convention, fused modules under one global scale", "[checkpoint]") {
  Folder folder;
  std::vector<float> q(size_t(kRows * kK)), k(q.size());
  for (size_t i = 0; i < q.size(); ++i)
    q[i] = round_to_bf16(float(int64_t(mix(i) % 4096) - 2048) / 65536),
    k[i] = round_to_bf16(float(int64_t(mix(i + 9999) % 4096) - 2048) / 4096);
  const auto words = [](const std::vector<float> &x) {
    std::vector<uint16_t> out;
    for (const float v : x) out.push_back(bf16_word(v));
    return out;
  };
  folder.tensors("x.safetensors",
                 {io::Tensor::from_bits("l.q_proj.weight", DType::bf16, {kRows, kK}, words(q)),
                  io::Tensor::from_bits("l.k_proj.weight", DType::bf16, {kRows, kK}, words(k)),
                  io::Tensor::from_bits("embed.weight", DType::bf16, {kRows, kK}, words(q))});
  for (const Target target : {Target::modelopt, Target::compressed_tensors}) {
    const std::string out = folder / (std::string("out-") + std::string(to_string(target)));
    const ExportReport r = write(folder / "x.safetensors", out, target, "te");
    CHECK(r.quantized == 2);
    CHECK(r.copied == 1);
    const Checkpoint c = open_checkpoint(out), original = open_checkpoint(folder / "x.safetensors");
    const Weights made = find_weights(c), from = find_weights(original);
    CHECK(inspect_together(c, made).empty());
    const auto at = [](const Weights &list, const char *name) -> const Weight & {
      return *std::find_if(list.all.begin(), list.all.end(), [&](const Weight &w) { return w.name == name; });
    };
    AgainstOptions o;
    o.convention = "te";
    o.fused_amax = largest_magnitude(at(from, "l.k_proj.weight"));
    const Comparison fused = compare_with(at(made, "l.q_proj.weight"), at(from, "l.q_proj.weight"), o);
    REQUIRE(fused.equal.size() == 1);
    CHECK(fused.equal[0].amax == "fused");
    CHECK(fused.equal[0].global_equal);
    CHECK(compare_with(at(made, "l.k_proj.weight"), at(from, "l.k_proj.weight"), o).equal.size() == 1);
  }
  const ExportReport back = write(folder / "out-modelopt", folder / "bf16", Target::hf_bf16);
  CHECK(back.dequantized == 2);
  const Checkpoint dense = open_checkpoint(folder / "bf16"),
                   source = open_checkpoint(folder / "out-modelopt");
  const Weights sources = find_weights(source);
  const auto *w = dense.find("l.q_proj.weight");
  REQUIRE(w);
  const std::vector<float> wanted =
      values(*std::find_if(sources.all.begin(), sources.all.end(),
                           [](const Weight &v) { return v.name == "l.q_proj.weight"; }),
             0, 0, kRows);
  int64_t differing = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    uint16_t word = 0;
    std::memcpy(&word, w->bytes.data() + 2 * i, 2);
    differing += word != bf16_word(wanted[i]);
  }
  CHECK(differing == 0);
  CHECK(dense.config.method.empty());
}
