// SPDX-License-Identifier: Apache-2.0
// The FDPA engine against the definition: every unit with an FP32 accumulator, element classes from ordinary
// to raw words, ragged shapes, and sums at the edge of 32 bits.
#include "nvfp4/emulator/gemm/element_reader.hpp"
#include "nvfp4/emulator/gemm/engine.hpp"
#include "nvfp4/emulator/gemm/fdpa_panel.hpp"
#include "tests/emulator/gemm/support.hpp"

#include <algorithm>
#include <functional>
#include <limits>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

enum class Elements { normal, lognormal4, lognormal20, raw_finite, raw, largest, zeros };
constexpr Elements kClasses[] = {Elements::normal,     Elements::lognormal4, Elements::lognormal20,
                                 Elements::raw_finite, Elements::raw,        Elements::largest,
                                 Elements::zeros};
const char *name(Elements e) {
  const char *names[] = {"normal", "lognormal4", "lognormal20", "raw_finite", "raw", "largest", "zeros"};
  return names[int(e)];
}

uint64_t element(FormatId id, Elements e, Random &random) {
  const Format f = format(id);
  const auto rounded = [&](double x) {
    return convert(f, format(FormatId::f64), bit_cast<uint64_t>(x), Rounding::nearest_even,
                   Overflow::satfinite);
  };
  const double sign = random.below(2) == 0 ? 1 : -1;
  switch (e) {
  case Elements::normal: return rounded(random.normal());
  case Elements::lognormal4: return rounded(sign * std::exp2(4 * random.normal()));
  case Elements::lognormal20: return rounded(sign * std::exp2(20 * random.normal()));
  case Elements::raw_finite:
    for (;;) {
      const uint64_t w = random() & ((uint64_t{1} << f.storage_bits) - 1);
      const Decoded d = decode(f, w);
      if (d.cls == Class::finite || d.cls == Class::zero) return w;
    }
  case Elements::raw: return random() & ((uint64_t{1} << f.storage_bits) - 1);
  case Elements::largest: { // all-ones significands of few exponents: sums reach past 31 bits
    const int exponent = random.below(8) == 0 ? random.below(3) : 0;
    return rounded(std::ldexp(2 - std::ldexp(1.0, -f.mantissa_bits), exponent));
  }
  case Elements::zeros: return random.below(4) == 0 ? rounded(random.normal()) : rounded(sign * 0.0);
  }
  return 0;
}

Matrix random_matrix(const UnitRule &rule, FormatId id, int64_t rows, int64_t k, Elements e, Random &random) {
  const int bytes = format(id).storage_bits / 8;
  Matrix m{rows, k, {}, {}};
  if (bytes == 0) { // two codes to a byte
    m.codes.resize(size_t(rows * ((k + 1) / 2)));
    for (uint8_t &c : m.codes) c = uint8_t(element(id, e, random) | element(id, e, random) << 4);
  } else {
    m.codes.resize(size_t(rows * k * bytes));
    for (size_t i = 0; i < m.codes.size(); i += size_t(bytes)) {
      uint64_t word = element(id, e, random);
      // raw words, but mostly without NaN and Inf: the vector path has to see them as well
      if (e == Elements::raw && random.below(64) != 0) word = element(id, Elements::raw_finite, random);
      std::memcpy(&m.codes[i], &word, size_t(bytes));
    }
  }
  if (rule.scale_block == 0) return m;
  m.scales.resize(size_t(rows * ((k + rule.scale_block - 1) / rule.scale_block)));
  const int kind = random.below(4); // equal, near, wide, raw
  for (uint8_t &s : m.scales)
    s = kind == 0   ? uint8_t(127)
        : kind == 1 ? uint8_t(120 + random.below(14))
        : kind == 2 ? uint8_t(87 + random.below(80))
                    : uint8_t(random());
  // a block of zeros may have any scale
  const int64_t blocks = int64_t(m.scales.size()) / rows, bits = std::max(8 * bytes, 4),
                row_bytes = int64_t(m.codes.size()) / rows;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t s = 0; s < blocks; ++s) {
      if (random.below(5) != 0) continue;
      const int64_t first = s * rule.scale_block * bits / 8,
                    last = std::min(row_bytes, (s + 1) * rule.scale_block * bits / 8);
      std::fill(m.codes.begin() + r * row_bytes + first, m.codes.begin() + r * row_bytes + last, uint8_t{0});
      m.scales[size_t(r * blocks + s)] = uint8_t(random.below(2) == 0 ? 254 : random.below(4));
    }
  return m;
}

