// SPDX-License-Identifier: Apache-2.0
// Quantizers with mistakes: each must be named. By hand, on the bytes, and every row of the search on hard
// data; random bytes are explained by nothing.
#include "nvfp4/emulator/quantize/rule_fields.hpp"
#include "nvfp4/golden/diagnosis/quantizer_check.hpp"
#include "nvfp4/golden/diagnosis/quantizer_steps.hpp"
#include "tests/catch.hpp"
#include "tests/golden/diagnosis/support.hpp"

#include <limits>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

/// 2688 / kAmax is one for which the orders of the scale steps disagree.
constexpr float kAmax = 560.0f;

/// Blocks of many magnitudes, outliers, zeros of both signs, ties, a block of zeros; not a BF16 tensor.
SourceTensor hard(int64_t rows, int64_t k, uint64_t seed, bool specials = false) {
  Random random{seed};
  SourceTensor s = random_source(rows, k, 1.5, random);
  for (size_t i = 0; i < s.values.size(); ++i) {
    if (i % 37 == 5) s.values[i] = i % 2 == 0 ? 0.0f : -0.0f;
    if (i % 101 == 7) s.values[i] *= 1e-6f;
    if (i / 16 % 29 == 3) s.values[i] = 0.0f;
    if (i / 16 % 31 == 9)
      s.values[i] = (i % 2 == 0 ? 1.0f : -1.0f) * (i % 16 == 0 ? 6.0f : 0.25f * float(i % 25));
    if (i / 16 % 23 == 4) s.values[i] *= 1e-9f;
  }
  for (float &v : s.values) v = std::clamp(v, -500.0f, 500.0f);
  s.values[1] = kAmax;
  if (specials) {
    const float nan = bit_cast<float>(0x7FC00000u);
    s.values[size_t(2 * k + 3)] = nan;
    s.values[size_t(3 * k + 20)] = -nan;
  }
  return s;
}

QuantizerProblem problem(SourceTensor source, const std::string &convention,
                         const QuantizeOptions &options = {}) {
  QuantizerProblem p;
  p.convention = &find_convention(convention);
  p.mine = quantize({source.values.data(), source.rows, source.cols}, *p.convention, options);
  p.source = std::move(source);
  p.rounding = options.rounding;
  p.key = options.key;
  p.threads = 1;
  return p;
}

bool explained(const QuantizerReport &r, const std::string &name) {
  return std::any_of(r.explains.begin(), r.explains.end(),
                     [&](const QuantizerFinding &f) { return f.name == name; });
}
std::string names(const QuantizerReport &r) {
  std::string text = r.verdict + " |";
  for (const QuantizerFinding &f : r.explains) text += " [" + f.name + "]";
  for (const QuantizerFinding &f : r.partial) text += " (" + f.name + ")";
  for (const QuantizerKind &k : r.kinds) text += " " + k.name + "=" + std::to_string(k.count);
  return text;
}
int64_t count(const QuantizerReport &r, const std::string &kind) {
  for (const QuantizerKind &k : r.kinds)
    if (k.name == kind) return k.count;
  return 0;
}

/// Changes MINE and expects the name.
void expect(QuantizerProblem p, const std::string &name, const std::function<void(BlockScaled &)> &spoil) {
  spoil(p.mine);
  const QuantizerReport r = check_quantizer(p);
  INFO(name << ": " << names(r));
  CHECK(!r.equal());
  CHECK(explained(r, name));
}

void set_code(BlockScaled &q, int64_t r, int64_t i, uint8_t code) {
  uint8_t &byte = q.codes[size_t(r * q.row_bytes() + (format(q.element).storage_bits == 4 ? i / 2 : i))];
  if (format(q.element).storage_bits != 4)
    byte = code;
  else
    byte = uint8_t(i % 2 == 0 ? (byte & 0xF0) | code : (byte & 0x0F) | code << 4);
}

} // namespace

