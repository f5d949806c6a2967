// SPDX-License-Identifier: Apache-2.0
// One call from operands to outputs: chains that continue an accumulator, every field of the epilogue,
// groups, scales by ranges, and what the result says about the engine.
#include "nvfp4/emulator/gemm/epilogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "tests/emulator/gemm/support.hpp"

#include <algorithm>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

const Unit &nvfp4_unit() { return find_unit("sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"); }

/// Every family of arithmetic, every accumulator.
constexpr const char *kUnits[] = {"sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16",
                                  "sm_100:tcgen05.k64.f32.mxf4.ue8m0.block32",
                                  "sm_90:wgmma.k16.f32.bf16",
                                  "sm_90:wgmma.k16.f32.f16",
                                  "sm_90:wgmma.k8.f32.tf32",
                                  "sm_90:wgmma.k32.f32.e4m3.e5m2",
                                  "sm_90:wgmma.k16.f16.f16",
                                  "sm_90:mma.m16n8k32.f32.e4m3",
                                  "sm_90:mma.m8n8k4.f64.f64",
                                  "sm_100:tcgen05.k32.f32.mxf8f6f4.e4m3.e2m3.ue8m0.block32"};

enum class Data { friendly, hard };

/// Codes of normals, and scales around 1; hard: raw bytes here and there, so NaN, Inf, huge and tiny values
/// occur.
Matrix random_matrix(const UnitRule &rule, Side side, int64_t rows, int64_t k, Data data, Random &random) {
  const FormatId id = side == Side::a ? rule.a : rule.b;
  const int bits = format(id).storage_bits;
  const int64_t stride = (k * bits + 7) / 8;
  Matrix m{rows, k, std::vector<uint8_t>(size_t(rows * stride)), {}};
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i) {
      const double x = random.below(8) == 0 ? 0.0 : random.normal() * (random.below(50) == 0 ? 40 : 1);
      uint64_t word = convert(format(id), format(FormatId::f64), bit_cast<uint64_t>(x),
                              Rounding::nearest_even, bits <= 8 ? Overflow::satfinite : Overflow::ieee);
      if (data == Data::hard && random.below(60) == 0) word = random();
      uint8_t *at = m.codes.data() + r * stride + i * bits / 8;
      if (bits == 4)
        *at = uint8_t(*at | (word & 15) << (i % 2 * 4));
      else
        std::memcpy(at, &word, size_t(bits / 8));
    }
  if (rule.scale_block == 0) return m;
  m.scales.resize(size_t(rows * ((k + rule.scale_block - 1) / rule.scale_block)));
  for (uint8_t &s : m.scales) {
    s = rule.scale == FormatId::ue8m0 ? uint8_t(120 + random.below(14)) : uint8_t(0x28 + random.below(32));
    if (data == Data::hard && random.below(40) == 0) s = uint8_t(random());
  }
  return m;
}

GemmOperand operand(const Unit &unit, Side side, const Matrix &m) {
  return make_operand(unit, side, RawCodes{m.rows, m.k, m.codes}, {m.scales, ScaleLayout::linear});
}

/// Columns [first, last) of K.
Matrix part_of(const UnitRule &rule, Side side, const Matrix &m, int64_t first, int64_t last) {
  const int bits = format(side == Side::a ? rule.a : rule.b).storage_bits;
  const int64_t stride = (m.k * bits + 7) / 8;
  Matrix p{m.rows, last - first, {}, {}};
  for (int64_t r = 0; r < m.rows; ++r) {
    const auto row = m.codes.begin() + r * stride;
    p.codes.insert(p.codes.end(), row + first * bits / 8, row + (last * bits + 7) / 8);
    if (rule.scale_block == 0) continue;
    const int64_t block = rule.scale_block, blocks = (m.k + block - 1) / block;
    const auto scales = m.scales.begin() + r * blocks;
    p.scales.insert(p.scales.end(), scales + first / block, scales + (last + block - 1) / block);
  }
  return p;
}

