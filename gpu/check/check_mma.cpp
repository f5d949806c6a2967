// SPDX-License-Identifier: Apache-2.0
// Every unit of the catalogue: tiles of random words, numbers, specials and cancellations, GPU against CPU,
// word by word.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/gpu/check/check.hpp"
#include "nvfp4/gpu/check/stage.hpp"
#include "nvfp4/gpu/emulated/mma.hpp"

#include <cmath>
#include <cstring>

namespace nvfp4::crosscheck {
namespace {

enum class Input : uint8_t { raw, centre, wide, sparse, specials, far_c };
constexpr int kInputs = 6;

uint64_t from_double(FormatId id, double x) {
  return convert(format(id), format(FormatId::f64), bit_cast<uint64_t>(x), Rounding::nearest_even,
                 Overflow::satfinite);
}

uint64_t element(FormatId id, Input input, Random &random) {
  const Format f = format(id);
  const uint64_t mask = f.storage_bits == 64 ? ~uint64_t{0} : (uint64_t{1} << f.storage_bits) - 1;
  const uint64_t raw = random() & (f.code_bits < f.storage_bits && f.storage_bits == 8
                                       ? (uint64_t{1} << f.code_bits) - 1 // 6-bit codes
                                       : mask);
  switch (input) {
  case Input::raw: return raw;
  case Input::sparse:
    if (random.below(4) != 0) return with_sign(f, random.below(2) != 0, 0);
    [[fallthrough]];
  case Input::far_c:
  case Input::centre: return from_double(id, double(random.normal()));
  case Input::wide:
    return from_double(id, std::ldexp(double(random.normal()), random.below(2 * f.bias + 1) - f.bias));
  case Input::specials: break;
  }
  switch (random.below(12)) {
  case 0: return with_sign(f, random.below(2) != 0, f.max_finite_magnitude());
  case 1: return with_sign(f, random.below(2) != 0, 1);
  case 2: return random.below(4) == 0 ? with_sign(f, random.below(2) != 0, f.top_magnitude()) : 0;
  case 3:
    return random.below(4) == 0 && f.specials == Specials::ieee
               ? with_sign(f, random.below(2) != 0, f.infinity_magnitude())
               : with_sign(f, true, 0);
  default: return from_double(id, double(random.normal()));
  }
}

uint32_t scale(FormatId id, Input input, Random &random) {
  if (input == Input::raw || input == Input::specials) return uint32_t(random());
  const int spread = input == Input::wide ? 60 : 4;
  if (id == FormatId::ue8m0) return uint32_t(127 + random.below(2 * spread + 1) - spread);
  if (id == FormatId::f32) return uint32_t(from_double(id, std::ldexp(1.0 + random.normal() / 8, random.below(spread) - spread / 2)));
  const Format f = format(id);
  const uint32_t any = uint32_t(random() & f.magnitude_mask()), one = uint32_t(f.one());
  const uint32_t code = input == Input::wide ? any == f.top_magnitude() ? 0 : any : one - 8 + uint32_t(random.below(16));
  return f.extra == ScaleExtra::none ? code : code | uint32_t(random()) << f.field_bits(); // all that may stand above it
}

uint64_t accumulator(FormatId id, Input input, Random &random) {
  if (input == Input::far_c)
    return from_double(id, std::ldexp(double(random.normal()), random.below(81) - 40));
  if (input == Input::wide)
    return from_double(id, std::ldexp(double(random.normal()), random.below(200) - 100));
  return element(id, input, random);
}

void put(std::vector<uint8_t> &to, int bits, int64_t i, uint64_t word) {
  if (bits == 4)
    to[size_t(i / 2)] = uint8_t(to[size_t(i / 2)] | (word & 15) << (i % 2 * 4));
  else
    std::memcpy(to.data() + i * bits / 8, &word, size_t(bits / 8));
}

Tally compare(const Unit &unit, Input input, int tiles, Accumulation accumulation, uint64_t seed) {
  const UnitRule &r = unit.rule;
  const int m = 16, n = 8, bits_a = format(r.a).storage_bits, bits_b = format(r.b).storage_bits;
  const int width = format(r.acc).storage_bits;
  const int64_t k = 2 * r.k, blocks = r.scale_row(k); // bytes of scales
  std::vector<uint8_t> a(size_t(tiles * m * k * bits_a / 8)), b(size_t(tiles * n * k * bits_b / 8));
  std::vector<uint8_t> c(size_t(tiles * m * n * width / 8)), sa(size_t(tiles * m * blocks)),
      sb(size_t(tiles * n * blocks));
  Random random{seed};
  for (int64_t i = 0; i < tiles * m * k; ++i) put(a, bits_a, i, element(r.a, input, random));
  for (int64_t i = 0; i < tiles * n * k; ++i) put(b, bits_b, i, element(r.b, input, random));
  for (int64_t i = 0; i < tiles * m * n; ++i) put(c, width, i, accumulator(r.acc, input, random));
  for (std::vector<uint8_t> *scales : {&sa, &sb})
    for (size_t i = 0; i < scales->size();) {
      const uint32_t word = scale(r.scale, input, random);
      for (int byte = 0; byte < scale_bytes(r.scale); ++byte) (*scales)[i++] = scale_byte(word, byte);
    }

  cuda::DeviceBuffer da, db, dc, dsa, dsb, dd(int64_t(c.size()));
  da.upload(a);
  db.upload(b);
  dc.upload(c);
  dsa.upload(sa);
  dsb.upload(sb);
  cuda::mma(r,
            {tiles, m, n, k, da.as<uint8_t>(), db.as<uint8_t>(), dsa.as<uint8_t>(), dsb.as<uint8_t>(),
             dc.as<uint8_t>(), dd.as<uint8_t>()},
            accumulation, nullptr);
  const std::vector<uint8_t> d = dd.download<uint8_t>(int64_t(c.size()));
  Tally t;
  t.values = uint64_t(tiles) * m * n;
  std::vector<uint64_t> want(t.values);
  const auto operands = [&](int64_t o) {
    const int64_t row_a = o / n, row_b = o / n / m * n + o % n;
    return DotOperands{{a.data() + row_a * k * bits_a / 8, bits_a},
                       {b.data() + row_b * k * bits_b / 8, bits_b},
                       blocks == 0 ? nullptr : sa.data() + row_a * blocks,
                       blocks == 0 ? nullptr : sb.data() + row_b * blocks};
  };
#pragma omp parallel for schedule(static)
  for (int64_t o = 0; o < int64_t(t.values); ++o)
    want[size_t(o)] = dot(r, operands(o), k, CodeView{c.data(), width}[o], accumulation);
  for (int64_t o = 0; o < int64_t(t.values); ++o) {
    const uint64_t got = CodeView{d.data(), width}[o];
    if (got == want[size_t(o)]) continue;
    char text[160];
    std::snprintf(text, sizeof text, "%s class %d output %lld: got %llx, want %llx", unit.name().c_str(),
                  int(input), static_cast<long long>(o), static_cast<unsigned long long>(got),
                  static_cast<unsigned long long>(want[size_t(o)]));
    t.mismatch(t.mismatches > 0
                   ? std::string()
                   : std::string(text) + "; " +
                         explain_word(r, operands(o), k, CodeView{c.data(), width}[o], accumulation, got));
  }
  return t;
}

} // namespace

Tally check_mma(int tiles, const std::string &match) {
  Tally all;
  std::string arch;
  Tally of_arch;
  int units = 0;
  const auto report = [&] {
    if (units > 0) of_arch.print(("mma " + arch + ", " + std::to_string(units) + " units").c_str());
    all.add(of_arch);
    of_arch = {};
    units = 0;
  };
  uint64_t seed = 1;
  for (const Unit &u : catalogue()) {
    if (u.name().find(match) == std::string::npos) continue;
    if (u.arch != arch) report();
    arch = u.arch;
    ++units;
    for (int i = 0; i < kInputs; ++i) {
      for (const Accumulation model : enumerators<Accumulation>())
        if (model == Accumulation::mmasim || u.rule.family == Family::gst_fdpa)
          of_arch.add(compare(u, Input(i), tiles, model, seed++));
    }
  }
  report();
  return all;
}

} // namespace nvfp4::crosscheck