TEST_CASE("a quantizer that is right is equal, for every convention and kind of data",
          "[diagnosis][quantizer]") {
  for (const Convention &c : conventions()) {
    for (const bool specials : {false, true}) {
      const QuantizerReport r = check_quantizer(problem(hard(20, 100, 1, specials), std::string(c.name)));
      INFO(c.name << ": " << names(r));
      CHECK(r.equal());
      CHECK(r.source_nan == (specials ? 2 : 0));
    }
  }
  QuantizeOptions options;
  options.axis = Axis::col;
  options.hadamard = true;
  options.layout = ScaleLayout::tiled_128x4;
  options.rounding = ElementRounding::sr_exact;
  options.key = {7, 9};
  CHECK(check_quantizer(problem(hard(64, 48, 2), "te", options)).equal());
  options = {};
  options.global_scale = 12.5f;
  CHECK(check_quantizer(problem(hard(16, 48, 2), "flashinfer", options)).equal());
}

TEST_CASE("equality over nothing says so", "[diagnosis][quantizer]") {
  for (const float v : {0.0f, -0.0f, bit_cast<float>(0x7FC00000u)}) {
    SourceTensor s{4, 32, std::vector<float>(128, v)};
    const QuantizerReport r = check_quantizer(problem(s, "te"));
    CHECK(r.equal());
    CHECK_THAT(r.verdict, Catch::Contains("no finite number other than 0"));
  }
  const QuantizerReport empty = check_quantizer(problem({0, 16, {}}, "te"));
  CHECK(empty.equal());
  CHECK_THAT(empty.verdict, Catch::Contains("next to nothing"));
}

TEST_CASE("mistakes made on the bytes are named", "[diagnosis][quantizer]") {
  for (const char *convention : {"te", "mxfp4"}) {
    const QuantizerProblem p = problem(hard(64, 256, 3), convention);
    CAPTURE(convention);
    expect(p, "nibbles-swapped", [](BlockScaled &q) {
      for (uint8_t &b : q.codes) b = uint8_t(b << 4 | b >> 4);
    });
    expect(p, "eight-nibbles-reversed", [](BlockScaled &q) {
      for (size_t i = 0; i < q.codes.size(); i += 4) {
        std::reverse(q.codes.begin() + long(i), q.codes.begin() + long(i) + 4);
        for (size_t j = i; j < i + 4; ++j) q.codes[j] = uint8_t(q.codes[j] << 4 | q.codes[j] >> 4);
      }
    });
    expect(p, "block-halves-interleaved", [](BlockScaled &q) {
      const BlockScaled was = q;
      for (int64_t r = 0; r < q.rows; ++r)
        for (int64_t b = 0; b < q.k; b += q.block)
          for (int j = 0; j < q.block / 2; ++j) {
            set_code(q, r, b + 2 * j, was.code(r, b + j));
            set_code(q, r, b + 2 * j + 1, was.code(r, b + j + q.block / 2));
          }
    });
    expect(p, "scales-transposed", [](BlockScaled &q) {
      const BlockScaled was = q;
      for (int64_t r = 0; r < q.rows; ++r)
        for (int64_t b = 0; b < q.blocks(); ++b) q.scales[size_t(b * q.rows + r)] = uint8_t(was.scale_code(r, b));
    });
    expect(p, "zeros-unsigned", [](BlockScaled &q) {
      for (int64_t r = 0; r < q.rows; ++r)
        for (int64_t i = 0; i < q.k; ++i)
          if (q.code(r, i) == 8) set_code(q, r, i, 0);
    });
    expect(p, "signs-dropped", [](BlockScaled &q) {
      for (uint8_t &b : q.codes) b &= 0x77;
    });
  }
  expect(problem(hard(128, 256, 4), "te"), "scales-tiled",
         [](BlockScaled &q) { q.scales = tile_scales(q.scales, q.rows, q.scale_cols()); });
  QuantizeOptions tiled;
  tiled.layout = ScaleLayout::tiled_128x4;
  expect(problem(hard(40, 256, 5), "te", tiled), "scales-linear", [](BlockScaled &q) {
    const std::vector<uint8_t> linear = untile_scales(q.scales, q.rows, q.scale_cols());
    std::fill(q.scales.begin(), q.scales.end(), uint8_t{0});
    std::copy(linear.begin(), linear.end(), q.scales.begin());
  });
}