/// One unit per rule that an engine may take.
std::vector<const Unit *> units() {
  std::vector<const Unit *> list;
  std::vector<std::string> seen;
  for (const Unit &u : catalogue()) {
    const UnitRule &r = u.rule;
    if ((r.family != Family::fdpa && r.family != Family::st_fdpa) || r.acc != FormatId::f32) continue;
    const std::string key = std::to_string(int(r.family)) + " " + std::to_string(int(r.a)) + " " +
                            std::to_string(int(r.b)) + " " + std::to_string(r.k) + " " +
                            std::to_string(r.link) + " " + std::to_string(r.fraction_bits) + " " +
                            std::to_string(int(r.output));
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) continue;
    seen.push_back(key);
    list.push_back(&u);
  }
  return list;
}

} // namespace

TEST_CASE("FDPA products equal the definition on every unit with an FP32 accumulator", "[gemm][fdpa]") {
  Random random{99};
  for (const Unit *unit : units())
    for (const Elements e : kClasses) {
      const Elements other = random.below(2) == 0 ? e : kClasses[random.below(7)];
      const int64_t m = 1 + random.below(10), n = 1 + random.below(36),
                    k = 1 + random.below(random.below(6) == 0 ? 600 : 100);
      const Matrix a = random_matrix(unit->rule, unit->rule.a, m, k, e, random);
      const Matrix b = random_matrix(unit->rule, unit->rule.b, n, k, other, random);
      check_product(*unit, a, b, std::string(name(e)) + " x " + name(other), Accumulation::mmasim,
                    1 + random.below(3));
    }
}

TEST_CASE("BF16 products cross blocks of rows, columns and K", "[gemm][fdpa]") {
  const Unit &unit = find_unit("sm_90:wgmma.k16.f32.bf16");
  Random random{3};
  const Matrix a = random_matrix(unit.rule, FormatId::bf16, 262, 530, Elements::normal, random);
  const Matrix b = random_matrix(unit.rule, FormatId::bf16, 131, 530, Elements::lognormal4, random);
  const std::vector<uint64_t> want = accumulate(unit, a, b, Isa::scalar);
  for (const int threads : {1, 2, 3})
    for (const Isa isa : kVectorIsas)
      if (supported(isa))
        CHECK(first_difference(accumulate(unit, a, b, isa, Accumulation::mmasim, threads), want, b.rows) ==
              "");
}

TEST_CASE("MXFP8 blocks of zeros may have any scale", "[gemm][fdpa]") {
  const Unit &unit = find_unit("sm_100:tcgen05.k32.f32.mxf8f6f4.e4m3.ue8m0.block32");
  Random random{5};
  for (const uint8_t other : {uint8_t(20), uint8_t(127), uint8_t(180)}) {
    Matrix a{255, 96, std::vector<uint8_t>(255 * 96, 0), {}},
        b = random_matrix(unit.rule, unit.rule.b, 20, 96, Elements::normal, random);
    b.scales.assign(b.scales.size(), 127);
    for (size_t r = 0; r < 20; ++r) b.scales[3 * r + 1] = other;
    for (size_t r = 0; r < 255; ++r) {
      for (size_t k = 0; k < 32; ++k)
        a.codes[96 * r + k] = a.codes[96 * r + 64 + k] =
            uint8_t(element(unit.rule.a, Elements::normal, random));
      a.scales.insert(a.scales.end(), {uint8_t(127), uint8_t(r), uint8_t(120)});
    }
    check_product(unit, a, b, "zero block");
  }
}

