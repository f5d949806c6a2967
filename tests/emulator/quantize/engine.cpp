// SPDX-License-Identifier: Apache-2.0
// The vector path against the definition: every convention and option, every instruction set that this CPU
// has, shapes with ragged edges, data of every range.
#include "nvfp4/emulator/quantize/engine.hpp"
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/quantize/rule_fields.hpp"
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

struct Words {
  std::mt19937 engine;
  explicit Words(uint32_t seed) : engine(seed) {}
  uint32_t operator()() { return uint32_t(engine()); }
};

enum class Fill {
  gaussian,
  any_bits,
  wide_blocks,
  few_specials,
  subnormal,
  tiny,
  huge,
  zeros,
  all_nan,
  grid
};
constexpr Fill kFills[] = {Fill::gaussian,  Fill::any_bits, Fill::wide_blocks, Fill::few_specials,
                           Fill::subnormal, Fill::tiny,     Fill::huge,        Fill::zeros,
                           Fill::all_nan,   Fill::grid};

Matrix filled(int64_t rows, int64_t cols, Fill fill, FormatId type, Words &words) {
  Matrix m = gaussian(rows, cols, words(), FormatId::f32);
  for (int64_t i = 0; i < int64_t(m.x.size()); ++i) {
    float &v = m.x[size_t(i)];
    switch (fill) {
    case Fill::gaussian: break;
    case Fill::any_bits: v = bit_cast<float>(words()); break;
    case Fill::wide_blocks: v = std::ldexp(v, int(words() % 60) - 30); break;
    case Fill::few_specials: {
      constexpr float kSpecial[] = {INFINITY, -INFINITY, NAN, -NAN, 0.0f, -0.0f, kFltMax, 0x1p-149f};
      if (words() % 97 == 0) v = kSpecial[words() % 8];
      break;
    }
    case Fill::subnormal: v *= 0x1p-128f; break;
    case Fill::tiny: v *= std::ldexp(1.0f, -100 - int(i / 64 % 28)); break;
    case Fill::huge: v *= std::ldexp(1.0f, 100 + int(i / 64 % 27)); break;
    case Fill::zeros: v = i / 40 % 3 == 0 ? v : i % 2 == 0 ? 0.0f : -0.0f; break;
    case Fill::all_nan:
      v = bit_cast<float>(uint32_t(0x7F800001u + words() % 0x7FFFFFu) | (words() << 31));
      break;
    case Fill::grid: { // exact ties and their neighbours
      constexpr float kTies[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 6.0f};
      const uint32_t near = bit_cast<uint32_t>(kTies[words() % 8]) + words() % 3 - 1;
      v = std::ldexp(bit_cast<float>(near), int(i / 48 % 5)) * (words() % 2 == 0 ? 1.0f : -1.0f);
    }
    }
    if (type != FormatId::f32) v = round_to(type, v);
  }
  return m;
}

bool same_words(const std::vector<float> &a, const std::vector<float> &b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
           return bit_cast<uint32_t>(x) == bit_cast<uint32_t>(y);
         });
}

void check_equal(const BlockScaled &want, const BlockScaled &got) {
  CHECK((want.codes == got.codes));
  CHECK((want.scales == got.scales));
  CHECK(same_words(want.row_amax, got.row_amax));
  CHECK(same_words({want.global_amax, want.global_encode, want.global_decode},
                   {got.global_amax, got.global_encode, got.global_decode}));
}

std::vector<Isa> vector_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : kVectorIsas)
    if (supported(isa)) isas.push_back(isa);
  return isas;
}

void check_all_isas(const Matrix &m, const Convention &c, QuantizeOptions o) {
  const auto run = [&](Isa isa, int threads) {
    o.isa = isa;
    o.threads = threads;
    return quantize(m.view(), c, o);
  };
  const BlockScaled want = run(Isa::scalar, 1);
  for (const Isa isa : vector_isas())
    for (const int threads : {1, 3}) {
      INFO(to_string(isa) << ", " << threads << " threads, axis " << int(o.axis) << ", block_rows "
                          << o.block_rows << ", rounding " << int(o.rounding) << ", hadamard " << o.hadamard
                          << ", source " << int(o.source));
      check_equal(want, run(isa, threads));
    }
}