/// Rows [first, last).
Matrix rows_of(const Matrix &m, int64_t first, int64_t last) {
  const auto cut = [&](const std::vector<uint8_t> &v) {
    const int64_t stride = int64_t(v.size()) / m.rows;
    return std::vector<uint8_t>(v.begin() + first * stride, v.begin() + last * stride);
  };
  return {last - first, m.k, cut(m.codes), cut(m.scales)};
}

std::span<const uint8_t> raw(const auto &v) {
  return {reinterpret_cast<const uint8_t *>(v.data()), sizeof v[0] * v.size()};
}

} // namespace

TEST_CASE("a chain cut in two and continued from its accumulators is the whole chain", "[gemm][start]") {
  Random random{61};
  for (const char *name : kUnits)
    for (const Data data : {Data::friendly, Data::hard})
      for (const int64_t tail : {1, 70}) {
        const Unit &unit = find_unit(name);
        const int64_t first = unit.rule.k * 3, k = first + tail, m = 21, n = 35;
        const Matrix a = random_matrix(unit.rule, Side::a, m, k, data, random),
                     b = random_matrix(unit.rule, Side::b, n, k, data, random);
        for (const Accumulation model : {Accumulation::mmasim, Accumulation::nadpe, Accumulation::exact}) {
          if (model != Accumulation::mmasim && unit.rule.family != Family::gst_fdpa) continue;
          const std::vector<uint64_t> whole = accumulate(unit, a, b, Isa::scalar, model);
          const std::vector<uint64_t> start =
              accumulate(unit, part_of(unit.rule, Side::a, a, 0, first),
                         part_of(unit.rule, Side::b, b, 0, first), Isa::scalar, model);
          const GemmOperand x = operand(unit, Side::a, part_of(unit.rule, Side::a, a, first, k)),
                            y = operand(unit, Side::b, part_of(unit.rule, Side::b, b, first, k));
          GemmOptions options{.accumulation = model, .threads = 2};
          if (unit.rule.acc == FormatId::f64) options.out = FormatId::f64;
          const int width = format(unit.rule.acc).storage_bits / 8;
          std::vector<uint8_t> packed;
          for (const uint64_t w : start)
            for (int i = 0; i < width; ++i) packed.push_back(uint8_t(w >> (8 * i)));
          for (const Isa isa : kIsas) {
            if (!supported(isa)) continue;
            options.isa = isa;
            INFO(name << " " << to_string(isa) << " " << to_string(model) << " " << int(data));
            std::vector<uint64_t> acc(start.size(), 0xDEADBEEF);
            GemmPlan(unit, options).accumulate(x, y, acc, start);
            CHECK(first_difference(acc, whole, n) == "");
            for (const bool oracle : {false, true}) {
              if (oracle && (isa != Isa::scalar || tail == 70)) continue;
              options.oracle = oracle;
              const GemmResult d = multiply(unit, x, y, options, {.start = packed});
              int64_t wrong = 0;
              for (int64_t o = 0; o < m * n; ++o)
                wrong += CodeView{d.words.data(), format(d.format).storage_bits}[o] !=
                         finish_output({}, unit.rule.acc, whole[size_t(o)]);
              CHECK(wrong == 0);
            }
          }
        }
      }
}

