// SPDX-License-Identifier: Apache-2.0
// What an operand carries: scale layout, rotation, logical K and global scales make the right product or an
// error.
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "tests/emulator/gemm/support.hpp"

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

const Unit &nvfp4_unit() { return find_unit("sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"); }
const Unit &bf16_unit() { return find_unit("sm_90:wgmma.k16.f32.bf16"); }

/// Rows of very different size, one of zeros, a column of outliers; exact in FP32.
std::vector<float> stepped(int64_t rows, int64_t cols, int64_t salt) {
  std::vector<float> x(size_t(rows * cols));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const float v = std::ldexp(float(((r * cols + c) * 7919 + salt) % 1009 - 504), int(r % 13) - 8);
      x[size_t(r * cols + c)] = (r == 5 ? 0.0f : v) * (c == 3 ? 64.0f : 1.0f);
    }
  return x;
}

BlockScaled quantized(int64_t rows, int64_t cols, int64_t salt, const char *convention = "te",
                      const QuantizeOptions &options = {}) {
  std::vector<float> x = stepped(rows, cols, salt);
  return quantize({x.data(), rows, cols}, find_convention(convention), options);
}

std::vector<uint8_t> words(const BlockScaled &a, const BlockScaled &b, const GemmOptions &options = {}) {
  return multiply(nvfp4_unit(), make_operand(nvfp4_unit(), Side::a, a),
                  make_operand(nvfp4_unit(), Side::b, b), options)
      .words;
}

uint64_t fnv(const std::vector<uint8_t> &bytes) {
  uint64_t h = 0xcbf29ce484222325;
  for (const uint8_t b : bytes) h = (h ^ b) * 0x100000001b3;
  return h;
}