namespace {

/// Dense words for a unit with 16-bit or wider elements, from values.
Matrix matrix_of(const UnitRule &rule, int64_t rows, int64_t k, const std::function<double()> &next) {
  const Format f = format(rule.a);
  const size_t bytes = size_t(f.storage_bits / 8);
  Matrix m{rows, k, std::vector<uint8_t>(size_t(rows * k) * bytes), {}};
  for (size_t i = 0; i < m.codes.size(); i += bytes) {
    const uint64_t word = convert(f, format(FormatId::f64), bit_cast<uint64_t>(next()),
                                  Rounding::nearest_even, Overflow::satfinite);
    std::memcpy(&m.codes[i], &word, bytes);
  }
  return m;
}

/// The words of `isa` and of the definition are the same, and the kernels computed every output.
void check_vouched(const Unit &unit, const Matrix &a, const Matrix &b, const std::vector<uint64_t> &start,
                   const std::string &what) {
  const GemmOperand x = make_operand(unit, Side::a, RawCodes{a.rows, a.k, a.codes}),
                    y = make_operand(unit, Side::b, RawCodes{b.rows, b.k, b.codes});
  std::vector<uint64_t> want(start.size()), got(start.size());
  GemmPlan(unit, {.isa = Isa::scalar}).accumulate(x, y, want, start);
  for (const Isa isa : kVectorIsas) {
    if (!supported(isa)) continue;
    INFO(unit.name() << " " << to_string(isa) << " " << what);
    const GemmReport report = GemmPlan(unit, {.isa = isa}).accumulate(x, y, got, start);
    CHECK(report.engine == GemmEngine::fdpa_vector);
    CHECK(report.by_definition == 0);
    CHECK(first_difference(got, want, b.rows) == "");
  }
}

} // namespace

TEST_CASE("kernels cut terms of both signs toward zero and see neither zeros nor phantoms", "[gemm][fdpa]") {
  Random random{17};
  const auto sign = [&] { return random.below(2) == 0 ? 1.0 : -1.0; };
  const auto significand = [&] { return 1 + random.below(1 << 10) * 0x1p-10; };
  const auto zero_or = [&](int one_in, double x) { return random.below(one_in) == 0 ? sign() * 0.0 : x; };
  for (const char *name : {"sm_90:wgmma.k16.f32.bf16", "sm_80:mma.m16n8k8.f32.f16",
                           "sm_90:mma.m16n8k8.f32.tf32", "sm_90:wgmma.k32.f32.e4m3"}) {
    const Unit &unit = find_unit(name);
    const bool wide = format(unit.rule.a).exponent_bits == 8; // the exponents of FP32
    const auto tails = [&] {
      return zero_or(4, sign() * significand() * std::exp2(-random.below(wide ? 26 : 8)));
    };
    const auto ends = [&] {
      return zero_or(2, sign() * significand() * std::exp2(random.below(3) == 0 ? 39 : -50));
    };
    const auto few = [&] { return zero_or(1 + random.below(40), sign() * significand()); };
    int turn = 0;
    const auto cancel = [&] {
      const int i = turn++;
      return (i / 16 % 2 == 0 ? 1 : -1) * std::exp2(i % 16 % 7);
    };
    std::vector<std::pair<const char *, std::function<double()>>> kinds{
        {"tails", tails}, {"few", few}, {"cancel", cancel}};
    if (wide) kinds.emplace_back("ends", ends); // 180 binades of products, and sums of zeros only
    for (const auto &[what, next] : kinds)
      for (int round = 0; round < 4; ++round) {
        const int64_t m = 1 + random.below(19), n = 1 + random.below(140), k = 1 + random.below(300);
        const Matrix a = matrix_of(unit.rule, m, k, next), b = matrix_of(unit.rule, n, k, next);
        std::vector<uint64_t> start(size_t(m * n));
        for (uint64_t &w : start)
          w = bit_cast<uint32_t>(float(random.below(3) == 0
                                           ? sign() * 0.0
                                           : sign() * significand() * std::exp2(random.below(190) - 95)));
        if (unit.rule.output == Output::rz_e8m13)
          for (uint64_t &w : start) w &= ~uint64_t{0x3FF};
        check_vouched(unit, a, b, start, what);
        for (uint64_t &w : start) w = 0;
        check_vouched(unit, a, b, start, std::string(what) + " from +0");
      }
  }
}

