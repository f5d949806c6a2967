// SPDX-License-Identifier: Apache-2.0
// Each kernel of the vector path alone against the definition: encoders and scale steps over all FP32 words
// (a sample of them unless NVFP4_EXHAUSTIVE is set), Philox, rotation, transposition, maxima.
#include "nvfp4/emulator/quantize/kernels.hpp"
#include "nvfp4/emulator/cpu/isa.hpp"
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

#include <cstdlib>

using namespace nvfp4;
using namespace nvfp4::quant;
using namespace nvfp4::test;

namespace {

constexpr int kElements = 256;

struct Named {
  const char *name;
  const Kernels *kernels;
};
std::vector<Named> all_kernels() {
  std::vector<Named> list;
  if (supported(Isa::avx2)) list.push_back({"avx2", kernels_avx2()});
  if (supported(Isa::avx512)) list.push_back({"avx512", kernels_avx512()});
  return list;
}

bool exhaustive() { return std::getenv("NVFP4_EXHAUSTIVE") != nullptr; }

/// Calls f with 256 words at a time: all below `end`, or every 4099th and neighbours of those with few bits.
template <class F> void for_words(uint64_t end, bool all, F f) {
  if (all) {
#pragma omp parallel for schedule(dynamic, 4096)
    for (uint64_t first = 0; first < end; first += kElements) {
      uint32_t words[kElements];
      for (int i = 0; i < kElements; ++i) words[i] = uint32_t(first + uint64_t(i));
      f(words);
    }
    return;
  }
  uint32_t words[kElements] = {};
  int count = 0;
  const auto add = [&](uint64_t word) {
    if (word >= end) return;
    words[count++] = uint32_t(word);
    if (count == kElements) f(words), count = 0;
  };
  for (uint64_t word = 0; word < end; word += 4099) add(word);
  for (uint64_t top = 0; top < 1 << 14; ++top) // sign, exponent, 5 bits of fraction
    for (uint64_t d = 0; d < 5; ++d) add((top << 18) + d - 2);
  while (count != 0) add(0);
}

bool finite(uint32_t word) { return (word & 0x7FFFFFFF) < kInfinity; }

/// What the test compares, one failure kept: checks inside an exhaustive loop are too slow.
struct Mismatch {
  uint32_t word = 0, want = 0, got = 0, random = 0;
  bool found = false;
  void operator()(uint32_t w, uint32_t expected, uint32_t actual, uint32_t bits = 0) {
    if (expected == actual) return;
#pragma omp critical
    if (!found) *this = {w, expected, actual, bits, true};
  }
  void check() const {
    CAPTURE(word, want, got, random);
    CHECK(!found);
  }
};

} // namespace