std::string message(auto &&call) {
  try {
    call();
  } catch (const Error &e) {
    return e.what();
  }
  return "accepted";
}
bool contains(const std::string &text, const char *part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("tiled scales give the words of linear ones, and a layout that does not fit is an error",
          "[gemm][operand]") {
  // 128 rows of 4 scales: both layouts take the same bytes, so only the operand's word tells them apart
  for (const auto &[rows, k] : {std::pair<int64_t, int64_t>{128, 64}, {256, 192}, {37, 208}}) {
    const BlockScaled a = quantized(rows, k, 1), b = quantized(29, k, 5);
    BlockScaled tiled = a;
    tiled.scales = tile_scales(a.scales, rows, a.scale_cols());
    tiled.layout = ScaleLayout::tiled_128x4;
    CHECK(words(tiled, b) == words(a, b));
    const RawCodes codes{rows, k, a.codes};
    const GemmOperand from_raw = make_operand(nvfp4_unit(), Side::a, codes, {tiled.scales, tiled.layout});
    CHECK(from_raw.scales == make_operand(nvfp4_unit(), Side::a, a).scales);
    if (rows % 128 == 0 && k % 64 == 0) {
      CHECK(tiled.scales.size() == a.scales.size());
      CHECK(tiled.scales != a.scales); // as linear they would be other scales
    } else {
      BlockScaled lie = tiled;
      lie.layout = ScaleLayout::linear;
      CHECK(contains(message([&] { (void)words(lie, b); }), "that is the size of 128x4 tiles"));
      lie = a;
      lie.layout = ScaleLayout::tiled_128x4;
      CHECK(contains(message([&] { (void)words(lie, b); }), "that is the size of linear scales"));
    }
    CHECK(contains(message([&] { (void)make_operand(nvfp4_unit(), Side::a, codes); }), "needs"));
  }
}

TEST_CASE("operands that do not belong together are refused", "[gemm][operand]") {
  const BlockScaled plain = quantized(20, 64, 1);
  const BlockScaled rotated = quantized(20, 64, 1, "te", {.hadamard = true});
  const BlockScaled other = quantized(20, 64, 1, "te", {.hadamard = true, .sign_mask = 0x1234});
  const auto refusal = [&](const BlockScaled &a, const BlockScaled &b) {
    return message([&] { (void)words(a, b); });
  };
  CHECK(contains(refusal(rotated, plain), "Hadamard"));
  CHECK(contains(refusal(plain, rotated), "Hadamard"));
  CHECK(contains(refusal(rotated, other), "sign masks"));
  CHECK(refusal(rotated, rotated) == "accepted");
  // 49 and 64 are both padded to 64
  CHECK(contains(refusal(plain, quantized(20, 49, 1)), "A has K = 64, B has K = 49"));
  CHECK(refusal(quantized(8, 49, 2), quantized(20, 49, 1)) == "accepted");
  CHECK(contains(refusal(plain, quantized(20, 64, 1, "mxfp4")), "does not fit unit"));
  const Unit &mxfp4 = find_unit("sm_120:mma.m16n8k64.f32.mxf4.ue8m0.block32"),
             &mx16 = find_unit("sm_100:tcgen05.k64.f32.mxf4nvf4.ue8m0.block16");
  const GemmOperand a = make_operand(nvfp4_unit(), Side::a, plain),
                    b = make_operand(nvfp4_unit(), Side::b, plain);
  for (const Unit *unit : {&mxfp4, &mx16, &bf16_unit()}) // mx16 differs in the scale format alone
    CHECK(contains(message([&] { (void)multiply(*unit, a, b); }), "was not made for unit"));
  CHECK(contains(message([&] { (void)make_operand(bf16_unit(), Side::a, plain); }), "takes no scales"));
  GemmOperand open = a;
  open.reshape(nvfp4_unit().rule, Side::a, 20, 64);
  CHECK(contains(message([&] { (void)multiply(nvfp4_unit(), open, b); }), "not sealed"));
  BlockScaled unknown = plain;
  unknown.convention = "nobody's";
  CHECK(contains(refusal(unknown, plain), "unknown quantization convention"));
  unknown.convention.clear();
  CHECK(words(unknown, plain, {.alpha_rule = AlphaRule::sdec_product}) ==
        words(plain, plain, {.alpha_rule = AlphaRule::sdec_product}));
  BlockScaled cut = plain;
  cut.codes.pop_back();
  CHECK(contains(refusal(cut, plain), "codes take"));
}

TEST_CASE("alpha and per-row global scales are the operands', in every alpha rule", "[gemm][operand]") {
  const BlockScaled te = quantized(37, 208, 1), torchao = quantized(29, 208, 5, "torchao");
  for (const AlphaRule rule :
       {AlphaRule::by_convention, AlphaRule::mul_const, AlphaRule::div, AlphaRule::sdec_product}) {
    const BlockScaled &b = rule == AlphaRule::mul_const || rule == AlphaRule::div ? te : torchao;
    GemmOptions by_hand{.alpha = global_alpha(te, b, 1.25f, rule)};
    const auto raw = [](Side side, const BlockScaled &q) {
      return make_operand(nvfp4_unit(), side, RawCodes{q.rows, q.k, q.codes}, {q.scales, q.layout});
    };
    CHECK(words(te, b, {.alpha = 1.25f, .alpha_rule = rule}) ==
          multiply(nvfp4_unit(), raw(Side::a, te), raw(Side::b, b), by_hand).words);
  }
  CHECK_THROWS_AS(words(te, torchao, {.alpha_rule = AlphaRule::div}), Error);
}

TEST_CASE("row-scaled products have the words that the program gave when it applied the scales itself",
          "[gemm][operand]") {
  const BlockScaled ar = quantized(37, 208, 1, "row-scaled"), at = quantized(37, 208, 1),
                    br = quantized(29, 208, 5, "row-scaled"), bt = quantized(29, 208, 5);
  struct Recorded {
    FormatId out;
    const BlockScaled &a, &b;
    uint64_t digest; ///< of `nvfp4 gemm --alpha 1.25` at commit a492cb3
  };
  const Recorded recorded[] = {
      {FormatId::f32, ar, br, 0x5ec78163e3b5b06b},  {FormatId::f32, ar, bt, 0x135d907706850b55},
      {FormatId::f32, at, br, 0x448d73d8c0b8d4bb},  {FormatId::bf16, ar, br, 0xd437cf82f0597c53},
      {FormatId::bf16, ar, bt, 0x2c5af1566828e5e8}, {FormatId::bf16, at, br, 0x5f8f638667912a51},
      {FormatId::f16, ar, br, 0x704d9c1fdb6f5b15},  {FormatId::f16, ar, bt, 0xdf4a95a1435aa1da},
      {FormatId::f16, at, br, 0xff3c363a09834966}};
  for (const Isa isa : kIsas) {
    if (!supported(isa)) continue;
    for (const Recorded &r : recorded)
      CHECK(fnv(words(r.a, r.b, {.alpha = 1.25f, .out = r.out, .isa = isa})) == r.digest);
  }
  const std::vector<uint8_t> c(37 * 29 * 4);
  const GemmOperand a = make_operand(nvfp4_unit(), Side::a, ar), b = make_operand(nvfp4_unit(), Side::b, bt);
  CHECK(contains(message([&] { (void)multiply(nvfp4_unit(), a, b, {.beta = 1.0f}, {.c = c}); }),
                 "beta has no meaning"));
  const std::vector<float> factors(37, 2.0f);
  CHECK(contains(message([&] { (void)multiply(nvfp4_unit(), a, b, {}, {.row_factors = factors}); }),
                 "bring their own"));
  BlockScaled cut = ar;
  cut.row_amax.pop_back();
  CHECK(contains(message([&] { (void)words(cut, bt); }), "36 global scales of rows"));
}

TEST_CASE("dense operands are rounded to the unit's format, NaN, zeros and ragged K included",
          "[gemm][operand]") {
  Random random{41};
  const int64_t rows = 7, k = 37;
  std::vector<float> x(size_t(rows * k));
  for (float &v : x) v = float(random.normal() * std::exp(4 * random.normal()));
  x[3] = NAN, x[40] = INFINITY, x[41] = -0.0f, x[80] = 1e30f, x[81] = -1e-40f;
  for (const char *name : {"sm_90:wgmma.k16.f32.bf16", "sm_90:wgmma.k16.f32.f16", "sm_90:wgmma.k8.f32.tf32",
                           "sm_90:wgmma.k32.f32.e4m3.e5m2", "sm_90:mma.m8n8k4.f64.f64"}) {
    const Unit &unit = find_unit(name);
    for (const Side side : {Side::a, Side::b}) {
      const FormatId id = side == Side::a ? unit.rule.a : unit.rule.b;
      const GemmOperand o = make_operand(
          unit, side,
          DenseView{FormatId::f32, rows, k, {reinterpret_cast<const uint8_t *>(x.data()), 4 * x.size()}});
      const Overflow overflow = format(id).storage_bits == 8 ? Overflow::satfinite : Overflow::ieee;
      int64_t wrong = 0;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < o.padded_k; ++i)
          wrong += o.row(r)[i] != (i < k ? convert(format(id), format(FormatId::f32),
                                                   bit_cast<uint32_t>(x[size_t(r * k + i)]),
                                                   Rounding::nearest_even, overflow)
                                         : 0);
      INFO(name);
      CHECK(wrong == 0);
      CHECK(o.padded_k % unit.rule.k == 0);
    }
  }
  // words of the unit's own format pass unchanged, NaN payloads included
  std::vector<uint8_t> raw(64);
  for (size_t i = 0; i < raw.size(); ++i) raw[i] = uint8_t(0x7F + i * 37);
  const GemmOperand o = make_operand(bf16_unit(), Side::a, DenseView{FormatId::bf16, 1, 32, raw});
  CHECK(o.codes == raw);
  CHECK(contains(message([&] {
                   (void)make_operand(nvfp4_unit(), Side::a, DenseView{FormatId::bf16, 1, 32, raw});
                 }),
                 "is dense"));
  CHECK_THROWS_AS(make_operand(bf16_unit(), Side::a, DenseView{FormatId::bf16, 1, 33, raw}), Error);
}

TEST_CASE("adopting a tensor gives what making an operand of it gives, and memory is exchanged",
          "[gemm][operand]") {
  for (const int64_t k : {64, 80, 49}) {
    BlockScaled q = quantized(9, k, 3, "te", {.axis = Axis::row});
    const GemmOperand made = make_operand(nvfp4_unit(), Side::a, q);
    const uint8_t *const memory = q.codes.data();
    GemmOperand o;
    o.reshape(nvfp4_unit().rule, Side::a, 40, 640); // larger, and full of something else
    std::fill(o.codes.begin(), o.codes.end(), uint8_t{0xFF});
    std::fill(o.scales.begin(), o.scales.end(), uint8_t{0xFF});
    o.adopt(nvfp4_unit().rule, Side::a, q);
    CHECK(o.codes == made.codes);
    CHECK(o.scales == made.scales);
    CHECK(o.k == k);
    CHECK(o.global.amax == made.global.amax);
    CHECK((o.codes.data() == memory) == (k != 80)); // 49 is padded to 64 as it is
  }
}