TEST_CASE("chains start from any accumulator word: zeros of both signs, tiny, huge, Inf and NaN",
          "[gemm][start]") {
  Random random{62};
  const uint32_t starts[] = {0,          0x80000000, 1,          0x80000001, 0x00800000, 0x0C800000,
                             0x0D000000, 0x0D7FFFFF, 0x3F800000, 0xBF800001, 0x71800000, 0x71FFFFFF,
                             0x72000000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF};
  for (const char *name : kUnits) {
    const Unit &unit = find_unit(name);
    if (unit.rule.acc != FormatId::f32) continue;
    for (const int64_t k : {int64_t{0}, int64_t{unit.rule.k}, int64_t{5 * unit.rule.k}}) {
      const int64_t m = 19, n = 33;
      Matrix a = random_matrix(unit.rule, Side::a, m, k, Data::friendly, random);
      const Matrix b = random_matrix(unit.rule, Side::b, n, k, Data::friendly, random);
      std::fill_n(a.codes.begin(), a.codes.size() / size_t(m), uint8_t{0}); // a row of zeros
      std::vector<uint64_t> start(size_t(m * n));
      for (uint64_t &w : start)
        w = random.below(3) == 0 ? bit_cast<uint32_t>(float(random.normal())) : starts[random.below(18)];
      const GemmOperand x = operand(unit, Side::a, a), y = operand(unit, Side::b, b);
      std::vector<uint64_t> want(start.size());
      for (int64_t o = 0; o < m * n; ++o) {
        const DotOperands op{x.row(o / n), y.row(o % n), x.row_scales(o / n), y.row_scales(o % n)};
        want[size_t(o)] = dot(unit.rule, op, x.padded_k, start[size_t(o)]);
      }
      for (const Isa isa : kIsas) {
        if (!supported(isa)) continue;
        std::vector<uint64_t> acc(start.size(), 0xDEADBEEF);
        const GemmReport report = GemmPlan(unit, {.isa = isa}).accumulate(x, y, acc, start);
        INFO(name << " " << to_string(isa) << " K " << k);
        CHECK(first_difference(acc, want, n) == "");
        if (report.engine == GemmEngine::fdpa_vector) { // the ordinary starts stay on the kernels
          CHECK(report.by_definition > 0);
          CHECK(report.by_definition < m * n);
        }
      }
    }
  }
}

