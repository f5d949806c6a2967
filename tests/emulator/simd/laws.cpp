// SPDX-License-Identifier: Apache-2.0
// Every function of every vector type that this CPU can run, against plain C++, lane by lane and word by
// word.
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/formats/codec.hpp"
#include "tests/catch.hpp"
#include "tests/emulator/simd/operations.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

const SimdOperations *operations(Isa isa) {
  switch (isa) {
  case Isa::avx2: return operations_avx2();
  case Isa::avx512: return operations_avx512();
  case Isa::neon: return operations_neon();
  case Isa::neon_dot: return operations_neon_dot();
  case Isa::scalar: break;
  }
  return nullptr;
}

float as_float(uint32_t w) { return bit_cast<float>(w); }
uint32_t word(float x) { return bit_cast<uint32_t>(x); }
int8_t byte(uint32_t w, int i) { return int8_t(w >> (8 * i)); }

/// x + y toward zero: the error of the FP64 sum is exact (two-sum), and decides when the sum looks exact.
float add_toward_zero(float x, float y) {
  const double a = x, b = y, s = a + b, part = s - a, error = (a - (s - part)) + (b - part);
  const uint64_t cut = convert(format(FormatId::f32), format(FormatId::f64), bit_cast<uint64_t>(s),
                               Rounding::toward_zero, Overflow::ieee);
  const float t = as_float(uint32_t(cut));
  if (double(t) == s && error != 0 && (error > 0) != (s > 0)) return std::nextafter(t, 0.0f);
  return t;
}

/// What an operation gives in lane i: a word, or a double.
using Word = std::function<uint32_t(const SimdInput &, int)>;
using Wide = std::function<double(const SimdInput &, int)>;

std::map<std::string, Word> words(int offset) {
  const auto floats = [](auto f) {
    return [f](const SimdInput &in, int i) {
      return word(f(as_float(in.x[i]), as_float(in.y[i]), as_float(in.z[i])));
    };
  };
  const auto ints = [](auto f) {
    return [f](const SimdInput &in, int i) { return uint32_t(f(in.x[i], in.y[i], in.z[i])); };
  };
  const auto bytes = [](auto f) {
    return [f](const SimdInput &in, int i) {
      uint32_t all = 0;
      for (int b = 0; b < 4; ++b) all |= uint32_t(uint8_t(f(byte(in.x[i], b)))) << (8 * b);
      return all;
    };
  };
  const auto byte_pairs = [](auto f) {
    return [f](const SimdInput &in, int i) {
      uint32_t all = 0;
      for (int b = 0; b < 4; ++b) all |= uint32_t(uint8_t(f(byte(in.x[i], b), byte(in.y[i], b)))) << (8 * b);
      return all;
    };
  };
  const auto table_entry = [](const SimdInput &in, int i) { // byte i of the 64 that four lookups give
    const int h = i / 16, k = i % 16;
    const uint8_t pair = reinterpret_cast<const uint8_t *>(in.x + 2 * h)[k / 2];
    return uint8_t(reinterpret_cast<const uint8_t *>(in.y)[k % 2 == 0 ? pair & 15 : pair >> 4] + 5);
  };
  return {
      {"add", floats([](float x, float y, float) { return x + y; })},
      {"mul", floats([](float x, float y, float) { return x * y; })},
      {"fma", floats([](float x, float y, float z) { return std::fma(x, y, z); })},
      {"magnitude", ints([](uint32_t x, uint32_t, uint32_t) { return x & 0x7FFFFFFF; })},
      {"max_magnitude", floats([](float x, float y, float) { return std::max(std::fabs(x), std::fabs(y)); })},
      {"add_truncated", floats([](float x, float y, float) { return add_toward_zero(x, y); })},
      {"add_truncated wide", floats([](float x, float y, float) { return add_toward_zero(x, y); })},
      {"to_float", ints([](uint32_t x, uint32_t, uint32_t) { return word(float(int32_t(x))); })},
      {"where nonzero float",
       ints([](uint32_t x, uint32_t y, uint32_t z) { return as_float(x) != 0 ? y : z; })},
      {"where both", ints([](uint32_t x, uint32_t y, uint32_t z) { return x != 0 && y != 0 ? z : x; })},
      {"add int", ints([](uint32_t x, uint32_t y, uint32_t) { return x + y; })},
      {"sub int", ints([](uint32_t x, uint32_t y, uint32_t) { return x - y; })},
      {"max int", ints([](uint32_t x, uint32_t y, uint32_t) { return std::max(int32_t(x), int32_t(y)); })},
      {"add_saturated8", byte_pairs([](int8_t x, int8_t y) { return std::clamp(x + y, -128, 127); })},
      {"max8", byte_pairs([](int8_t x, int8_t y) { return std::max(x, y); })},
      {"count_bits", ints([](uint32_t x, uint32_t, uint32_t) { return std::popcount(x); })},
      {"even_bytes_times16", ints([](uint32_t x, uint32_t, uint32_t) { return (x & 0x00FF00FF) << 4; })},
      {"odd_bytes_times16", ints([](uint32_t x, uint32_t, uint32_t) { return (x & 0xFF00FF00) >> 4; })},
      {"high_words", ints([](uint32_t, uint32_t y, uint32_t z) { return y ^ z; })},
      {"bit_and wide", ints([](uint32_t x, uint32_t y, uint32_t) { return x & y; })},
      {"spread_d", [](const SimdInput &in, int i) { return i % 4 < 2 ? in.x[5] : in.y[7]; }},
      {"narrow", floats([](float x, float y, float) { return float(double(x) - double(y)); })},
      {"bits", ints([](uint32_t x, uint32_t y, uint32_t z) { return (x & y) ^ z; })},
      {"shift_left", ints([](uint32_t x, uint32_t, uint32_t) { return x << 23; })},
      {"shift_right", ints([](uint32_t x, uint32_t, uint32_t) { return x >> 23; })},
      {"shift_right_signed", ints([](uint32_t x, uint32_t, uint32_t) { return int32_t(x) >> 16; })},
      {"magnitude8", bytes([](int8_t x) { return x < 0 ? -x : x; })},
      {"one_where_differs8", bytes([](int8_t x) { return x != 12; })},
      {"spread",
       [](const SimdInput &in, int) { return in.x[2] + in.y[5] + uint32_t(-7) + uint32_t(0xFDFDFDFD); }},
      {"dot",
       [offset](const SimdInput &in, int i) {
         int32_t sum = 0;
         for (int b = 0; b < 4; ++b) sum += (byte(in.y[i], b) - offset) * byte(in.z[i], b);
         return uint32_t(sum);
       }},
      {"dot with start",
       [offset](const SimdInput &in, int i) {
         int32_t sum = 0;
         for (int q = 0; q < 4; ++q)
           for (int b = 0; b < 4; ++b) sum += (byte(in.y[i], b) - offset) * byte(in.z[q], b);
         return uint32_t(sum);
       }},
      {"lookup_nibbles",
       [table_entry](const SimdInput &in, int i) {
         uint32_t all = 0;
         for (int b = 0; b < 4; ++b) all |= uint32_t(table_entry(in, 4 * i + b)) << (8 * b);
         return all;
       }},
  };
}