TEST_CASE("element encoders over all words", "[quantize][kernels]") {
  const std::vector<Named> list = all_kernels();
  for (const FormatId element : {FormatId::e2m1, FormatId::e4m3, FormatId::e5m2})
    for (const ElementRounding rounding : {ElementRounding::nearest, ElementRounding::sr_carry8,
                                           ElementRounding::sr_te, ElementRounding::sr_exact})
      for (const Meet meet : {Meet::multiply, Meet::multiply_flushed, Meet::divide}) {
        if (list.empty() || list[0].kernels->encoder(element, meet, rounding) == nullptr) continue;
        CAPTURE(int(element), int(rounding), int(meet));
        const Rule rule{.element = element,
                        .scaling = meet == Meet::divide ? Scaling::divide : Scaling::inverse,
                        .negative_zero = meet == Meet::divide ? NegativeZero::drop_exact : NegativeZero::keep,
                        .flush = meet == Meet::multiply_flushed};
        const bool nibbles = element == FormatId::e2m1, wide = rounding == ElementRounding::sr_exact;
        const bool all = exhaustive() && meet == Meet::multiply; // then every word meets the encoder itself
        std::vector<Mismatch> mismatches(list.size());
        for_words(uint64_t{1} << 32, all, [&](const uint32_t(&words)[kElements]) {
          float x[kElements], factors[kGroup];
          uint8_t random[4 * kElements], want[kElements];
          uint32_t bits[kElements];
          for (int b = 0; b < kGroup; ++b)
            factors[b] = all || b % 3 == 0 ? 1.0f : b % 3 == 1 ? 3.0f : 0x1p20f;
          for (int i = 0; i < kElements; ++i) {
            // any hash will do: neighbours get different random bits, ends of the range among them
            uint32_t r = (words[i] + 0x9E3779B9u) * 0x85EBCA6Bu;
            r = (r ^ r >> 15) * 0xC2B2AE35u;
            r = i % 16 == 0 ? 0xFFFFFFFFu : i % 16 == 1 ? 0 : r ^ r >> 13;
            bits[i] = wide ? r : r & 0xFF;
            if (wide)
              std::memcpy(random + 4 * i, &r, 4);
            else
              random[i] = uint8_t(r);
            x[i] = finite(words[i]) ? bit_cast<float>(words[i]) : 0.0f;
            want[i] = encode_element(rule, x[i], {0, 0.0f, factors[i / 16], false}, rounding, bits[i]);
          }
          for (size_t n = 0; n < list.size(); ++n) {
            const Encode encode = list[n].kernels->encoder(element, meet, rounding);
            if (encode == nullptr) continue;
            uint8_t codes[kElements];
            encode(x, 16, factors, random, codes);
            for (int i = 0; i < kElements; ++i)
              mismatches[n](words[i], want[i],
                            nibbles ? codes[i / 2] >> (i % 2 * 4) & 15u : uint32_t{codes[i]}, bits[i]);
            // the same blocks as columns, and again as the upper halves of blocks of 32
            const EncodeColumns columns = list[n].kernels->column_encoder(element, meet, rounding);
            constexpr int kStride = 16 * 4 + 8;
            for (const int block : {16, 32}) {
              float turned[2 * kElements] = {};
              uint8_t noise[32 * kStride] = {};
              for (int i = 0; i < kElements; ++i) {
                const int row = i % 16 + block - 16, column = i / 16, size = wide ? 4 : 1;
                turned[16 * row + column] = x[i];
                std::memcpy(noise + row * kStride + column * size, random + i * size, size_t(size));
              }
              const int width = nibbles ? 4 : 8, each = 32 / width;
              uint32_t got[8 * 20];
              columns(turned, block, factors, noise, kStride, got, 20);
              for (int i = 0; i < kElements; ++i) {
                const int row = i % 16 + block - 16;
                mismatches[n](words[i], want[i],
                              got[row / each * 20 + i / 16] >> (row % each * width) & ((1u << width) - 1), bits[i]);
              }
            }
          }
        });
        for (size_t n = 0; n < list.size(); ++n) {
          CAPTURE(list[n].name);
          mismatches[n].check();
        }
      }
}

TEST_CASE("scale steps over all maxima", "[quantize][kernels]") {
  for (const auto &[name, kernels] : all_kernels())
    for (const Convention &c : conventions()) {
      Rule rule = c.rule;
      if (rule.scaling == Scaling::search || rule.scale == FormatId::ue5m3 || rule.scale == FormatId::ue5m3g || rule.top != 0.0f ||
          rule.scaling == Scaling::divide_unrounded || rule.scale_rounding == ScaleRounding::power_normal ||
          rule.scaling == Scaling::inverse_ieee || rule.scale == FormatId::f32 ||
          kernels->encoder(rule.element, Meet::multiply, ElementRounding::nearest) == nullptr)
        continue; // the definition alone
      const float encode = 48.0f, decode = 1.0f / 48.0f;
      const GlobalScale global{2688.0f / encode, encode, decode};
      const float top = value_f32(rule.element, format(rule.element).max_finite_magnitude());
      const ScaleSteps steps{.order = rule.order,
                             .rounding = rule.scale_rounding,
                             .scaling = rule.scaling,
                             .zero_multiplier = rule.zero_multiplier,
                             .flush = rule.flush,
                             .bf16_source = true,
                             .to_four = false,
                             .max_exponent = detail::max_exponent(rule.element),
                             .exponent_carry = int(detail::exponent_carry(rule)),
                             .encode = encode,
                             .decode = decode,
                             .encode_sixth = encode * (1.0f / top),
                             .six_decode = top * decode,
                             .inverse_decode = 1.0f / decode,
                             .top = top,
                             .inverse_top = 1.0f / top};
      CAPTURE(name, c.name);
      Mismatch code_mismatch, factor_mismatch, redo_mismatch;
      const bool all = exhaustive() && (c.name == "te" || c.name == "mxfp4" || c.name == "mxfp4-ceil" ||
                                        c.name == "torchao" || c.name == "compressed-tensors");
      const auto scales = kernels->scales; // clang 16 captures no structured binding where OpenMP is on
      for_words(uint64_t{kInfinity} + 256, all, [&](const uint32_t(&words)[kElements]) {
        for (int first = 0; first < kElements; first += kGroup) {
          float factors[kGroup];
          uint8_t codes[kGroup];
          const uint32_t redo = scales(steps, words + first, factors, codes);
          for (int b = 0; b < kGroup; ++b) {
            const uint32_t word = words[first + b];
            const BlockScale want = block_scale(rule, bit_cast<float>(word), global, FormatId::bf16);
            const bool usable = finite(word) && want.factor >= 0.0f && want.factor <= kFltMax &&
                                !(divides(rule.scaling) && want.factor == 0.0f);
            if ((redo >> b & 1) != 0) {
              redo_mismatch(word, 1, usable ? 0 : 1); // never without need
              continue;
            }
            redo_mismatch(word, 0, usable ? 0 : 1);
            code_mismatch(word, want.code, codes[b]);
            const float factor = rule.flush ? flush_subnormal(want.factor) : want.factor;
            factor_mismatch(word, bit_cast<uint32_t>(factor), bit_cast<uint32_t>(factors[b]));
          }
        }
      });
      redo_mismatch.check();
      code_mismatch.check();
      factor_mismatch.check();
    }
}