TEST_CASE("every field of the epilogue, in the order it is documented, for every output type",
          "[gemm][epilogue]") {
  Random random{63};
  for (const char *name : kUnits) {
    const Unit &unit = find_unit(name);
    const bool f64 = unit.rule.acc == FormatId::f64;
    const int64_t m = 13, n = 37, k = 2 * unit.rule.k + 3;
    const Matrix a = random_matrix(unit.rule, Side::a, m, k, Data::hard, random),
                 b = random_matrix(unit.rule, Side::b, n, k, Data::hard, random);
    const std::vector<uint64_t> acc = accumulate(unit, a, b, Isa::scalar);
    const GemmOperand x = operand(unit, Side::a, a), y = operand(unit, Side::b, b);
    std::vector<float> c(size_t(m * n)), bias(size_t(n), 0.0f), rows(size_t(m), 0.0f),
        columns(size_t(n), 0.0f);
    for (std::vector<float> *v : {&c, &bias, &rows, &columns})
      for (float &e : *v)
        e = random.below(12) == 0 ? -0.0f : random.below(30) == 0 ? NAN : float(random.normal() * 3);
    const std::vector<double> wide(c.begin(), c.end());
    for (const FormatId out : {FormatId::f32, FormatId::bf16, FormatId::f16, FormatId::f64}) {
      if ((out == FormatId::f64) != f64) continue;
      for (int fields = 0; fields < 16; ++fields) {
        const bool with_c = (fields & 1) != 0, with_bias = (fields & 2) != 0, by_row = (fields & 4) != 0,
                   by_column = (fields & 8) != 0;
        if (with_c && (by_row || by_column)) continue;
        GemmOptions options{.alpha = -0.37f, .beta = with_c ? -1.5f : 0.0f, .out = out};
        GemmInputs in;
        if (with_c) in.c = f64 ? raw(wide) : raw(c);
        if (with_bias) in.bias = bias;
        if (by_row) in.row_factors = rows;
        if (by_column) in.column_factors = columns;
        for (const Isa isa : kIsas) {
          if (!supported(isa)) continue;
          options.isa = isa;
          const GemmResult d = multiply(unit, x, y, options, in);
          int64_t wrong = 0;
          for (int64_t o = 0; o < m * n; ++o) {
            const size_t i = size_t(o / n), j = size_t(o % n);
            const auto compose = [&](auto value, auto source) {
              using T = decltype(value);
              T v = with_c ? std::fma(T(-0.37f), value, T(-1.5f) * source) : T(-0.37f) * value;
              if (by_row && by_column)
                v = v * T(rows[i] * columns[j]);
              else if (by_row)
                v = v * T(rows[i]);
              else if (by_column)
                v = v * T(columns[j]);
              if (with_bias) v = v + T(bias[j]);
              return v;
            };
            uint64_t want = 0;
            if (f64) {
              const double v = compose(bit_cast<double>(acc[size_t(o)]), wide[size_t(o)]);
              want = v != v ? 0xFFF8000000000000 : bit_cast<uint64_t>(v);
            } else {
              const float v = compose(value_f32(unit.rule.acc, acc[size_t(o)]), c[size_t(o)]);
              want = convert(format(out), format(FormatId::f32), bit_cast<uint32_t>(v),
                             Rounding::nearest_even, Overflow::ieee);
            }
            wrong += CodeView{d.words.data(), format(out).storage_bits}[o] != want;
          }
          INFO(name << " " << to_string(isa) << " " << format(out).name << " fields " << fields);
          CHECK(wrong == 0);
        }
      }
    }
    const std::vector<float> shorter(size_t(n - 1), 0.0f);
    CHECK_THROWS_AS(multiply(unit, x, y, {.out = f64 ? FormatId::f64 : FormatId::f32}, {.bias = shorter}),
                    Error);
    CHECK_THROWS_AS(
        multiply(unit, x, y, {.out = f64 ? FormatId::f64 : FormatId::f32}, {.start = raw(shorter)}), Error);
    CHECK_THROWS_AS(multiply(unit, x, y, {.beta = 1.0f, .out = f64 ? FormatId::f64 : FormatId::f32}), Error);
    CHECK_THROWS_AS(multiply(unit, x, y, {.beta = 1.0f, .out = f64 ? FormatId::f64 : FormatId::f32},
                             {.c = f64 ? raw(wide) : raw(c), .row_factors = rows}),
                    Error);
  }
}

TEST_CASE("scales by ranges of rows and columns are separate products side by side", "[gemm][ranges]") {
  Random random{64};
  const Unit &unit = nvfp4_unit();
  const int64_t m = 40, n = 67, k = 130;
  const Matrix a = random_matrix(unit.rule, Side::a, m, k, Data::hard, random),
               b = random_matrix(unit.rule, Side::b, n, k, Data::hard, random);
  const Convention &te = find_convention("te");
  const std::vector<RowsFactor> shards = {{0, 1, {&te, 3.0f, 3.0f / 2688}},
                                          {1, 30, {&te, 0.7f, 0.7f / 2688}},
                                          {30, 30, {}},
                                          {30, 67, {&te, 11.0f, 11.0f / 2688}}};
  const std::vector<RowsFactor> tokens = {{0, 17, {&te, 1.1f, 1.1f / 2688}},
                                          {17, 40, {&te, 2.3f, 2.3f / 2688}}};
  GemmOperand x = operand(unit, Side::a, a), y = operand(unit, Side::b, b);
  x.set_parts(tokens);
  y.set_parts(shards);
  std::vector<float> bias(size_t(n), 0.0f);
  for (float &v : bias) v = float(random.normal());
  for (const Isa isa : kIsas) {
    if (!supported(isa)) continue;
    for (const FormatId out : {FormatId::f32, FormatId::bf16}) {
      const GemmResult d = multiply(unit, x, y, {.alpha = 1.7f, .out = out, .isa = isa}, {.bias = bias});
      for (const RowsFactor &t : tokens)
        for (const RowsFactor &s : shards) {
          GemmOperand u = operand(unit, Side::a, rows_of(a, t.first, t.last)),
                      v = operand(unit, Side::b, rows_of(b, s.first, s.last));
          u.global = t.factor;
          v.global = s.factor;
          const GemmResult one =
              multiply(unit, u, v, {.alpha = 1.7f, .out = out, .isa = isa},
                       {.bias = std::span(bias).subspan(size_t(s.first), size_t(s.last - s.first))});
          int64_t wrong = 0;
          for (int64_t i = 0; i < u.rows; ++i)
            for (int64_t j = 0; j < v.rows; ++j) {
              const int bits = format(out).storage_bits;
              wrong += CodeView{d.words.data(), bits}[(t.first + i) * n + s.first + j] !=
                       CodeView{one.words.data(), bits}[i * v.rows + j];
            }
          CHECK(wrong == 0);
        }
    }
  }
  CHECK_THROWS_AS(y.set_parts({{0, 30, {}}, {31, 67, {}}}), Error);
  CHECK_THROWS_AS(y.set_parts({{0, 30, {}}, {29, 67, {}}}), Error);
  CHECK_THROWS_AS(y.set_parts({{0, 66, {}}}), Error);
}