TEST_CASE("rows and columns of zeros leave every start as it is", "[gemm][fdpa]") {
  const Unit &unit = find_unit("sm_90:wgmma.k16.f32.bf16");
  Random random{31};
  const auto zero = [&] { return random.below(2) == 0 ? 0.0 : -0.0; };
  for (const double size : {-126.0, -50.0, 0.0, 60.0, 127.0}) {
    const auto number = [&] { return (random.below(2) == 0 ? 1.5 : -1.0) * std::exp2(size); };
    const Matrix zeros = matrix_of(unit.rule, 9, 40, zero), numbers = matrix_of(unit.rule, 70, 40, number);
    std::vector<uint64_t> start(9 * 70);
    for (uint64_t &w : start)
      w = bit_cast<uint32_t>(float((random.below(2) == 0 ? 1 : -1) * (1 + random.uniform()) *
                                   std::exp2(random.below(200) - 100)));
    check_vouched(unit, zeros, numbers, start, "zeros x 2^" + std::to_string(int(size)));
    check_vouched(unit, numbers, zeros, start, "2^" + std::to_string(int(size)) + " x zeros");
  }
}

TEST_CASE("rows with NaN and Inf need no definition", "[gemm][fdpa]") {
  Random random{41};
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (const char *name :
       {"sm_90:wgmma.k16.f32.bf16", "sm_80:mma.m16n8k8.f32.f16", "sm_90:wgmma.k32.f32.e5m2"}) {
    const Unit &unit = find_unit(name);
    const Format f = format(unit.rule.a);
    const uint64_t infinity = f.infinity_magnitude();
    for (int round = 0; round < 12; ++round) {
      const int64_t m = 1 + random.below(19), n = 1 + random.below(140), k = 1 + random.below(300);
      const auto next = [&] {
        return random.below(6) == 0 ? (random.below(2) == 0 ? 0.0 : -0.0) : random.normal();
      };
      Matrix a = matrix_of(unit.rule, m, k, next), b = matrix_of(unit.rule, n, k, next);
      const int one_in = std::array{20, 200, 2000}[size_t(round % 3)], nan_in = round % 2 == 0 ? 1 << 30 : 3;
      const size_t bytes = size_t(f.storage_bits / 8);
      for (Matrix *const x : {&a, &b})
        for (size_t i = 0; i < x->codes.size(); i += bytes)
          if (random.below(one_in) == 0) {
            const uint64_t word =
                with_sign(f, random.below(2) == 0, infinity + (random.below(nan_in) == 0 ? 1 : 0));
            std::memcpy(&x->codes[i], &word, bytes);
          }
      check_vouched(unit, a, b, std::vector<uint64_t>(size_t(m * n)), "Inf 1 in " + std::to_string(one_in));
    }
  }
  // what overflows by itself, and chains that continue Inf or NaN, stay the definition's
  const Unit &unit = find_unit("sm_90:wgmma.k16.f32.bf16");
  const auto huge = [&] {
    return (random.below(2) == 0 ? 1.0 : -1.0) * (random.below(9) == 0 ? kInf : 0x1p120);
  };
  for (int round = 0; round < 20; ++round) {
    Matrix a = matrix_of(unit.rule, 9, 40, huge), b = matrix_of(unit.rule, 20, 40, huge);
    for (Matrix *const x : {&a, &b})
      for (size_t i = 0; i < x->codes.size(); i += 2) // satfinite made the largest number of Inf
        if (x->codes[i] == 0x7F && (x->codes[i + 1] & 0x7F) == 0x7F) x->codes[i] = 0x80;
    check_product(unit, a, b, "huge");
    std::vector<uint64_t> start(9 * 20), want(start.size()), got(start.size());
    for (uint64_t &w : start)
      w = std::array{0x7F800000u, 0xFF800000u, 0x7FC00000u, 0x3F800000u}[size_t(random.below(4))];
    const Matrix c = matrix_of(unit.rule, 9, 40, [&] { return random.normal(); });
    Matrix d = matrix_of(unit.rule, 20, 40, [&] { return random.normal(); });
    for (size_t i = 0; i < d.codes.size(); i += 2)
      if (random.below(30) == 0)
        d.codes[i] = 0x80, d.codes[i + 1] = random.below(2) == 0 ? 0x7F : 0xFF; // Inf
    const GemmOperand x = make_operand(unit, Side::a, RawCodes{c.rows, c.k, c.codes}),
                      y = make_operand(unit, Side::b, RawCodes{d.rows, d.k, d.codes});
    GemmPlan(unit, {.isa = Isa::scalar}).accumulate(x, y, want, start);
    for (const Isa isa : kVectorIsas) {
      if (!supported(isa)) continue;
      (void)GemmPlan(unit, {.isa = isa}).accumulate(x, y, got, start);
      CHECK(first_difference(got, want, 20) == "");
    }
  }
}