TEST_CASE("random words", "[quantize][kernels]") {
  std::mt19937_64 words(75);
  for (const auto &[name, kernels] : all_kernels())
    for (const int count : {8, 16, 24, 40, 80}) {
      const RandomKey key{words(), words()};
      std::vector<uint64_t> index(static_cast<size_t>(count));
      for (uint64_t &i : index) i = words() >> (words() % 64);
      std::vector<uint8_t> bytes(size_t(count) * 16);
      kernels->philox(key.seed, key.offset, index.data(), count, bytes.data());
      bool same = true;
      for (int i = 0; i < count; ++i) {
        const PhiloxBlock block = key.block(index[size_t(i)]);
        same = same && std::memcmp(block.word, bytes.data() + 16 * i, 16) == 0;
      }
      CAPTURE(name, count);
      CHECK(same);
    }
}

TEST_CASE("rotation of groups, or their refusal", "[quantize][kernels]") {
  std::mt19937 engine(76);
  const auto word = [&] { return uint32_t(engine()); };
  for (const auto &[name, kernels] : all_kernels()) {
    int64_t refused = 0, different = 0, needless = 0;
    constexpr int kTrials = 20000;
    for (int trial = 0; trial < kTrials; ++trial) {
      const int groups = 1 + trial % 32,
                spread = std::array{1, 8, 12, 13, 14, 24, 40, 41, 42, 60, 250}[size_t(trial % 11)];
      std::vector<float> x(size_t(groups) * 16), y(x.size());
      for (float &v : x) {
        const uint32_t field =
            std::min(254u, word() % unsigned(spread + 1) + (trial % 5 == 0 ? 0u : word() % 200u));
        v = bit_cast<float>((word() & 0x80000000u) | field << 23 |
                            (word() & (trial % 2 == 0 ? 0x7F0000u : 0x7FFFFFu)));
        if (word() % 8 == 0) v = 0.0f;
        if (trial % 3 == 0) v = std::ldexp(float(int(word() % 511) - 255), trial % 7); // sums cancel
        if (trial % 17 == 0 && word() % 64 == 0) v = bit_cast<float>(kInfinity + word() % 3);
      }
      const uint16_t signs = uint16_t(word());
      const uint32_t left = kernels->rotate(x.data(), groups, signs, y.data());
      for (int g = 0; g < groups; ++g) {
        float want[16];
        std::copy_n(x.begin() + g * 16, 16, want);
        const bool refuses = (left >> g & 1) != 0;
        refused += refuses;
        needless += refuses && trial % 3 == 0 && trial % 17 != 0;
        if (!refuses) rotate16(want, signs);
        different += std::memcmp(want, y.data() + g * 16, sizeof want) != 0;
      }
    }
    CAPTURE(name, refused);
    CHECK(different == 0);
    CHECK(needless == 0);
    CHECK(refused > 0);
  }
}