TEST_CASE("a grouped product is its groups' products, one below the other", "[gemm][groups]") {
  Random random{65};
  for (const char *name : kUnits) {
    const Unit &unit = find_unit(name);
    const std::vector<int64_t> rows = {5, 0, 1, 34};
    const int64_t groups = 4, m = 40, n = 19, k = unit.rule.k + 7;
    const bool f64 = unit.rule.acc == FormatId::f64;
    const Matrix a = random_matrix(unit.rule, Side::a, m, k, Data::friendly, random),
                 b = random_matrix(unit.rule, Side::b, groups * n, k, Data::hard, random);
    std::vector<float> c(size_t(m * n)), bias(size_t(n), 0.5f);
    for (float &v : c) v = float(random.normal());
    const std::vector<double> wide(c.begin(), c.end());
    GemmOptions options{
        .alpha = 0.9f, .beta = 0.25f, .out = f64 ? FormatId::f64 : FormatId::f32, .groups = rows};
    GemmOperand y = operand(unit, Side::b, b);
    std::vector<RowsFactor> experts;
    for (int64_t g = 0; g < groups; ++g)
      experts.push_back({g * n, (g + 1) * n, {nullptr, 1.0f, float(g + 1) * 0.3f}});
    y.set_parts(experts);
    const size_t width = f64 ? 8 : 4, word = size_t(format(unit.rule.acc).storage_bits / 8);
    const std::span<const uint8_t> source = f64 ? raw(wide) : raw(c);
    std::vector<uint8_t> start(size_t(m * n) * size_t(format(unit.rule.acc).storage_bits / 8));
    for (uint8_t &byte : start) byte = uint8_t(random());
    for (const Isa isa : kIsas) {
      if (!supported(isa)) continue;
      options.isa = isa;
      double last = 0;
      options.threads = 1; // progress comes from the first thread alone, which else may find no work
      options.progress = [&](double f) { last = f; };
      const GemmResult d =
          multiply(unit, operand(unit, Side::a, a), y, options, {.start = start, .c = source, .bias = bias});
      CHECK(last == 1.0);
      CHECK((d.m == m && d.n == n));
      int64_t first = 0;
      for (int64_t g = 0; g < groups; first += rows[size_t(g)], ++g) {
        const int64_t end = first + rows[size_t(g)];
        GemmOperand v = operand(unit, Side::b, rows_of(b, g * n, (g + 1) * n));
        v.global = experts[size_t(g)].factor;
        GemmOptions one = options;
        one.groups.clear();
        const size_t from = size_t(first * n) * width, bytes = size_t((end - first) * n) * width;
        const GemmResult e =
            multiply(unit, operand(unit, Side::a, rows_of(a, first, end)), v, one,
                     {.start = std::span(start).subspan(from / width * word, bytes / width * word),
                      .c = source.subspan(from, bytes),
                      .bias = bias});
        INFO(name << " " << to_string(isa) << " group " << g);
        CHECK(std::equal(e.words.begin(), e.words.end(), d.words.begin() + int64_t(from)));
      }
    }
    options.groups = {5, 34};
    CHECK_THROWS_AS(multiply(unit, operand(unit, Side::a, a), y, options, {.c = source}),
                    Error); // 39 rows of 40
    options.groups = {5, 0, 35};
    CHECK_THROWS_AS(multiply(unit, operand(unit, Side::a, a), y, options, {.c = source}),
                    Error); // 76 rows in 3
  }
}

