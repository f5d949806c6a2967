// SPDX-License-Identifier: Apache-2.0
// Tiles of every matrix instruction of the GPU at hand, every output word compared with the emulator's.
// Prints a line per unit.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/golden/cases/inputs.hpp"
#include "nvfp4/gpu/capture/run_tiles.hpp"
#include "nvfp4/gpu/check/check.hpp"

#include <algorithm>
#include <mutex>

namespace nvfp4::crosscheck {
namespace {

using namespace golden::cases;

/// Tiles of one unit and input class, all outputs compared.
Tally compare(const MmaKind &x, const UnitRule &rule, InputClass input, int64_t tiles, uint64_t seed) {
  Tile all;
  all.a.resize(size_t(a_bytes(x) * tiles));
  all.b.resize(size_t(b_bytes(x) * tiles));
  all.c.resize(size_t(c_bytes(x) * tiles));
  const int scales = scales_per_row(x);
  all.scale_a.resize(size_t(tiles * x.m * scales));
  all.scale_b.resize(size_t(tiles * x.n * scales));
#pragma omp parallel for schedule(dynamic, 16)
  for (int64_t t = 0; t < tiles; ++t) {
    const Tile one = generate(x, input, ScaleClass(t % kScaleClasses), seed, t);
    const auto place = [t](std::vector<uint8_t> &to, const std::vector<uint8_t> &from) {
      std::copy(from.begin(), from.end(), to.begin() + t * int64_t(from.size()));
    };
    place(all.a, one.a);
    place(all.b, one.b);
    place(all.c, one.c);
    place(all.scale_a, one.scale_a);
    place(all.scale_b, one.scale_b);
  }
  std::vector<uint8_t> d(all.c.size());
  gpu::run_tiles(x, tiles, all.a.data(), all.b.data(), all.scale_a.data(), all.scale_b.data(), all.c.data(),
                 d.data());

  Tally tally;
  std::mutex mutex;
#pragma omp parallel for schedule(dynamic, 16)
  for (int64_t t = 0; t < tiles; ++t) {
    for (int64_t i = 0; i < x.m; ++i)
      for (int64_t j = 0; j < x.n; ++j) {
        const int64_t row = t * x.m + i, column = t * x.n + j, at = row * x.n + j;
        const DotOperands op{{all.a.data() + row * x.k * x.a_bits / 8, x.a_bits},
                             {all.b.data() + column * x.k * x.b_bits / 8, x.b_bits},
                             all.scale_a.data() + row * scales,
                             all.scale_b.data() + column * scales};
        const uint64_t want = dot(rule, op, x.k, CodeView{all.c.data(), x.acc_bits}[at]);
        const uint64_t got = CodeView{d.data(), x.acc_bits}[at];
        if (got == want) continue;
        char text[160];
        std::snprintf(text, sizeof text, "tile %lld output (%lld, %lld): c %llx hardware %llx emulator %llx",
                      static_cast<long long>(t), static_cast<long long>(i), static_cast<long long>(j),
                      static_cast<unsigned long long>(CodeView{all.c.data(), x.acc_bits}[at]),
                      static_cast<unsigned long long>(got), static_cast<unsigned long long>(want));
        const std::lock_guard lock(mutex);
        tally.mismatch(text);
      }
  }
  tally.values = uint64_t(tiles * x.m * x.n);
  return tally;
}

} // namespace

Tally check_units(int64_t outputs, uint64_t seed, const std::string &match) {
  Tally total;
  for (const MmaKind &x : gpu::kinds_for_device()) {
    const std::string name = x.unit;
    if (name.find(match) == std::string::npos) continue;
    const UnitRule &rule = find_unit(name).rule;
    Tally unit;
    for (int c = 0; c < kInputClasses; ++c) {
      const auto input = InputClass(c);
      if (!applies(x, input)) continue;
      Tally t = compare(x, rule, input, std::max<int64_t>(1, outputs / (x.m * x.n)), seed);
      if (t.mismatches != 0) t.first = std::string(name_of(input)) + ", " + t.first;
      unit.add(t);
    }
    unit.print(("unit " + name).c_str());
    total.add(unit);
  }
  return total;
}

} // namespace nvfp4::crosscheck