TEST_CASE("tensors made in another way are named", "[diagnosis][quantizer]") {
  // what the file says stays; what was done is another thing
  const auto made = [](const SourceTensor &s, const char *says, const char *convention,
                       const QuantizeOptions &o, const QuantizeOptions &said = {}) {
    QuantizerProblem p = problem(s, says, said);
    const BlockScaled q = quantize({s.values.data(), s.rows, s.cols}, find_convention(convention), o);
    p.mine.codes = q.codes;
    p.mine.scales = q.scales;
    return check_quantizer(p);
  };
  const auto named = [](const QuantizerReport &r, const std::string &name) {
    INFO(name << ": " << names(r));
    CHECK(explained(r, name));
  };
  const SourceTensor s = hard(256, 256, 6), ragged = hard(19, 45, 7, true), wide = hard(48, 1040, 8);
  for (const char *preset :
       {"torchao", "modelopt", "compressed-tensors", "flashinfer", "ggml", "fouroversix"}) {
    named(made(s, "te", preset, {}), "preset:" + std::string(preset));
    named(made(ragged, "te", preset, {}), "preset:" + std::string(preset));
  }
  // the orders of te and te213 part on values of few bits
  SourceTensor coarse = s;
  for (float &v : coarse.values) v = round_to(FormatId::bf16, v);
  named(made(coarse, "te", "te213", {}), "preset:te213");
  named(made(coarse, "te", "te213", {}), "rule:order:(bmax / 6) * S");
  named(made(s, "mxfp4", "mxfp4-ceil", {}), "preset:mxfp4-ceil");
  named(made(ragged, "mxfp8-e4m3", "mxfp8-e5m2-ceil", {}), "preset:mxfp8-e5m2-ceil");
  named(made(wide, "mxfp8-e4m3", "mxfp8-e4m3-ceil", {}), "preset:mxfp8-e4m3-ceil");

  QuantizeOptions o;
  o.axis = Axis::col;
  named(made(s, "te", "te", o), "other-axis");
  o = {};
  o.hadamard = true;
  named(made(s, "te", "te", o), "rotation-added");
  named(made(s, "te", "te", {}, o), "rotation-missing");
  o.block_rows = 1;
  o.sign_mask = 0;
  named(made(s, "te", "te", o), "rotation-added-unsigned");
  o.sign_mask = 0x1234;
  QuantizerProblem signs = problem(s, "te");
  signs.mine = quantize({s.values.data(), s.rows, s.cols}, find_convention("te"), o);
  signs.mine.hadamard = false;
  named(check_quantizer(signs), "rotation-signs");
  o = {};
  o.block_rows = 16;
  named(made(s, "te", "te", o), "block-rows");
  named(made(s, "te", "te", {}, o), "block-rows");
  o = {};
  o.global_amax = 0.8f * kAmax;
  const QuantizerReport local = made(s, "te", "te", o);
  named(local, "amax-found");
  CHECK_THAT(local.verdict, Catch::Contains("times the source's own"));

  QuantizerProblem calibrated = problem(s, "te", o);
  named(check_quantizer(calibrated), "amax-as-stored");
  calibrated.global_amax = o.global_amax;
  CHECK(check_quantizer(calibrated).equal());

  SourceTensor rounded = s;
  for (float &v : rounded.values) v = round_to(FormatId::bf16, v);
  const BlockScaled q = quantize({rounded.values.data(), s.rows, s.cols}, find_convention("te"), {});
  QuantizerProblem bf16 = problem(s, "te");
  bf16.mine.codes = q.codes;
  bf16.mine.scales = q.scales;
  named(check_quantizer(bf16), "source-bf16");

  o = {};
  o.rounding = ElementRounding::sr_exact;
  o.key = {3, 4};
  const QuantizerReport random = made(s, "te", "te", o);
  CHECK(random.explains.empty());
  CHECK_THAT(random.verdict, Catch::Contains("stochastic rounding"));
  named(made(hard(32, 64, 6), "te", "te", {}, o), "rounding-nearest");
}

