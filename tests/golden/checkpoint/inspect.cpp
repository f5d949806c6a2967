// SPDX-License-Identifier: Apache-2.0
// One damage at a time: each is found, named, and nothing else is.
#include "tests/golden/checkpoint/support.hpp"

#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/checkpoint/against.hpp"
#include "nvfp4/golden/checkpoint/inspect.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

using namespace nvfp4;
using namespace nvfp4::checkpoint;
using io::DType;

namespace {

constexpr int64_t kRows = 8, kK = 64;
constexpr const char *kConfig =
    R"({"producer":{"name":"x"},"quantization":{"quant_algo":"NVFP4","kv_cache_quant_algo":null}})";

struct Parts {
  Bytes8 codes = made_codes(kRows, kK, 16, 7), scales = Bytes8(kRows * kK / 16, 0x38);
  float global = 4e-4f, input = 2e-3f;
  std::vector<int64_t> scale_shape = {kRows, kK / 16};
};

/// q_proj, k_proj and a plain norm as ModelOpt stores them; `change` damages k_proj and may take tensors
/// away.
std::vector<Finding> findings_of(const std::function<void(Parts &)> &change,
                                 const std::function<void(std::vector<io::Tensor> &)> &last = {}) {
  Folder folder;
  std::vector<io::Tensor> list{io::Tensor::from("norm.weight", {4}, std::vector<float>{1, 2, 3, 4})};
  for (const char *module : {"q_proj", "k_proj"}) {
    Parts p;
    if (module[0] == 'k') change(p);
    const std::string base = std::string("l.") + module;
    list.push_back(bits(base + ".weight", DType::u8, {kRows, kK / 2}, even_low(p.codes)));
    list.push_back(bits(base + ".weight_scale", DType::f8_e4m3, p.scale_shape, p.scales));
    list.push_back(number(base + ".weight_scale_2", p.global));
    list.push_back(number(base + ".input_scale", p.input));
  }
  if (last) last(list);
  folder.tensors("model.safetensors", list);
  folder.text("hf_quant_config.json", kConfig);
  const Checkpoint c = open_checkpoint(folder.path());
  const Weights weights = find_weights(c);
  std::vector<Finding> findings;
  for (const Weight &w : weights.all) (void)inspect_weight(w, findings);
  for (Finding &f : inspect_together(c, weights)) findings.push_back(f);
  return findings;
}

void check_only(const std::vector<Finding> &findings, std::vector<std::string> kinds) {
  std::vector<std::string> got;
  for (const Finding &f : findings) {
    UNSCOPED_INFO(f.tensor << ": " << f.text);
    CHECK(f.text.find('\n') == std::string::npos);
    if (f.wrong) got.push_back(f.kind);
  }
  std::sort(got.begin(), got.end());
  std::sort(kinds.begin(), kinds.end());
  CHECK(got == kinds);
}

void take_out(std::vector<io::Tensor> &list, const std::string &name) {
  const size_t before = list.size();
  std::erase_if(list, [&](const io::Tensor &t) { return t.name == name; });
  REQUIRE(list.size() == before - 1);
}

} // namespace

TEST_CASE("what is wrong is found, and only that", "[checkpoint]") {
  const auto none = [](Parts &) {};
  check_only(findings_of(none), {});
  check_only(findings_of([](Parts &p) { p.scales[5] = 0x7F; }), {"nan_scales"});
  check_only(findings_of([](Parts &p) { p.scales[5] = 0xFF; }), {"nan_scales", "negative_scales"});
  check_only(findings_of([](Parts &p) { p.scales[5] = 0xB8; }), {"negative_scales"});
  check_only(findings_of([](Parts &p) { p.scales[5] = 0x00; }), {}); // an underflow is a remark
  check_only(findings_of([](Parts &p) { p.global = 1 / p.global; }),
             {"reciprocal_global_scale", "fused_global_scales"});
  check_only(findings_of([](Parts &p) { p.global = std::nextafter(p.global, 1.0f); }),
             {"fused_global_scales"});
  check_only(findings_of([](Parts &p) { p.global = 0; }), {"global_scale", "fused_global_scales"});
  check_only(findings_of([](Parts &p) { p.global = std::nanf(""); }),
             {"global_scale", "fused_global_scales"});
  check_only(findings_of([](Parts &p) { p.input = 1 / p.input; }),
             {"reciprocal_input_scale", "fused_input_scales"});
  check_only(findings_of([](Parts &p) { p.input = -1; }), {"input_scale", "fused_input_scales"});
  check_only(findings_of([](Parts &p) { p.scales.resize(128 * 4), p.scale_shape = {128, 4}; }), {"shape"});
  check_only(findings_of([](Parts &p) {
               p.scales.resize(kRows * 2), p.scale_shape = {kRows, 2};
             }),
             {"shape"});
  check_only(findings_of(none, [](auto &list) { take_out(list, "l.k_proj.input_scale"); }),
             {"missing_input_scale", "fused_input_scales"});
  check_only(findings_of(none, [](auto &list) { take_out(list, "l.k_proj.weight_scale_2"); }),
             {"missing_global_scale", "fused_global_scales"});
  check_only(findings_of(none, [](auto &list) { take_out(list, "l.k_proj.weight_scale"); }),
             {"shape", "orphan", "orphan"});
  check_only(findings_of(none, [](auto &list) { take_out(list, "l.k_proj.weight"); }),
             {"orphan", "orphan", "orphan"});
  check_only(findings_of(none,
                         [](auto &list) {
                           list[0] = io::Tensor::from("norm.weight", {2}, std::vector<float>{1, INFINITY});
                         }),
             {"not_finite"});
  for (const float v : {-1.0f, 0.0f, 0.5f})
    check_only(findings_of(none, [v](auto &list) { list.push_back(number("l.k_proj.k_scale", v)); }),
               v > 0 ? std::vector<std::string>{} : std::vector<std::string>{"kv_scale"});
}