TEST_CASE("the result says which engine ran and what it left to the definition", "[gemm][report]") {
  Random random{66};
  const auto run = [&](const char *name, Data data, Isa isa, uint8_t in_row_0 = 0) {
    const Unit &unit = find_unit(name);
    Matrix a = random_matrix(unit.rule, Side::a, 32, 4 * unit.rule.k, data, random);
    const Matrix b = random_matrix(unit.rule, Side::b, 32, 4 * unit.rule.k, data, random);
    if (in_row_0 != 0) std::fill_n(a.codes.begin(), 4, in_row_0); // 0x7F: the largest BF16; 0xFF: NaN
    return multiply(unit, operand(unit, Side::a, a), operand(unit, Side::b, b), {.isa = isa}).report;
  };
  const char *const bf16 = "sm_90:wgmma.k16.f32.bf16", *const fp4 = kUnits[0];
  const GemmReport scalar = run(fp4, Data::friendly, Isa::scalar);
  CHECK(scalar.engine == GemmEngine::definition);
  CHECK(scalar.by_definition == 32 * 32);
  for (const Isa isa : kVectorIsas) {
    if (!supported(isa)) continue;
    const GemmReport quick = run(fp4, Data::friendly, isa), dense = run(bf16, Data::friendly, isa),
                     far = run(bf16, Data::friendly, isa, 0x7F), nan = run(bf16, Data::friendly, isa, 0xFF);
    CHECK((quick.engine == GemmEngine::fp4_vector && quick.isa == isa && quick.by_definition == 0));
    CHECK((dense.engine == GemmEngine::fdpa_vector && dense.isa == isa && dense.by_definition == 0));
    CHECK((far.engine == GemmEngine::fdpa_vector && far.by_definition == 32)); // the row of the largest
    CHECK((nan.engine == GemmEngine::fdpa_vector && nan.by_definition == 0));
    CHECK(run("sm_90:wgmma.k16.f16.f16", Data::friendly, isa).engine == GemmEngine::definition);
    CHECK(run("sm_90:mma.m16n8k32.f32.e4m3", Data::friendly, isa).engine == GemmEngine::definition);
  }
  const Matrix a = random_matrix(nvfp4_unit().rule, Side::a, 2, 64, Data::friendly, random);
  const GemmOperand x = operand(nvfp4_unit(), Side::a, a), y = operand(nvfp4_unit(), Side::b, a);
  CHECK(multiply(nvfp4_unit(), x, y, {.oracle = true}).report.engine == GemmEngine::oracle);
}

TEST_CASE("a plan owns its unit", "[gemm][plan]") {
  Random random{67};
  Unit unit = nvfp4_unit();
  const Matrix a = random_matrix(unit.rule, Side::a, 5, 128, Data::friendly, random);
  const GemmOperand x = operand(unit, Side::a, a), y = operand(unit, Side::b, a);
  const std::vector<uint8_t> want = multiply(unit, x, y).words;
  const GemmPlan plan(Unit(unit), {});
  unit.rule.fraction_bits = 7;
  unit.instruction = "something else";
  CHECK(plan.unit().name() == nvfp4_unit().name());
  CHECK(plan.run(x, y).words == want);
}
