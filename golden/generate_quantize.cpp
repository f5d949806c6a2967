// SPDX-License-Identifier: Apache-2.0
// The inputs and options of the quantizer cases.
#include "nvfp4/golden/generate_quantize.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantize_case.hpp"

#include <cmath>
#include <filesystem>
#include <limits>

namespace nvfp4::golden {
namespace {

struct Input {
  std::string name;
  int64_t rows, cols;
  std::vector<float> values;
};

float bf16(double x) { return round_to_bf16(float(x)); }

/// A bell-shaped value in BF16 from the random words of one index: twelve uniform bytes, no libm in it.
float bell(RandomKey key, uint64_t i) {
  int sum = 0;
  for (uint64_t n = 0; n < 12; ++n) sum += int(key.bits8(12 * i + n));
  return bf16((sum - 1530) / 256.0);
}

Input filled(const std::string &name, float value) { return {name, 16, 32, std::vector<float>(16 * 32, value)}; }

/// Ordinary values, values with hot columns, and everything degenerate. All are BF16 values in FP32.
std::vector<Input> inputs() {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<Input> list;
  const auto noise = [](const std::string &name, int64_t rows, int64_t cols, uint64_t seed) {
    Input in{name, rows, cols, {}};
    for (uint64_t i = 0; i < uint64_t(rows * cols); ++i) in.values.push_back(bell({seed, 0}, i));
    return in;
  };
  list.push_back(noise("bell", 32, 64, 1));
  list.push_back(noise("ragged", 19, 45, 2));
  Input hot = noise("hot_columns", 32, 64, 3);
  for (size_t i = 0; i < hot.values.size(); ++i) hot.values[i] = bf16(double(hot.values[i]) * (i % 64 % 23 == 5 ? 64 : 0.125));
  list.push_back(hot);
  Input wide = noise("wide", 32, 64, 4);
  for (size_t i = 0; i < wide.values.size(); ++i) wide.values[i] = bf16(std::ldexp(double(wide.values[i]), int(i / 16 % 41) - 20));
  list.push_back(wide);
  Input steps{"code_boundaries", 16, 64, {}}; // one block spans 0..6 and back in steps that meet every tie
  for (int i = 0; i < 16 * 64; ++i) steps.values.push_back(bf16((i % 2 == 0 ? 1 : -1) * (i % 16 == 0 ? 6.0 : 0.25 * (i % 25))));
  list.push_back(steps);

  list.push_back(filled("zeros", 0.0f));
  list.push_back(filled("minus_zeros", -0.0f));
  Input one = noise("zero_blocks", 16, 64, 5);
  for (size_t i = 0; i < one.values.size(); ++i)
    if (i / 16 % 3 == 1) one.values[i] = i % 2 == 0 ? 0.0f : -0.0f;
  list.push_back(one);
  Input under = noise("scale_underflow", 16, 32, 6); // the first value sets amax, the rest fall below the scale's range
  for (size_t i = 0; i < under.values.size(); ++i) under.values[i] = i == 0 ? 1.0f : bf16(double(under.values[i]) * 1e-7);
  list.push_back(under);
  Input tiny = noise("subnormal_amax", 16, 32, 7);
  for (float &v : tiny.values) v = bf16(std::ldexp(double(v), -130));
  list.push_back(tiny);
  Input small = noise("small_amax", 16, 32, 8); // 2688 / amax overflows
  for (float &v : small.values) v = bf16(std::ldexp(double(v), -122));
  list.push_back(small);
  Input huge = noise("huge", 16, 32, 9);
  for (float &v : huge.values) v = bf16(std::ldexp(double(v), 124));
  list.push_back(huge);
  for (const auto &[name, value] : {std::pair{"nan", nan}, std::pair{"minus_nan", -nan}, std::pair{"inf", inf}, std::pair{"minus_inf", -inf}}) {
    Input special = noise(name, 16, 32, 10);
    special.values[37] = value;
    special.values[200] = 0.0f;
    list.push_back(special);
  }
  list.push_back(filled("all_nan", nan));
  return list;
}

struct Case {
  std::string name;
  QuantizeOptions options;
};

/// Every option that the convention takes, each alone; they combine without new arithmetic.
std::vector<Case> cases_of(const Convention &c) {
  QuantizeOptions base;
  base.source = FormatId::bf16;
  std::vector<Case> list = {{"row", base}};
  QuantizeOptions o = base;
  o.axis = Axis::col;
  list.push_back({"col", o});
  o = base;
  o.layout = ScaleLayout::tiled_128x4;
  list.push_back({"128x4", o});
  if (c.can.tiles) {
    o = base;
    o.block_rows = c.rule.block;
    list.push_back({"tiles", o});
  }
  if (c.can.hadamard && c.rule.block != 32) {
    o = base;
    o.hadamard = true;
    o.axis = Axis::col;
    list.push_back({"hadamard", o});
  }
  if (c.can.stochastic) {
    o = base;
    o.key = {0x123456789ABCDEF0, 3};
    o.rounding = ElementRounding::sr_carry8;
    list.push_back({"sr_carry8", o});
    o.rounding = ElementRounding::sr_exact;
    list.push_back({"sr_exact", o});
    if (c.rule.element == FormatId::e2m1) {
      o.rounding = ElementRounding::sr_te;
      list.push_back({"sr_te", o});
    }
    if (c.rule.scale == FormatId::ue5m3g) { // that rounding's own
      o.rounding = ElementRounding::sr_mid8;
      list.push_back({"sr_mid8", o});
    }
  }
  return list;
}

} // namespace

size_t generate_quantize(const std::string &folder) {
  std::filesystem::create_directories(folder);
  const std::vector<Input> all = inputs();
  size_t files = 0;
  for (const Convention &c : conventions()) {
    io::TensorFile f;
    size_t count = 0;
    for (const Input &in : all) {
      f.tensors.push_back(io::Tensor::from(in.name + ".input", {in.rows, in.cols}, in.values));
      for (const Case &one : cases_of(c)) {
        if (one.options.hadamard && in.rows % 16 != 0) continue; // rotation takes whole groups of 16
        const BlockScaled q = quantize(MatrixView<const float>(in.values.data(), in.rows, in.cols), c, one.options);
        const std::string name = in.name + "." + one.name;
        const int64_t rows = q.rows;
        f.tensors.push_back(io::Tensor::from(name + ".codes", {rows, q.row_bytes()}, q.codes));
        f.tensors.push_back(io::Tensor::from(name + ".block_scales", {int64_t(q.scales.size())}, q.scales));
        f.tensors.push_back(io::Tensor::from(name + ".global_amax", {1}, std::vector<float>{q.global_amax}));
        if (!q.row_amax.empty()) f.tensors.push_back(io::Tensor::from(name + ".row_amax", {rows}, q.row_amax));
        f.metadata["case." + name] = to_json(one.options);
        ++count;
      }
    }
    f.metadata["kind"] = "quantize";
    f.metadata["subject"] = std::string(c.name);
    f.metadata["provenance"] = "model";
    f.metadata["source"] = "transcription of " + std::string(c.source);
    f.metadata["cases"] = std::to_string(count);
    io::write_tensors(folder + "/" + std::string(c.name) + ".safetensors", f);
    ++files;
  }
  return files;
}

} // namespace nvfp4::golden