TEST_CASE("padding of tiled scales must be zero", "[checkpoint]") {
  for (const bool damaged : {false, true}) {
    Folder folder;
    Bytes8 tiled = tile_scales(Bytes8(kRows * kK / 16, 0x38), kRows, kK / 16);
    if (damaged) tiled[511] = 1;
    folder.tensors(
        "a.safetensors",
        {bits("a._weight_qdata", DType::u8, {kRows, kK / 2}, even_low(made_codes(kRows, kK, 16, 7))),
         bits("a._weight_scale", DType::f8_e4m3, {32, 16}, tiled)},
        {{"a.weight", R"({"_data":{"is_swizzled_scales":true}})"}});
    const Checkpoint c = open_checkpoint(folder / "a.safetensors");
    const Weights weights = find_weights(c);
    std::vector<Finding> findings;
    (void)inspect_weight(weights.all.at(0), findings);
    check_only(findings, damaged ? std::vector<std::string>{"padding"} : std::vector<std::string>{});
  }
}

TEST_CASE("statistics count what the bytes hold", "[checkpoint]") {
  Folder folder;
  Bytes8 codes(64, 2); // 1.0
  for (int i = 16; i < 32; ++i) codes[size_t(i)] = i % 2 ? 8 : 0;
  codes[33] = 0xF, codes[40] = 0; // -6 and a zero
  folder.tensors("a.safetensors",
                 {bits("a.weight", DType::u8, {1, 32}, even_low(codes)),
                  bits("a.weight_scale", DType::f8_e4m3, {1, 4}, Bytes8{0x38, 0x38, 0x40, 0x7E}),
                  number("a.weight_scale_2", 0.5f)});
  const Checkpoint c = open_checkpoint(folder / "a.safetensors");
  const Weights weights = find_weights(c);
  std::vector<Finding> findings;
  const WeightReport r = inspect_weight(weights.all.at(0), findings);
  REQUIRE(r.blocks);
  CHECK(r.blocks->blocks == 4);
  CHECK(r.blocks->zero_blocks == 1);
  CHECK(r.blocks->zero_codes == 1);
  CHECK(r.blocks->largest_codes == 1);
  CHECK(r.blocks->scale_saturated == 1);
  CHECK(r.blocks->scale_exponents == std::map<int, int64_t>{{0, 2}, {1, 1}, {8, 1}});
  REQUIRE(r.values);
  CHECK(r.values->zero == 17);
  CHECK(r.values->amax == 224); // 448 / 2
  CHECK(r.values->largest.at(0).column == 48);
}

TEST_CASE("a tensor without elements has no columns, however long its rows are said to be", "[checkpoint]") {
  Folder folder;
  folder.tensors("0.safetensors", {{"a.weight", DType::bf16, {0, int64_t(1) << 50}, {}},
                                   {"b.weight", DType::f32, {int64_t(1) << 50, 0}, {}}});
  const Checkpoint c = open_checkpoint(folder.path());
  const Weights weights = find_weights(c);
  REQUIRE(weights.all.size() == 2);
  std::vector<Finding> findings;
  for (const Weight &w : weights.all) {
    const WeightReport report = inspect_weight(w, findings, 1);
    REQUIRE(report.values);
    CHECK(report.values->elements == 0);
    CHECK(report.values->largest.empty());
    CHECK(report.values->amax == 0);
  }
}

TEST_CASE("against the original: the convention that gives the bytes, or what differs", "[checkpoint]") {
  std::vector<float> x(size_t(kRows * kK));
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(int64_t(mix(i) >> 40) - (1 << 23)) * 0x1p-28f;
  x[3] = 1.5f; // an outlier
  for (int i = 16; i < 32; ++i) x[size_t(i)] = 0;
  for (const char *name : {"modelopt", "te", "torchao"}) {
    for (const int damage : {0, 0x01, 0x10}) { // of either nibble
      const bool damaged = damage != 0;
      INFO(name << damage);
      Folder folder;
      BlockScaled q = quantize({x.data(), kRows, kK}, find_convention(name));
      q.codes[100] ^= uint8_t(damage);
      folder.tensors("q.safetensors", {bits("a.weight", DType::u8, {kRows, kK / 2}, q.codes),
                                       bits("a.weight_scale", DType::f8_e4m3, {kRows, kK / 16}, q.scales),
                                       number("a.weight_scale_2", q.global_decode)});
      folder.tensors("x.safetensors", {io::Tensor::from("a.weight", {kRows, kK}, x)});
      const Checkpoint mine = open_checkpoint(folder / "q.safetensors"),
                       original = open_checkpoint(folder / "x.safetensors");
      const Weights a = find_weights(mine), b = find_weights(original);
      const Comparison found = compare_with(a.all.at(0), b.all.at(0), {});
      CHECK(found.snr_db > 15);
      const bool equal = std::any_of(found.equal.begin(), found.equal.end(),
                                     [&](const Reproduction &r) { return r.convention == name; });
      CHECK(equal == !damaged);
      if (!damaged) continue;
      REQUIRE(found.closest);
      CHECK(found.closest->codes_differing >= 1);
      if (found.closest->convention == name) CHECK(found.closest->codes_differing == 1);
      CHECK(found.equal.empty());
    }
  }
}