TEST_CASE("tasks of the FDPA engine take each output once, narrower ones where threads would have none", "[gemm][fdpa]") {
  const auto tasks = [](int64_t rows, int64_t cols, int threads) {
    gemm::Job job{};
    job.rows = rows;
    job.cols = cols;
    job.threads = threads;
    return gemm::fdpa_tasks(job, 14);
  };
  CHECK(tasks(512, 512, 2).size() < tasks(512, 512, 64).size());
  CHECK(tasks(1024, 1024, 64).size() >= 64);
  for (const int64_t rows : {1, 70, 512, 1100})
    for (const int64_t cols : {1, 128, 129, 257, 700})
      for (const int threads : {1, 2, 5, 64}) {
        CAPTURE(rows, cols, threads);
        std::vector<int> taken(size_t(rows * cols));
        int64_t widest = 0;
        for (const gemm::Task &t : tasks(rows, cols, threads)) {
          widest = std::max(widest, t.cols);
          for (int64_t i = t.row; i < t.row + t.rows; ++i)
            for (int64_t j = t.col; j < t.col + t.cols; ++j) ++taken.at(size_t(i * cols + j));
        }
        CHECK(std::ranges::all_of(taken, [](int n) { return n == 1; }));
        if (threads == 1) CHECK(widest == std::min<int64_t>(cols, 256));
        if (threads == 64 && rows <= 512) CHECK(widest <= 128);
      }
}

TEST_CASE("kernels of AVX-512 give the same with and without VPOPCNTDQ", "[gemm][fdpa]") {
  const gemm::FdpaKernels *const both[] = {gemm::fdpa_avx512(), gemm::fdpa_kernels(Isa::avx512)};
  if (!supported(Isa::avx512) || both[0] == both[1]) return;
  Random random{23};
  for (const int link : {4, 8, 16, 32}) {
    const gemm::FdpaStep step{link, 25, false};
    const int64_t steps = 19, n = steps * link;
    std::vector<float> out[2];
    for (int w = 0; w < 2; ++w) {
      random.state = uint64_t(link);
      gemm::FdpaPacker a, b;
      a.shape_rows(*both[w], step, steps);
      b.shape_columns(*both[w], step, steps);
      std::vector<float> values(static_cast<size_t>(n));
      std::vector<int16_t> exponents(values.size());
      for (int line = 0; line < both[w]->mr + both[w]->nr; ++line) {
        for (size_t i = 0; i < values.size(); ++i) {
          values[i] = std::ldexp(float(random.below(255) - 127), -6);
          exponents[i] = values[i] == 0 ? gemm::kZeroExponent : int16_t(std::ilogb(values[i]));
        }
        const gemm::FdpaLine packed{values.data(), exponents.data(), nullptr, n, 0};
        if (line < both[w]->mr)
          a.pack(line, packed);
        else
          b.pack(line - both[w]->mr, packed);
      }
      out[w].assign(size_t(both[w]->mr * both[w]->nr), 0.0f);
      both[w]->tile(a.panel(), b.panel(), steps, step, both[w]->nr, out[w].data(), out[w].data());
    }
    CHECK(out[0] == out[1]);
  }
}