std::map<std::string, Wide> doubles() {
  const auto exponent = [](const SimdInput &in, int i) { return int32_t(in.x[i]) >> 24; };
  return {
      {"widen",
       [](const SimdInput &in, int i) { return double(as_float(in.x[i])) * double(as_float(in.y[i])); }},
      {"fma wide",
       [](const SimdInput &in, int i) {
         return std::fma(double(as_float(in.x[i])), double(as_float(in.y[i])), double(as_float(in.z[i])));
       }},
      {"join",
       [](const SimdInput &in, int i) { return bit_cast<double>(uint64_t(in.y[i]) << 32 | in.x[i]); }},
      {"middle_of_binade",
       [](const SimdInput &in, int i) { return bit_cast<double>(uint64_t((in.y[i] >> 1 & 0x7FF00000) | 0x80000) << 32); }},
      {"whole", [](const SimdInput &in, int i) { return std::trunc(double(as_float(in.x[i])) * 0.375); }},
      {"power", [exponent](const SimdInput &in, int i) { return std::ldexp(1.0, exponent(in, i) + 35); }},
      {"power_negated",
       [exponent](const SimdInput &in, int i) { return std::ldexp(1.0, 35 - exponent(in, i)); }},
  };
}

/// Words that an operation is defined for: hard ones among them.
struct Words {
  std::mt19937 engine;