TEST_CASE("rotation down columns, in place, and its maxima", "[quantize][kernels]") {
  std::mt19937 engine(79);
  const auto word = [&] { return uint32_t(engine()); };
  for (const auto &[name, kernels] : all_kernels()) {
    int64_t different = 0, wrong_maximum = 0, moved = 0;
    int sure = 0, unsure = 0, needless = 0;
    for (int trial = 0; trial < 6000; ++trial) {
      const int tiles = 1 + trial % 4, columns = 16 * tiles, stride = columns + int(word() % 40);
      const unsigned spread = std::array{1u, 8u, 12u, 13u, 14u, 24u, 60u}[size_t(trial % 7)];
      const unsigned base = trial % 5 == 0 ? 247 - spread : trial % 5 == 1 ? 0 : 40 + word() % 100;
      std::vector<float> x(size_t(16 * stride));
      for (float &v : x) {
        v = bit_cast<float>((word() & 0x80000000u) | (base + word() % (spread + 1)) << 23 |
                            (word() & 0x7FFFFFu));
        if (word() % 8 == 0) v = bit_cast<float>(word() & 0x80000000u);
        if (trial % 3 == 0) v = std::ldexp(float(int(word() % 511) - 255), trial % 7);
      }
      if (trial % 11 == 0) x[word() % unsigned(columns)] = bit_cast<float>(kInfinity + word() % 3);
      const uint16_t signs = uint16_t(word());
      // the rotated columns as rows, and their maximum
      std::vector<float> want(size_t(16 * columns));
      uint32_t largest = 0;
      for (int c = 0; c < columns; ++c) {
        float column[16];
        for (int i = 0; i < 16; ++i) column[i] = x[size_t(i * stride + c)];
        rotate16(column, signs);
        std::copy_n(column, 16, want.begin() + 16 * c);
        for (const float v : column) largest = std::max(largest, bit_cast<uint32_t>(v) & 0x7FFFFFFF);
      }
      constexpr int kTile = 16 * 16 + 48;
      std::vector<float> got(size_t(tiles * kTile));
      const bool held = kernels->rotate_columns(x.data(), stride, tiles, signs, got.data(), kTile);
      (held ? sure : unsure) += 1;
      needless += !held && trial % 3 == 0 && trial % 11 != 0;
      for (int c = 0; held && c < columns; ++c)
        for (int i = 0; i < 16; ++i)
          different += bit_cast<uint32_t>(got[size_t(c / 16 * kTile + 16 * i + c % 16)]) !=
                       bit_cast<uint32_t>(want[size_t(16 * c + i)]);
      const uint32_t down = kernels->rotated_columns_amax(x.data(), stride, tiles, signs);
      wrong_maximum += held != (down <= kInfinity) || (held && down != largest);
      // the same groups along rows
      std::vector<float> rows(want.size()), in_place;
      for (int c = 0; c < columns; ++c)
        for (int i = 0; i < 16; ++i) rows[size_t(16 * c + i)] = x[size_t(i * stride + c)];
      for (int g = 0; g < columns; g += 32) {
        const int groups = std::min(32, columns - g);
        const uint32_t along = kernels->rotated_amax(&rows[size_t(16 * g)], groups, signs);
        uint32_t part = 0;
        for (int i = 16 * g; i < 16 * (g + groups); ++i)
          part = std::max(part, bit_cast<uint32_t>(want[size_t(i)]) & 0x7FFFFFFF);
        wrong_maximum += along <= kInfinity ? along != part : trial % 3 == 0 && trial % 11 != 0;
        in_place.assign(rows.begin() + 16 * g, rows.begin() + 16 * (g + groups));
        std::vector<float> elsewhere(in_place.size());
        const uint32_t left = kernels->rotate(in_place.data(), groups, signs, elsewhere.data());
        moved += kernels->rotate(in_place.data(), groups, signs, in_place.data()) != left ||
                 std::memcmp(in_place.data(), elsewhere.data(), 4 * elsewhere.size()) != 0;
      }
    }
    CAPTURE(name, sure, unsure);
    CHECK(different == 0);
    CHECK(wrong_maximum == 0);
    CHECK(moved == 0);
    CHECK(needless == 0);
    CHECK(sure > 1000);
    CHECK(unsure > 1000);
  }
}

