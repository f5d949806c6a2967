// SPDX-License-Identifier: Apache-2.0
// Quantization: every convention with every option that it takes, on tensors of every kind, GPU against CPU,
// byte by byte; what the CPU refuses the GPU must refuse.
#include "nvfp4/emulator/quantize/global_alpha.hpp"
#include "nvfp4/gpu/check/check.hpp"
#include "nvfp4/gpu/emulated/quantize.hpp"

#include <cmath>
#include <cstring>

namespace nvfp4::crosscheck {
namespace {

constexpr int kDataKinds = 8;

float datum(int kind, Random &random) {
  const float g = random.normal();
  switch (kind) {
  case 0: return g;
  case 1: return std::ldexp(g, random.below(40) - 20);
  case 2: return std::ldexp(g, random.below(250) - 125);
  case 3: return bit_cast<float>(uint32_t(random())); // NaN and Inf too
  case 4: return random.below(8) != 0 ? (random.below(2) != 0 ? 0.0f : -0.0f) : g;
  case 5: return float(random.below(97) - 48) * 0.125f; // ties
  case 6: return round_to_bf16(g * 0.02f);
  default: {
    if (random.below(24) == 0) return bit_cast<float>(random.below(2) != 0 ? 0x7FC00000u : 0xFFC12345u);
    if (random.below(24) == 0) return random.below(2) != 0 ? INFINITY : -INFINITY;
    return bit_cast<float>(uint32_t(random()) & 0x80FFFFFFu); // subnormals and the smallest normals
  }
  }
}

bool same_word(float a, float b) {
  return bit_cast<uint32_t>(a) == bit_cast<uint32_t>(b) ||
         (a != a && b != b); // NaN payloads of divisions differ by machine
}

void compare(Tally &t, const BlockScaled &got, const BlockScaled &want, const std::string &what) {
  t.values += want.codes.size() + want.scales.size();
  const auto bytes = [&](const std::vector<uint8_t> &x, const std::vector<uint8_t> &y, const char *name, int64_t of_row) {
    if (x.size() != y.size()) t.mismatch(what + ": " + name + " have another size");
    size_t wrong = 0;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) wrong += x[i] != y[i];
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (x[i] != y[i])
        t.mismatch(what + ": " + std::to_string(wrong) + " of " + std::to_string(y.size()) + " bytes of " + name + ", first " +
                   std::to_string(i) + " (row " + std::to_string(int64_t(i) / of_row) + "): got " + std::to_string(x[i]) +
                   ", want " + std::to_string(y[i]));
  };
  bytes(got.codes, want.codes, "codes", std::max<int64_t>(want.row_bytes(), 1));
  bytes(got.scales, want.scales, want.layout == ScaleLayout::linear ? "scales" : "tiled scales",
        std::max<int64_t>(want.scale_cols(), 1));
  if (want.row_amax.size() != got.row_amax.size()) t.mismatch(what + ": row_amax has another size");
  for (size_t i = 0; i < std::min(want.row_amax.size(), got.row_amax.size()); ++i)
    if (!same_word(got.row_amax[i], want.row_amax[i])) t.mismatch(what + ": row_amax " + std::to_string(i));
  if (want.row_amax.empty() &&
      (!same_word(got.global_amax, want.global_amax) || !same_word(got.global_encode, want.global_encode) ||
       !same_word(got.global_decode, want.global_decode)))
    t.mismatch(what + ": global words");
  if (got.padded_k != want.padded_k || got.rows != want.rows || got.hadamard != want.hadamard)
    t.mismatch(what + ": shape");
}

struct Case {
  int64_t rows, cols, stride;
};
constexpr Case kCases[] = {{1, 16, 16},     {16, 32, 32},   {33, 64, 64},  {48, 96, 100},
                           {17, 35, 37},    {64, 256, 256}, {130, 48, 48}, {5, 160, 163},
                           {160, 288, 288}, {272, 80, 80},  {64, 33, 33}};

/// What an intake makes of a matrix, by the codec.
std::vector<float> taken_in(std::vector<float> x, const Case &shape, const cuda::Intake &intake) {
  if (intake.round_to_bf16)
    for (float &v : x) v = round_to_bf16(v);
  x.resize(size_t((shape.rows + intake.zero_rows) * shape.stride), 0.0f);
  return x;
}

/// What quantizations of a convention write to, and how many of them went together.
struct Outputs {
  cuda::DeviceBlockScaled out, beside;
  cuda::DeviceBuffer maxima, left;
  int64_t together = 0;
};

void one(Tally &t, const Convention &c, const QuantizeOptions &options, const Case &shape, int kind,
         uint64_t seed, const cuda::Intake &intake, Outputs &outputs) {
  cuda::DeviceBlockScaled &out = outputs.out;
  Random random{seed};
  std::vector<float> x(size_t(shape.rows * shape.stride));
  for (float &v : x) v = datum(kind, random);
  const std::vector<float> seen = taken_in(x, shape, intake);
  BlockScaled want;
  std::string refusal;
  try {
    want = quantize({seen.data(), shape.rows + intake.zero_rows, shape.cols, shape.stride}, c, options);
  } catch (const Error &e) {
    refusal = e.what();
  }
  cuda::DeviceBuffer dx;
  dx.upload(x);
  char what[200];
  std::snprintf(
      what, sizeof what,
      "%s axis %d rows %d rounding %d hadamard %d layout %d source %d intake %d+%d data %d [%d, %d]",
      std::string(c.name).c_str(), int(options.axis), options.block_rows, int(options.rounding),
      int(options.hadamard), int(options.layout), int(options.source), int(intake.round_to_bf16),
      int(intake.zero_rows), kind, int(shape.rows), int(shape.cols));
  try {
    if (seed % 2 == 0) {
      cuda::quantize(dx.as<float>(), shape.rows, shape.cols, shape.stride, c, options, out, nullptr, nullptr,
                     intake);
    } else {
      const cuda::QuantizeRequest r{dx.as<float>(), shape.rows, shape.cols, shape.stride,
                                    &c,             options,    intake,     &out};
      cuda::QuantizeRequest other = r;
      other.out = &outputs.beside;
      outputs.together +=
          cuda::quantize_all(std::vector{other, r}, outputs.maxima, outputs.left, nullptr);
      if (refusal.empty()) compare(t, outputs.beside.download(nullptr), want, what + std::string(" beside"));
    }
    if (!refusal.empty()) return t.mismatch(std::string(what) + ": the GPU took what the CPU refuses");
  } catch (const Error &e) {
    if (refusal.empty()) t.mismatch(std::string(what) + ": " + e.what());
    return;
  }
  compare(t, out.download(nullptr), want, what);
  if (c.rule.decoding == Decoding::bf16_reciprocal) return; // no product
  // the factor that undoes both global scales, with itself
  cuda::DeviceBuffer alpha(4);
  cuda::global_alpha(out, out, 0.75f, alpha.as<float>(), nullptr);
  const float expected = global_alpha(want, want, 0.75f, AlphaRule::by_convention);
  if (!same_word(alpha.download<float>(1)[0], expected)) t.mismatch(std::string(what) + ": alpha");
  ++t.values;
}

} // namespace