/// All options that the convention takes together.
std::vector<QuantizeOptions> all_options(const Convention &c) {
  std::vector<QuantizeOptions> list;
  for (const Axis axis : {Axis::row, Axis::col})
    for (const int block_rows : {1, c.rule.block == 128 ? 128 : 16})
      for (const bool hadamard : {false, true})
        for (const ElementRounding rounding : {ElementRounding::nearest, ElementRounding::sr_carry8,
                                               ElementRounding::sr_te, ElementRounding::sr_exact}) {
          const bool stochastic = rounding != ElementRounding::nearest;
          if (stochastic && (!c.can.stochastic || c.rule.four_over_six != FourOverSix::off)) continue;
          if (rounding == ElementRounding::sr_te && c.rule.element != FormatId::e2m1) continue;
          if (hadamard && (!c.can.hadamard || block_rows != 1)) continue;
          if (block_rows != 1 && !c.can.tiles) continue;
          list.push_back({.axis = axis,
                          .block_rows = block_rows,
                          .rounding = rounding,
                          .key = {.seed = 0x123456789ABCDEFu, .offset = 0xFEDCBA9876543210u},
                          .hadamard = hadamard});
        }
  return list;
}

} // namespace

TEST_CASE("the vector path is the definition, for every convention and option", "[quantize][engine]") {
  Words words(71);
  for (const Convention &c : conventions()) {
    CAPTURE(c.name);
    for (QuantizeOptions o : all_options(c))
      for (const Fill fill : kFills) {
        o.source = std::array{FormatId::f32, FormatId::bf16, FormatId::f16}[words() % 3];
        const int step = o.hadamard ? 16 : 1;
        const int64_t along =
            std::array{1, 3, 17, 20}[words() % 4] * (o.hadamard ? 16 : 15) + step * int(words() % 16);
        const int64_t across = 1 + int64_t(words() % 36);
        const bool row = o.axis == Axis::row;
        const Matrix m = filled(row ? across : along, row ? along : across, fill, o.source, words);
        CAPTURE(int(fill), m.rows, m.cols);
        check_all_isas(m, c, o);
      }
  }
}

TEST_CASE("what the vector path covers", "[quantize][engine]") {
  const Matrix m(1, 1);
  for (const Isa isa : vector_isas()) {
    const bool kernels = isa != Isa::neon && isa != Isa::neon_dot; // there are none for ARM
    for (const Convention &c : conventions())
      for (QuantizeOptions o : all_options(c))
        for (const FormatId source : {FormatId::f32, FormatId::bf16, FormatId::f16}) {
          o.source = source;
          o.isa = isa;
          const FormatId e = c.rule.element;
          const bool scalar = c.name == "ggml" || c.name == "mxfp4-ggml" ||
                              c.name == "mxfp4-compressed-tensors" || c.name == "torchao015" || c.name == "alto-nvfp4" || c.rule.scale == FormatId::f32 || c.rule.scale == FormatId::ue5m3 ||
                              (e != FormatId::e2m1 && e != FormatId::e4m3 && e != FormatId::e5m2) ||
                              c.rule.scale == FormatId::ue5m3g || c.name == "metis-nvfp4" || c.name == "quartet2-eden" ||
                              c.name.starts_with("fouroversix-static") || c.name == "fouroversix-unbiased" || c.name == "mxfp4-alto" ||
                              c.name == "mxfp4-uos" || o.rounding == ElementRounding::sr_mid8 ||
                              (c.name == "compressed-tensors" && source == FormatId::f16);
          CAPTURE(c.name, int(o.rounding), int(source));
          const quant::Engine engine(m.view(), c.rule, o, 1);
          CHECK(engine.covers() == (kernels && !scalar));
          CHECK(engine.in_columns() ==
                (kernels && !scalar && o.axis == Axis::col && o.block_rows == 1 && !c.rule.per_row));
        }
  }
}

TEST_CASE("whole groups, dense and strided, give the same codes", "[quantize][engine]") {
  Words words(72);
  for (const Convention &c : conventions()) {
    CAPTURE(c.name);
    for (const QuantizeOptions &o : all_options(c)) {
      const Matrix m = filled(32, 512, Fill::wide_blocks, FormatId::f32, words);
      check_all_isas(m, c, o);
      const MatrixView<const float> inside(m.x.data() + 3, 32, 496, 512);
      Matrix dense(32, 496);
      for (int64_t r = 0; r < 32; ++r) std::copy_n(inside.row(r), 496, dense.x.begin() + r * 496);
      check_equal(quantize(dense.view(), c, o), quantize(inside, c, o));
    }
  }
}