  uint32_t random() { return uint32_t(engine()); }
  uint32_t any() { return random(); }
  /// Finite; every fourth from the ends and the middle of FP32.
  uint32_t number() {
    static constexpr uint32_t hard[] = {0,          0x80000000, 1,          0x80000001,
                                        0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF,
                                        0x3F800000, 0xBF800000, 0x4B800000, 0x33800000};
    if (random() % 4 == 0) return hard[random() % std::size(hard)];
    return (random() & 0x807FFFFF) | (64 + random() % 127) << 23;
  }
  /// Of a magnitude where sums meet: 2^-40 to 2^40.
  uint32_t near() { return random() % 8 == 0 ? 0 : (random() & 0x807FFFFF) | (87 + random() % 81) << 23; }
  /// Doubled E2M1 codes with the offset.
  uint32_t codes(int offset) {
    uint32_t all = 0;
    for (int b = 0; b < 4; ++b) all |= uint32_t(uint8_t(int(random() % 25) - 12 + offset)) << (8 * b);
    return all;
  }
  void fill(SimdInput &in, const std::string &name, int offset) {
    const bool sums = name.starts_with("add_truncated"), dots = name.starts_with("dot");
    const bool floats = sums || name == "add" || name == "mul" || name == "fma" || name == "max_magnitude" ||
                        name == "where nonzero float" || name == "widen" || name == "whole" ||
                        name == "narrow" || name == "fma wide";
    for (int i = 0; i < 16; ++i)
      for (uint32_t *v : {in.x, in.y, in.z}) {
        v[i] = sums ? near() : floats ? number() : dots ? codes(v == in.y ? offset : 0) : any();
        if (!floats && !dots && random() % 4 == 0) v[i] = random() % 2 == 0 ? 0 : 0x80000000;
      }
  }
};

} // namespace

TEST_CASE("every function of a vector type is its scalar counterpart", "[simd]") {
  for (const Isa isa : kVectorIsas) {
    if (!supported(isa)) continue;
    const SimdOperations *const table = operations(isa);
    REQUIRE(table != nullptr);
    const auto word_of = words(table->byte_offset);
    const auto double_of = doubles();
    CHECK(size_t(table->count) == word_of.size() + double_of.size());
    Words words{std::mt19937(1)};
    for (int o = 0; o < table->count; ++o) {
      const SimdOperation &operation = table->list[o];
      INFO(to_string(isa) << " " << operation.name);
      const auto found = word_of.find(operation.name);
      const bool truncates = std::string(operation.name).find("_truncated") != std::string::npos;
      int wrong = 0;
      for (int round = 0; round < 2000; ++round) {
        SimdInput in;
        SimdOutput out{};
        words.fill(in, operation.name, table->byte_offset);
        if (truncates) table->toward_zero();
        operation.run(in, out);
        if (truncates) table->nearest();
        for (int i = 0; i < 16; ++i)
          wrong += found != word_of.end() ? out.word[i] != found->second(in, i)
                                          : bit_cast<uint64_t>(out.wide[i]) !=
                                                bit_cast<uint64_t>(double_of.at(operation.name)(in, i));
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("a vector type sees inexact results, and truncates all of them if told to", "[simd]") {
  for (const Isa isa : kVectorIsas) {
    if (!supported(isa)) continue;
    const SimdOperations *const table = operations(isa);
    REQUIRE(table != nullptr);
    const auto run = [&](const char *name, const SimdInput &in) {
      SimdOutput out;
      for (int o = 0; o < table->count; ++o)
        if (std::string(table->list[o].name) == name) {
          table->nearest();
          table->list[o].run(in, out);
          return table->inexact();
        }
      FAIL("no operation " << name);
      return false;
    };
    for (int lane = 0; lane < 16; ++lane) {
      INFO(to_string(isa) << " lane " << lane);
      SimdInput in{};
      for (int i = 0; i < 16; ++i) in.x[i] = in.y[i] = word(float(i + 1)), in.z[i] = word(0.5f);
      CHECK_FALSE(run("fma", in));
      CHECK_FALSE(run("mul", in));
      CHECK_FALSE(run("whole", in)); // a fraction is lost, but no flag is raised
      in.z[lane] = word(0x1p-30f);
      CHECK(run("fma", in));
      CHECK_FALSE(run("mul", in));
      in.x[lane] = in.y[lane] = word(1 + 0x1p-20f);
      CHECK(run("mul", in));
      if (table->embedded_rounding) CHECK_FALSE(run("add_truncated", in));
      SimdInput sum{};
      SimdOutput out;
      sum.x[lane] = word(1.5f), sum.y[lane] = word(lane % 2 == 0 ? 0x1.8p-24f : -0x1.8p-24f);
      table->mode_toward_zero();
      for (int o = 0; o < table->count; ++o)
        if (std::string(table->list[o].name) == "add") table->list[o].run(sum, out);
      table->nearest();
      CHECK(out.word[lane] == word(add_toward_zero(as_float(sum.x[lane]), as_float(sum.y[lane]))));
    }
    table->nearest();
  }
}