Tally check_quantize(int repeats) {
  Tally all;
  uint64_t seed = 77;
  for (const Convention &c : conventions()) {
    if (format(c.rule.element).storage_bits > 8) continue; // the CPU alone writes them
    Tally t;
    Outputs outputs;
    for (int repeat = 0; repeat < std::max(repeats, 1); ++repeat)
      for (const Axis axis : {Axis::row, Axis::col})
        for (const int block_rows : {1, c.rule.block == 128 ? 128 : 16})
          for (int rounding = 0; rounding < 5; ++rounding)
            for (const bool hadamard : {false, true}) {
              for (int kind = 0; kind < kDataKinds; ++kind, ++seed) {
                const uint64_t mixed = seed * 0x9E3779B97F4A7C15;
                if (repeats == 0 && mixed >> 59 != 0) continue; // one in 32
                QuantizeOptions o;
                o.axis = axis;
                o.block_rows = block_rows;
                o.rounding = ElementRounding(rounding);
                o.hadamard = hadamard;
                o.key = {mixed, seed};
                o.layout = seed % 3 == 0 ? ScaleLayout::tiled_128x4 : ScaleLayout::linear;
                o.source = seed % 5 == 0 ? FormatId::bf16 : seed % 5 == 1 ? FormatId::f16 : FormatId::f32;
                o.threads = 1;
                const uint64_t given = seed % 7;
                if (given == 0) o.global_amax = 3.0f;
                if (given == 1) o.global_scale = 0.0123f;
                const cuda::Intake intake = {
                    (mixed >> 40 & 1) != 0,
                    axis == Axis::col && (mixed >> 41 & 1) != 0 ? int64_t(mixed >> 44 & 31) : 0};
                one(t, c, o, kCases[seed % std::size(kCases)], kind, seed, intake, outputs);
              }
            }
    for (const char *name : {"te", "torchao", "fouroversix", "ggml", "mxfp4", "mxfp8-e4m3"})
      if (c.name == name && repeats > 0 && outputs.together == 0)
        t.mismatch("no tensor was quantized together with others");
    if (repeats > 0 && t.values == 0) t.mismatch(std::string(c.name) + ": nothing was compared");
    t.print(("quantize " + std::string(c.name)).c_str());
    all.add(t);
  }
  return all;
}

} // namespace nvfp4::crosscheck
