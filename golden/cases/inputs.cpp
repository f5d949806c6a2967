// SPDX-License-Identifier: Apache-2.0
// The input classes. A tile is built in three steps: elements with chosen exponents, scales, then C placed
// against the sums that the elements and scales give. Products are evaluated in long double, only to place C;
// nothing rounds here that a result depends on.
#include "nvfp4/golden/cases/inputs.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::golden::cases {

uint64_t splitmix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t key_of(std::string_view text, uint64_t seed) {
  uint64_t h = splitmix64(seed);
  for (const char c : text) h = splitmix64(h ^ uint8_t(c));
  return h;
}

uint64_t Random::word() { return splitmix64(key_ ^ splitmix64(counter_++)); }
int Random::range(int low, int high) {
  return low + int((unsigned __int128)(word()) * uint64_t(high - low + 1) >> 64);
}

const char *name_of(InputClass c) {
  static constexpr const char *names[] = {
      "raw",   "raw_finite", "centre",   "wide",      "subnormal",         "cancel", "large_c", "small_c",
      "zeros", "specials",   "overflow", "underflow", "negative_underflow"};
  return names[int(c)];
}

const char *name_of(ScaleClass c) {
  static constexpr const char *names[] = {"similar", "lognormal", "raw"};
  return names[int(c)];
}

uint64_t get_element(std::span<const uint8_t> buffer, int bits, int64_t i) {
  if (bits == 4) return buffer[size_t(i / 2)] >> (4 * (i & 1)) & 0xF;
  uint64_t code = 0;
  for (int byte = 0; byte < bits / 8; ++byte)
    code |= uint64_t(buffer[size_t(i * (bits / 8) + byte)]) << (8 * byte);
  return code;
}

void set_element(std::span<uint8_t> buffer, int bits, int64_t i, uint64_t code) {
  if (bits == 4) {
    uint8_t &byte = buffer[size_t(i / 2)];
    byte = uint8_t(i & 1 ? (byte & 0x0F) | (code & 0xF) << 4 : (byte & 0xF0) | (code & 0xF));
    return;
  }
  for (int byte = 0; byte < bits / 8; ++byte)
    buffer[size_t(i * (bits / 8) + byte)] = uint8_t(code >> (8 * byte));
}

Tile empty_tile(const MmaKind &x) {
  Tile t;
  t.a.resize(size_t(a_bytes(x)));
  t.b.resize(size_t(b_bytes(x)));
  t.c.resize(size_t(c_bytes(x)));
  t.scale_a.resize(size_t(x.m * scales_per_row(x) * scale_bytes(x)));
  t.scale_b.resize(size_t(x.n * scales_per_row(x) * scale_bytes(x)));
  return t;
}

bool applies(const MmaKind &x, InputClass c) {
  const ElementFormat &a = format_of(x.a), &b = format_of(x.b), &acc = format_of(x.acc);
  const bool ue8m0_scaled = x.scale_block && x.scale == Element::ue8m0;
  if (c == InputClass::overflow)
    return ue8m0_scaled || a.max_exponent() + b.max_exponent() + 2 >= acc.max_exponent();
  if (c == InputClass::underflow || c == InputClass::negative_underflow)
    return ue8m0_scaled || a.bottom() + b.bottom() < acc.bottom();
  return true;
}

namespace {

uint64_t code_mask(const ElementFormat &f) { return (sign_bit(f) << 1) - 1; }

/// Exponent targets of a tile: element k of a row has exponent about row[k], of a column about target[k] -
/// row[k].
struct Exponents {
  std::vector<int> row, column;
  int jitter = 0;
};

struct Maker {
  const MmaKind &x;
  InputClass cls;
  ScaleClass scale_class;
  Random random;
  Tile tile;
  const ElementFormat &fa = format_of(x.a), &fb = format_of(x.b), &fc = format_of(x.acc);

  Maker(const MmaKind &kind, InputClass c, ScaleClass s, uint64_t key)
      : x(kind), cls(c), scale_class(s), random(key), tile(empty_tile(kind)) {}