TEST_CASE("every row of the search that changes a byte is named on hard data", "[diagnosis][quantizer]") {
  int64_t cases = 0;
  for (const char *convention : {"te", "te-4over6", "modelopt", "mxfp4", "mxfp8-e5m2-ceil"}) {
    const QuantizerProblem p = problem(hard(48, 80, 11, true), convention);
    Making base;
    base.rule = p.convention->rule;
    base.can = p.convention->can;
    for (const QuantizerStep &step : quantizer_steps(p, base)) {
      Making m = base;
      step.apply(m);
      if (m.reading != nullptr) continue; // made on the bytes above
      const std::optional<BlockScaled> q = make(p, m, prepare(p, m));
      if (!q || q->row_bytes() != p.mine.row_bytes()) continue;
      if (q->codes == p.mine.codes && q->scales == p.mine.scales) continue; // without effect on these data
      QuantizerProblem wrong = p;
      wrong.mine.codes = q->codes;
      wrong.mine.scales = q->scales;
      const QuantizerReport r = check_quantizer(wrong);
      INFO(convention << " " << step.name << ": " << names(r));
      CHECK(explained(r, step.name));
      ++cases;
    }
  }
  CHECK(cases >= 100);
}

TEST_CASE("every field of the rule is searched", "[diagnosis][quantizer]") {
  std::vector<std::string> fields;
  for_each_rule_field([&](const char *name, auto, const auto &values) {
    fields.emplace_back(name);
    CHECK(values.size() >= 2);
  });
  CHECK(fields.size() == 22); // as many as the structured binding over Rule names
  std::sort(fields.begin(), fields.end());
  CHECK(std::unique(fields.begin(), fields.end()) == fields.end());
}

TEST_CASE("two mistakes at once are named", "[diagnosis][quantizer]") {
  QuantizerProblem p = problem(hard(64, 256, 12), "te");
  const BlockScaled other = quantize({p.source.values.data(), 64, 256}, find_convention("modelopt"), {});
  p.mine.codes = other.codes;
  p.mine.scales = other.scales;
  for (uint8_t &b : p.mine.codes) b = uint8_t(b << 4 | b >> 4);
  const QuantizerReport r = check_quantizer(p);
  INFO(names(r));
  CHECK(explained(r, "preset:modelopt + nibbles-swapped"));
}

TEST_CASE("random bytes are explained by nothing, and single ones are counted by kind",
          "[diagnosis][quantizer]") {
  Random random{13};
  for (const char *convention : {"te", "mxfp4", "mxfp8-e4m3"}) {
    QuantizerProblem p = problem(hard(16, 128, 14), convention);
    const QuantizerProblem right = p;
    for (uint8_t &b : p.mine.codes) b = uint8_t(random());
    for (uint8_t &b : p.mine.scales) b = uint8_t(random() & 0x7F);
    const QuantizerReport r = check_quantizer(p);
    INFO(names(r));
    CHECK(r.explains.empty());
    CHECK(r.partial.empty());
    CHECK(!r.advice.empty());

    p = right;
    p.mine.scales[37] = uint8_t(p.mine.scales[37] + 1);
    const QuantizerReport one = check_quantizer(p);
    CHECK(one.scales_differing == 1);
    CHECK(one.codes_differing == 0);
    CHECK(count(one, "scale-one-up") == 1);
    REQUIRE(one.first_scale);
    CHECK(one.first_scale->row == 37 / p.mine.scale_cols());
    CHECK(one.first_scale->at == 37 % p.mine.scale_cols());
    CHECK(one.explains.empty());

    p = right;
    const uint8_t code = p.mine.code(5, 9);
    set_code(p.mine, 5, 9, uint8_t(code ^ 1));
    const QuantizerReport element = check_quantizer(p);
    CHECK(element.codes_differing == 1);
    REQUIRE(element.first_code);
    CHECK(element.first_code->row == 5);
    CHECK(element.first_code->at == 9);
    CHECK(element.first_code->want == code);
  }
  QuantizerProblem p = problem(hard(16, 64, 15), "te");
  p.mine.global_encode *= 6.0f;
  const QuantizerReport global = check_quantizer(p);
  CHECK(!global.equal());
  CHECK_THAT(global.verdict, Catch::Contains("encode scale") && Catch::Contains("(6 times)"));
}

TEST_CASE("a file of one convention is compared with another", "[diagnosis][quantizer]") {
  QuantizerProblem p = problem(hard(16, 64, 17), "torchao");
  p.convention = &find_convention("modelopt");
  p.mine = quantize({p.source.values.data(), 16, 64}, *p.convention, {});
  p.mine.convention = "te"; // whose words of the global scale are others
  CHECK(check_quantizer(p).equal());
  p.mine.global_amax *= 2.0f;
  CHECK(!check_quantizer(p).equal());
}