TEST_CASE("columns over several bands, ragged and strided", "[quantize][engine]") {
  Words words(75);
  for (const char *const name : {"te", "modelopt", "te-4over6", "mxfp4", "mxfp8-e4m3", "mxfp8-e5m2-ceil"}) {
    const Convention &c = find_convention(name);
    for (const QuantizeOptions &o : all_options(c)) {
      if (o.axis != Axis::col || o.block_rows != 1) continue;
      for (const auto &[rows, cols] : {std::pair<int64_t, int64_t>(528, 272), {272, 533}, {1040, 40}})
        for (const Fill fill : {Fill::few_specials, Fill::wide_blocks}) {
          CAPTURE(name, rows, cols, int(fill));
          const Matrix m = filled(rows, cols, fill, FormatId::f32, words);
          check_all_isas(m, c, o);
          for (const Isa isa : vector_isas()) {
            QuantizeOptions own = o;
            own.isa = isa;
            const bool kernels = isa != Isa::neon && isa != Isa::neon_dot;
            CHECK(quant::Engine(m.view(), c.rule, own, 1).in_columns() == kernels);
          }
          const MatrixView<const float> inside(m.x.data() + 5, rows, cols - 9, cols);
          Matrix dense(rows, cols - 9);
          for (int64_t r = 0; r < rows; ++r) std::copy_n(inside.row(r), cols - 9, dense.x.begin() + r * (cols - 9));
          check_equal(quantize(dense.view(), c, o), quantize(inside, c, o));
        }
    }
  }
}

TEST_CASE("given maxima and scales of any size", "[quantize][engine]") {
  Words words(73);
  const float values[] = {0.0f,     1.0f,      0x1p-149f, 0x1p-126f, 1e-30f, 3e4f, 1e30f, 0x1p120f, kFltMax,
                          INFINITY, -INFINITY, NAN,       -1.0f,     -0.0f,  6.0f, 448.f, 2688.0f,  1e-38f};
  for (const Convention &c : conventions()) {
    CAPTURE(c.name);
    if (!has_tensor_level(c.rule)) continue;
    const bool scale = takes_encode(c.rule) || stores_decode(c.rule);
    for (const float value : values)
      for (const Fill fill :
           {Fill::gaussian, Fill::any_bits, Fill::wide_blocks, Fill::subnormal, Fill::tiny, Fill::huge}) {
        CAPTURE(value, int(fill));
        const FormatId type = words() % 2 == 0 ? FormatId::f32 : FormatId::bf16;
        const Matrix m = filled(3, 290, fill, type, words);
        check_all_isas(m, c, {.source = type, .global_amax = value});
        if (scale) check_all_isas(m, c, {.source = type, .global_scale = value});
      }
  }
}

TEST_CASE("a tensor's memory can be used again", "[quantize][engine]") {
  Words words(74);
  BlockScaled out;
  for (const auto &[rows, cols] : {std::pair<int64_t, int64_t>(40, 512), {7, 33}, {0, 16}, {64, 96}, {3, 0}})
    for (const Convention &c : conventions()) {
      CAPTURE(c.name, rows, cols);
      const Matrix m = filled(rows, cols, Fill::few_specials, FormatId::f32, words);
      quantize_into(out, m.view(), c, {.layout = ScaleLayout::tiled_128x4});
      check_equal(quantize(m.view(), c, {.layout = ScaleLayout::tiled_128x4}), out);
      CHECK(out.convention == c.name);
      CHECK(out.rows == rows);
    }
}

TEST_CASE("a rule with one step changed is the definition's on every instruction set", "[quantize][engine]") {
  Words words(23);
  Matrix m = filled(40, 56, Fill::wide_blocks, FormatId::f32, words);
  std::fill_n(m.x.begin() + 56, 5 * 56, 0.0f);
  m(7, 3) = -0.0f;
  m(9, 9) = 0x1p-140f;
  const auto bits = [](FormatId f) { return format(f).storage_bits; };
  int64_t changes = 0, vectors = 0;
  for (const Convention &c : conventions()) {
    for_each_rule_field([&]<class T>(const char *name, T Rule::*member, const std::vector<T> &values) {
      for (const T value : values) {
        Convention changed = c;
        changed.rule.*member = value;
        if (changed.rule.block != c.rule.block || bits(changed.rule.element) != bits(c.rule.element) ||
            bits(changed.rule.scale) != bits(c.rule.scale) || changed.rule == c.rule)
          continue;
        CAPTURE(c.name, name, field_text(value));
        for (const Axis axis : {Axis::row, Axis::col}) {
          const auto made = [&](Isa isa) -> std::optional<BlockScaled> {
            try {
              return quantize(m.view(), changed, {.axis = axis, .threads = 1, .isa = isa});
            } catch (const Error &) { // a step without a meaning there
              return std::nullopt;
            }
          };
          const std::optional<BlockScaled> want = made(Isa::scalar);
          for (const Isa isa : vector_isas()) {
            const std::optional<BlockScaled> got = made(isa);
            REQUIRE(got.has_value() == want.has_value());
            if (!got) continue;
            ++vectors;
            if (got->codes != want->codes || got->scales != want->scales) FAIL_CHECK("other words");
          }
          ++changes;
        }
      }
    });
  }
  CHECK(changes > 4000);
  CHECK((vectors > 0) == !vector_isas().empty());
}