  /// Smallest and largest exponent of a product, and what the scales of this class add to it on average.
  int lowest_product() const { return fa.bottom() + fb.bottom(); }
  int highest_product() const { return fa.max_exponent() + fb.max_exponent(); }

  Exponents exponents() {
    Exponents e;
    const bool shared_bottom = cls == InputClass::underflow || cls == InputClass::negative_underflow;
    const int spans[] = {2, 6, 10, 14, 18, 24, 26, 30, 36, 44, 60};
    const int span = spans[random.range(0, 10)],
              middle_room = std::max(0, (highest_product() - lowest_product()) / 4);
    const int middle = (highest_product() + lowest_product()) / 2 + random.range(-middle_room, middle_room);
    int bottom = fc.bottom();
    if (x.scale_block)
      bottom = std::max(bottom, lowest_product()); // the scales move the products further down
    for (int k = 0; k < x.k; ++k) {
      int target = random.range(-5, 5);
      if (cls == InputClass::wide) target = middle + random.range(-span / 2, span / 2);
      if (cls == InputClass::cancel) target = random.range(-10, 10);
      if (cls == InputClass::subnormal)
        target = bottom + random.range(-12, std::min(30, fc.mantissa_bits + 4));
      if (shared_bottom) target = bottom + random.range(-10, cls == InputClass::underflow ? 2 : -4);
      if (cls == InputClass::overflow)
        target = std::min(fc.max_exponent(), highest_product()) - random.range(0, 4);
      target = std::clamp(target, lowest_product(), highest_product() + 1);
      // Split the target over both operands so that each stays in its range.
      const int low = std::max(fa.bottom(), target - fb.max_exponent());
      const int high = std::min(fa.max_exponent(), target - fb.bottom());
      const int half = std::clamp(target / 2 + random.range(-6, 6), low, std::max(low, high));
      e.row.push_back(half);
      e.column.push_back(target - half);
    }
    e.jitter = cls == InputClass::centre ? 2 : 1;
    return e;
  }

  uint64_t finite(const ElementFormat &f) {
    uint64_t code = random.word() & code_mask(f);
    while (!std::isfinite(decode(f, code))) code = random.word() & code_mask(f);
    return code;
  }

  uint64_t special(const ElementFormat &f) {
    const bool negative = random.one_in(2);
    switch (random.range(0, 5)) {
    case 0: return nan_or_max(f, negative, random.word());
    case 1:
    case 2: return with_sign(f, negative, inf_or_max(f));
    case 3: return with_sign(f, negative, 0);
    case 4: return with_sign(f, negative, max_finite(f));
    default: return with_sign(f, negative, uint64_t{1} << f.padding); // smallest subnormal
    }
  }

  uint64_t element(const ElementFormat &f, int exponent, int jitter, bool negative) {
    if (cls == InputClass::raw) return random.word() & code_mask(f);
    if (cls == InputClass::raw_finite) return finite(f);
    const bool sign = random.one_in(2);
    if (cls == InputClass::zeros && !random.one_in(6)) return with_sign(f, sign, 0);
    if (cls == InputClass::specials && random.one_in(2 * x.k)) return special(f);
    const bool minus = cls == InputClass::negative_underflow ? negative : sign;
    uint64_t code = compose(f, minus, exponent + random.range(-jitter, jitter), random.word());
    if (cls == InputClass::zeros) code = compose(f, minus, 0, 0);
    if (f.padding && random.one_in(4))
      code |= random.word() & ((uint64_t{1} << f.padding) - 1); // ignored bits
    return code;
  }

  void elements() {
    const Exponents e = exponents();
    const bool all_zero = cls == InputClass::zeros && random.one_in(4);
    for (int i = 0; i < x.m; ++i)
      for (int k = 0; k < x.k; ++k) {
        uint64_t code = element(fa, e.row[size_t(k)], e.jitter, true);
        if (all_zero) code = with_sign(fa, (code & sign_bit(fa)) != 0, 0);
        set_element(tile.a, x.a_bits, int64_t(i) * x.k + k, code);
      }
    for (int j = 0; j < x.n; ++j)
      for (int k = 0; k < x.k; ++k)
        set_element(tile.b, x.b_bits, int64_t(j) * x.k + k,
                    element(fb, e.column[size_t(k)], e.jitter, false));
    if (cls == InputClass::cancel && random.one_in(2)) mirror();
  }