TEST_CASE("sources and conventions that do not fit are refused", "[diagnosis][quantizer]") {
  QuantizerProblem p = problem(hard(16, 64, 16), "te");
  p.source = hard(16, 48, 16);
  CHECK_THROWS_WITH(check_quantizer(p), Catch::Contains("16 x 48") && Catch::Contains("16 x 64"));
  p = problem(hard(16, 64, 16), "te");
  p.convention = &find_convention("mxfp8-e4m3");
  CHECK_THROWS_WITH(check_quantizer(p), Catch::Contains("mxfp8-e4m3"));
}

TEST_CASE("roundings that no preset has, byte orders of scales and places of differences are named",
          "[diagnosis][quantizer]") {
  const SourceTensor s = hard(64, 256, 21);
  const QuantizerProblem right = problem(s, "te");
  // TransformerEngine's rule written out, with other roundings of block scales and of scaled elements
  const auto made = [&](Rounding scales, std::optional<FormatId> through) {
    QuantizerProblem p = right;
    const float encode_scale = 2688.0f / right.mine.global_amax, decode_scale = 1.0f / encode_scale;
    for (int64_t r = 0; r < 64; ++r)
      for (int64_t b = 0; b < 16; ++b) {
        const float *x = s.values.data() + r * 256 + b * 16;
        float amax = 0;
        for (int i = 0; i < 16; ++i) amax = std::max(amax, std::fabs(x[i]));
        const uint64_t scale =
            encode(FormatId::ue4m3, amax * (encode_scale * (1.0f / 6.0f)), scales, Overflow::satfinite);
        const float factor = std::min(1.0f / (value_f32(FormatId::ue4m3, scale) * decode_scale),
                                      std::numeric_limits<float>::max());
        p.mine.scales[size_t(r * 16 + b)] = uint8_t(scale);
        for (int i = 0; i < 16; ++i) {
          float y = x[i] * factor;
          if (through) y = round_to(*through, y);
          set_code(p.mine, r, b * 16 + i,
                   uint8_t(encode(FormatId::e2m1, y, Rounding::nearest_even, Overflow::satfinite)));
        }
      }
    return check_quantizer(p);
  };
  const auto named = [](const QuantizerReport &r, const std::string &name) {
    INFO(name << ": " << names(r));
    CHECK(!r.equal());
    CHECK(explained(r, name));
  };
  CHECK(made(Rounding::nearest_even, std::nullopt).equal());
  named(made(Rounding::toward_zero, std::nullopt), "scales-toward-zero");
  named(made(Rounding::upward, std::nullopt), "scales-upward");
  named(made(Rounding::nearest_even, FormatId::bf16), "elements-through-bf16");
  named(made(Rounding::nearest_even, FormatId::f16), "elements-through-f16");
  expect(right, "scales-words-reversed", [](BlockScaled &q) {
    for (size_t i = 0; i < q.scales.size(); i += 4)
      std::reverse(q.scales.begin() + long(i), q.scales.begin() + long(i) + 4);
  });
  expect(right, "scales-pairs-exchanged", [](BlockScaled &q) {
    for (size_t i = 0; i < q.scales.size(); i += 2) std::swap(q.scales[i], q.scales[i + 1]);
  });
  const QuantizerProblem few = problem(hard(32, 64, 21), "te"); // every pair of steps is tried
  const auto verdict = [&](const std::function<void(BlockScaled &)> &spoil) {
    QuantizerProblem p = few;
    spoil(p.mine);
    return check_quantizer(p).verdict;
  };
  CHECK_THAT(verdict([](BlockScaled &q) { std::fill_n(q.scales.begin() + 4 * 4, 4, uint8_t{0}); }),
             Catch::Contains("all in row 4 and ") && Catch::Contains("scales: row 4 is zero"));
  CHECK_THAT(
      verdict([](BlockScaled &q) {
        for (int64_t r = 8; r < 12; ++r)
          std::swap_ranges(q.codes.begin() + r * 32, q.codes.begin() + (r + 1) * 32, q.codes.begin() + (23 - r) * 32);
      }),
      Catch::Contains("all in rows 8 to 15 and all blocks; codes: 8 rows are right but in another place"));
  CHECK_THAT(verdict([](BlockScaled &q) { q.codes[6 * 32 + 9] ^= 1; }),
             Catch::Contains("all in row 6 and block 1"));
}