TEST_CASE("rotation where the last bit of the sum decides", "[quantize][kernels]") {
  // Terms whose sum lies half-way between two BF16 numbers (and, with `half`, between two FP32 numbers), but
  // for pairs that cancel to the last bit of their own: what an inexact sum loses shows in the result.
  std::mt19937 engine(78);
  const auto word = [&] { return uint32_t(engine()); };
  for (const auto &[name, kernels] : all_kernels()) {
    int64_t different = 0;
    for (int trial = 0; trial < 60000; ++trial) {
      float x[16] = {}, y[16];
      const bool half = trial % 2 == 0;
      const int larges = half ? 7 : 9, tiny = half ? 28 + int(word() % 10) : int(word() % 9);
      int sum = 0;
      for (int i = 0; i + 1 < larges; ++i) sum += int(x[i] = float(256 + 2 * (word() % 128)));
      x[larges - 1] = float(256 + ((8 - sum) & 31)); // sum = 8 modulo 32: a tie that goes down
      if (half) x[larges] = 0x1p-13f;
      for (int i = larges + 1; i + 1 < 16; i += 2) {
        const float k = float(word() % 126);
        x[i] = std::ldexp(1.0f + (k + 1) / 128.0f, -tiny);
        x[i + 1] = -std::ldexp(1.0f + k / 128.0f, -tiny);
        if (word() % 4 == 0) std::swap(x[i], x[i + 1]);
      }
      for (unsigned i = 15; i > 0; --i) std::swap(x[i], x[word() % (i + 1)]);
      const uint16_t signs = uint16_t(word() % 4 == 0 ? word() : 0);
      for (int i = 0; i < 16; ++i)
        if ((signs >> i & 1) != 0) x[i] = -x[i];
      if (kernels->rotate(x, 1, signs, y) != 0) continue;
      rotate16(x, signs);
      different += std::memcmp(x, y, sizeof x) != 0;
    }
    CAPTURE(name);
    CHECK(different == 0);
  }
}

TEST_CASE("rotation near the largest number", "[quantize][kernels]") {
  for (const auto &[name, kernels] : all_kernels())
    for (const uint32_t word : {0x7F7F0000u, 0x7F7F7FFFu, 0x7F7F8000u, 0x7F7FFFFFu, 0x7F000000u, 0x7C000000u,
                                0x7C010000u, 0x7BFF0000u})
      for (int count = 1; count <= 16; ++count) {
        float x[16] = {}, y[16];
        for (int i = 0; i < count; ++i) x[i] = bit_cast<float>(word);
        const uint32_t left = kernels->rotate(x, 1, 0, y);
        if (left == 0) rotate16(x, 0);
        CAPTURE(name, word, count);
        CHECK(std::memcmp(x, y, sizeof x) == 0);
      }
}

TEST_CASE("tiles and maxima", "[quantize][kernels]") {
  std::mt19937 engine(77);
  for (const auto &[name, kernels] : all_kernels()) {
    CAPTURE(name);
    std::vector<uint32_t> x(16 * 40), y(16 * 50);
    std::vector<uint8_t> bytes(16 * 40), turned(16 * 50);
    for (uint32_t &v : x) v = uint32_t(engine());
    for (uint8_t &v : bytes) v = uint8_t(engine());
    kernels->transpose(reinterpret_cast<const float *>(x.data()), 40, reinterpret_cast<float *>(y.data()),
                       50);
    kernels->transpose_bytes(bytes.data(), 40, turned.data(), 50);
    bool same = true;
    for (size_t i = 0; i < 16; ++i)
      for (size_t j = 0; j < 16; ++j)
        same = same && y[j * 50 + i] == x[i * 40 + j] && turned[j * 50 + i] == bytes[i * 40 + j];
    CHECK(same);
    for (int64_t n = 0; n < 150; ++n) {
      uint32_t want = 0;
      for (int64_t i = 0; i < n; ++i) want = std::max(want, x[size_t(i)] & 0x7FFFFFFFu);
      CHECK(kernels->amax(reinterpret_cast<const float *>(x.data()), n) == want);
    }
    for (const int block : {16, 32}) {
      std::vector<uint32_t> rows(32 * 24), copy(32 * 16);
      for (uint32_t &v : rows) v = uint32_t(engine());
      uint32_t words[kGroup];
      kernels->column_amax(reinterpret_cast<const float *>(rows.data()), 24, block,
                           reinterpret_cast<float *>(copy.data()), words);
      for (size_t c = 0; c < kGroup; ++c) {
        uint32_t want = 0;
        for (size_t i = 0; i < size_t(block); ++i) {
          want = std::max(want, rows[24 * i + c] & 0x7FFFFFFFu);
          CHECK(copy[16 * i + c] == rows[24 * i + c]);
        }
        CHECK(words[c] == want);
      }
      kernels->block_amax(reinterpret_cast<const float *>(x.data()), block, words);
      for (int b = 0; b < kGroup; ++b) {
        uint32_t want = 0;
        for (int i = 0; i < block; ++i) want = std::max(want, x[size_t(b * block + i)] & 0x7FFFFFFFu);
        CHECK(words[b] == want);
      }
    }
  }
}