  /// Second half of K = first half with B negated, but for one element's last bit.
  void mirror() {
    const int half = x.k / 2, odd = random.range(0, half - 1);
    for (int i = 0; i < x.m; ++i)
      for (int k = 0; k < half; ++k)
        set_element(tile.a, x.a_bits, int64_t(i) * x.k + k + half,
                    get_element(tile.a, x.a_bits, int64_t(i) * x.k + k));
    for (int j = 0; j < x.n; ++j)
      for (int k = 0; k < half; ++k) {
        uint64_t code = negated(fb, get_element(tile.b, x.b_bits, int64_t(j) * x.k + k));
        if (k == odd) code ^= uint64_t{1} << fb.padding;
        set_element(tile.b, x.b_bits, int64_t(j) * x.k + k + half, code);
      }
  }

  static void put_word(std::vector<uint8_t> &to, size_t at, uint64_t word) {
    for (size_t byte = 0; byte < 4; ++byte) to[at + byte] = uint8_t(word >> (8 * byte));
  }

  uint64_t scale() {
    const ElementFormat &f = format_of(x.scale);
    if (scale_class == ScaleClass::raw) return random.word();
    int exponent = random.range(-1, 1);
    if (scale_class == ScaleClass::lognormal) { // sum of six dice: close to normal with sigma 4.8
      exponent = 0;
      for (int i = 0; i < 6; ++i) exponent += random.range(-3, 3);
    }
    // For the classes at the ends of the accumulator the scales carry the products there.
    const bool low =
        cls == InputClass::subnormal || cls == InputClass::underflow || cls == InputClass::negative_underflow;
    if (x.scale == Element::ue8m0 && low)
      exponent += (fc.bottom() - std::max(fc.bottom(), lowest_product())) / 2;
    if (x.scale == Element::ue8m0 && cls == InputClass::overflow)
      exponent += std::max(0, fc.max_exponent() - highest_product() - 3) / 2;
    return compose(f, false, std::max(exponent, f.bottom()), random.word());
  }

  void scales() {
    for (std::vector<uint8_t> *side : {&tile.scale_a, &tile.scale_b})
      for (size_t i = 0; i < side->size(); ++i) {
        if (x.scale == Element::f32) {
          put_word(*side, i, scale());
          i += 3;
          continue;
        }
        const bool code = i % size_t(scale_bytes(x)) == 0; // above it exponents of a bit, any of them
        uint8_t s = uint8_t(code ? scale() : random.word());
        if (fa.flagged_unit != 0 && random.one_in(2)) s |= 0x80;
        (*side)[i] = s;
      }
  }

  /// C from the exact-enough sum and the largest product's exponent.
  uint64_t accumulator(long double sum, int top) {
    const uint64_t sign = random.one_in(2) ? sign_bit(fc) : 0;
    const auto near = [&](int low, int high) {
      return compose(fc, sign != 0, top + random.range(low, high), random.word());
    };
    switch (cls) {
    case InputClass::raw: return random.word() & code_mask(fc);
    case InputClass::raw_finite: return finite(fc);
    case InputClass::zeros: return sign;
    case InputClass::large_c: return near(1, 40);
    case InputClass::small_c: return near(-45, -1);
    case InputClass::subnormal:
      return random.one_in(3) ? sign
                              : compose(fc, sign != 0, fc.bottom() + random.range(0, 28), random.word());
    case InputClass::underflow: return random.one_in(2) ? sign : sign | uint64_t(random.range(0, 3));
    case InputClass::negative_underflow: return random.one_in(4) ? sign_bit(fc) | 1 : sign;
    case InputClass::specials:
      if (random.one_in(3)) return special(fc);
      return random.one_in(4) ? sign : near(-3, 3);
    case InputClass::cancel: return opposite(sum, random.range(-3, 3));
    case InputClass::overflow: {
      const long double limit =
          std::ldexp(1.0L, fc.max_exponent() + 1); // 65536 for f16; the largest is 65504
      const long double step = std::ldexp(1.0L, fc.max_exponent() - fc.mantissa_bits - 2);
      const long double target = limit + step * random.range(-12, 4);
      return opposite(sum - (sign ? -target : target), 0);
    }
    default: return random.one_in(8) ? sign : near(-8, 8);
    }
  }

