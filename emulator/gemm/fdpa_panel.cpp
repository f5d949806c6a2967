// SPDX-License-Identifier: Apache-2.0
// Scales a line, turns its exponents into bytes and its signs into bits, and lays them out.
#include "nvfp4/emulator/gemm/fdpa_panel.hpp"

#include "nvfp4/emulator/cpu/multiversion.hpp"
#include "nvfp4/emulator/formats/codec.hpp"

#include <algorithm>
#include <cstring>

namespace nvfp4::gemm {
namespace {

/// 2^e, e cut to the exponents of normal numbers: beyond them are lines that the definition computes.
double power(int e) { return bit_cast<double>(uint64_t(std::clamp(e, -1022, 1023) + 1023) << 52); }

/// What a line without elements has as its largest exponent: so low that its products with any other line are
/// no phantoms for an accumulator.
constexpr int kEmptyMax = -140;

/// How the elements of one step go into a panel.
struct Step {
  const float *values;
  const int16_t *exponents;
  double factor; ///< exact products, and so far above kTiny that their sum with it is the product or kTiny
  int up;        ///< added to exponents
};

template <int link> [[gnu::always_inline]] inline uint32_t signs_of(const Step &s) {
  uint8_t bytes[link < 8 ? 8 : link] = {};
  for (int k = 0; k < link; ++k) bytes[k] = uint8_t(bit_cast<uint32_t>(s.values[k]) >> 31);
  uint32_t word = 0;
  for (int k = 0; k < link; k += 8) { // eight bytes of 0 and 1 as bits, the first lowest
    uint64_t all;
    std::memcpy(&all, bytes + k, 8);
    word |= uint32_t(all * 0x0102040810204080 >> 56) << k;
  }
  return word;
}
template <int link> [[gnu::always_inline]] inline void scale(const Step &s, double *to) {
  for (int k = 0; k < link; ++k) to[k] = double(s.values[k]) * s.factor + kTiny;
}
[[gnu::always_inline]] inline uint8_t exponent_byte(const Step &s, int k) {
  const int16_t e = int16_t(s.exponents[k] + s.up);
  return uint8_t(e > kZeroByte ? e : kZeroByte);
}

/// A line's share of a panel, and from one step to the next.
struct Target {
  double *values;
  uint8_t *exponents;
  uint32_t *signs;
  int64_t lines;  ///< of the panel
  int64_t vector; ///< columns of a vector
};

template <int link>
[[gnu::always_inline]] inline void lay_row(const Step &s, int64_t t, const Target &to) {
  to.signs[t * to.lines] = signs_of<link>(s);
  scale<link>(s, to.values + t * to.lines * link);
  uint32_t words[link];
  for (int k = 0; k < link; ++k) words[k] = exponent_byte(s, k) * 0x01010101u;
  std::memcpy(to.exponents + 4 * t * to.lines * link, words, sizeof words);
}
template <int link>
[[gnu::always_inline]] inline void lay_column(const Step &s, int64_t t, const Target &to) {
  to.signs[t * to.lines] = signs_of<link>(s);
  double values[link];
  uint8_t bytes[link];
  scale<link>(s, values);
  for (int k = 0; k < link; ++k) bytes[k] = exponent_byte(s, k);
  for (int k = 0; k < link; ++k) to.values[(t * link + k) * to.vector] = values[k];
  for (int k = 0; k < link; ++k) to.exponents[(t * link + k) * to.lines] = bytes[k];
}

template <int link>
[[gnu::always_inline]] inline void lay(const FdpaLine &line, bool row, int power_of_line, int up, const Target &to) {
  const auto factor = [&](int scale) { return power(power_of_line + scale) * (row ? kPast : 1); };
  const double alone = factor(0);
  for (int64_t t = 0; t < line.n / link; ++t) {
    const int scale = line.scales == nullptr ? 0 : line.scales[t];
    const Step s{line.values + t * link, line.exponents + t * link, line.scales == nullptr ? alone : factor(scale),
                 up + scale};
    if (row)
      lay_row<link>(s, t, to);
    else
      lay_column<link>(s, t, to);
  }
}
NVFP4_MULTIVERSION void lay(const FdpaLine &line, int link, bool row, int power_of_line, int up, const Target &to) {
  switch (link) {
  case 4: return lay<4>(line, row, power_of_line, up, to);
  case 8: return lay<8>(line, row, power_of_line, up, to);
  case 16: return lay<16>(line, row, power_of_line, up, to);
  default: return lay<32>(line, row, power_of_line, up, to);
  }
}

} // namespace

void FdpaPacker::shape(int lines, int vector, int link, int64_t steps) {
  lines_ = lines;
  vector_ = vector;
  link_ = link;
  steps_ = steps;
  const size_t n = size_t(link * steps), all = size_t(lines) * n;
  values_.resize(all);
  scales_.resize(size_t(2 * lines));
  signs_.resize(size_t(lines * steps));
  exponents_.resize(vector == 0 ? 4 * all : all);
}

void FdpaPacker::shape_rows(const FdpaKernels &kernels, const FdpaStep &step, int64_t steps) {
  shape(kernels.mr, 0, step.link, steps);
}

void FdpaPacker::shape_columns(const FdpaKernels &kernels, const FdpaStep &step, int64_t steps) {
  shape(kernels.nr, kernels.vector, step.link, steps);
}

void FdpaPacker::pack(int index, const FdpaLine &line) {
  const bool row = vector_ == 0;
  const int max = line.max < -0x1000 ? kEmptyMax : line.max;
  const int power_of_line = kScaledMax - max;
  // of each four columns the first two stand in the first half of a vector
  const int within = row ? 0 : index % vector_, first = index - within;
  const int place = first + within % 4 / 2 * (vector_ / 2) + within / 4 * 2 + within % 2;
  scales_[size_t(place)] = power(power_of_line);
  scales_[size_t(lines_ + place)] = power(-power_of_line);
  const int up = (row ? kTopA : kTopB) - max;
  if (row)
    return lay(line, link_, row, power_of_line, up,
               {values_.data() + index * link_, exponents_.data() + 4 * index * link_, signs_.data() + index, lines_, 0});
  lay(line, link_, row, power_of_line, up,
      {values_.data() + int64_t{first} * link_ * steps_ + place - first,
       exponents_.data() + within * (lines_ / vector_) + first / vector_, signs_.data() + index, lines_, vector_});
}

} // namespace nvfp4::gemm