  /// The accumulator code nearest to -value (magnitude truncated), moved by `ulps`.
  uint64_t opposite(long double value, int ulps) {
    if (!std::isfinite(value) || value == 0) return 0;
    int e = 0;
    const long double significand = std::frexp(std::fabs(value), &e) * 2;
    const uint64_t fraction = uint64_t(std::ldexp(significand - 1, 63)) << 1;
    const uint64_t code = compose(fc, value > 0, e - 1, fraction);
    const uint64_t magnitude = code & (sign_bit(fc) - 1);
    const int64_t moved = std::max<int64_t>(0, int64_t(magnitude) + ulps);
    return (code & sign_bit(fc)) | std::min(uint64_t(moved), max_finite(fc));
  }

  /// The values of a matrix with its scales multiplied in.
  std::vector<long double> values(const ElementFormat &f, std::span<const uint8_t> codes,
                                  std::span<const uint8_t> scales, int rows) {
    const ElementFormat &fs = format_of(x.scale);
    std::vector<long double> v(size_t(rows) * size_t(x.k));
    for (size_t i = 0; i < v.size(); ++i) {
      const uint64_t code = get_element(codes, f.bits, int64_t(i));
      v[i] = decode(f, code);
      if (!x.scale_block) continue;
      const size_t at = i / size_t(x.scale_block) * size_t(scale_bytes(x)), place = i % size_t(x.scale_block);
      const uint8_t low = scales[at];
      if (f.flagged_unit != 0 && (low & 0x80) != 0)
        v[i] = decode(format_of(f.flagged), code) * static_cast<long double>(f.flagged_unit);
      if (x.scale == Element::f32) {
        uint64_t word = 0;
        for (size_t byte = 4; byte-- > 0;) word = word << 8 | scales[at + byte];
        v[i] *= decode(fs, word);
        continue;
      }
      v[i] *= decode(fs, low & code_mask(fs) & ~sign_bit(fs));
      if (scale_bytes(x) == 4) // HiFloat4: an exponent for each 8 elements, then one for each 4
        v[i] *= (1 + (scales[at + 1] >> place / 8 & 1)) * (1 + (scales[at + 2 + place / 32] >> place / 4 % 8 & 1));
    }
    return v;
  }

  void accumulators() {
    const std::vector<long double> a = values(fa, tile.a, tile.scale_a, x.m);
    const std::vector<long double> b = values(fb, tile.b, tile.scale_b, x.n);
    for (int i = 0; i < x.m; ++i)
      for (int j = 0; j < x.n; ++j) {
        long double sum = 0, largest = 0;
        for (int k = 0; k < x.k; ++k) {
          const long double p = a[size_t(i * x.k + k)] * b[size_t(j * x.k + k)];
          sum += p;
          if (std::isfinite(p)) largest = std::max(largest, std::fabs(p));
        }
        const int top = largest > 0 ? std::ilogb(largest) : 0;
        set_element(tile.c, x.acc_bits, int64_t(i) * x.n + j, accumulator(sum, top));
      }
  }
};

} // namespace

Tile generate(const MmaKind &kind, InputClass c, ScaleClass s, uint64_t seed, int64_t index) {
  const uint64_t where = (uint64_t(c) << 56) ^ (uint64_t(s) << 48) ^ uint64_t(index);
  Maker maker(kind, c, s, splitmix64(key_of(kind.unit, seed) ^ splitmix64(where)));
  maker.elements();
  if (kind.scale_block) maker.scales();
  maker.accumulators();
  return std::move(maker.tile);
}

} // namespace nvfp4::golden::cases
