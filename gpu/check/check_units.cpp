// SPDX-License-Identifier: Apache-2.0
// nvfp4-check-units: runs tiles of every matrix unit of the GPU at hand and compares every output word with the
// emulator's. Prints one line per unit and input class that was compared; exit code 1 on any mismatch, 3 without GPU.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/gpu/capture/cuda_check.hpp"
#include "nvfp4/golden/cases/inputs.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>

namespace {

using namespace nvfp4;

struct Outcome {
  uint64_t outputs = 0, mismatches = 0;
  std::string first;
};

/// Tiles of one unit and input class, all outputs compared.
Outcome compare(const gpu::MmaKind &x, const UnitRule &rule, gpu::InputClass input, int64_t tiles, uint64_t seed) {
  gpu::Tile all;
  all.a.resize(size_t(gpu::a_bytes(x) * tiles));
  all.b.resize(size_t(gpu::b_bytes(x) * tiles));
  all.c.resize(size_t(gpu::c_bytes(x) * tiles));
  const int scales = gpu::scales_per_row(x);
  all.scale_a.resize(size_t(tiles * x.m * scales));
  all.scale_b.resize(size_t(tiles * x.n * scales));
#pragma omp parallel for schedule(dynamic, 16)
  for (int64_t t = 0; t < tiles; ++t) {
    const gpu::Tile one = gpu::generate(x, input, gpu::ScaleClass(t % gpu::kScaleClasses), seed, t);
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
  gpu::run_tiles(x, tiles, all.a.data(), all.b.data(), all.scale_a.data(), all.scale_b.data(), all.c.data(), d.data());

  Outcome outcome;
  std::mutex mutex;
#pragma omp parallel for schedule(dynamic, 16)
  for (int64_t t = 0; t < tiles; ++t) {
    uint64_t wrong = 0;
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
        ++wrong;
        const std::lock_guard lock(mutex);
        if (outcome.first.empty()) {
          char text[160];
          std::snprintf(text, sizeof text, "tile %lld output (%lld, %lld): c %llx hardware %llx emulator %llx", (long long)t,
                        (long long)i, (long long)j, (unsigned long long)CodeView{all.c.data(), x.acc_bits}[at],
                        (unsigned long long)got, (unsigned long long)want);
          outcome.first = text;
        }
      }
    const std::lock_guard lock(mutex);
    outcome.mismatches += wrong;
  }
  outcome.outputs = uint64_t(tiles * x.m * x.n);
  return outcome;
}

} // namespace

int main(int argc, char **argv) {
  const int64_t outputs = argc > 1 ? std::atoll(argv[1]) : 1000000;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 2;
  const std::string only = argc > 3 ? argv[3] : "";
  try {
    uint64_t total = 0, mismatches = 0;
    for (const gpu::MmaKind &x : gpu::kinds_for_device()) {
      const std::string name = x.unit;
      if (name.find(only) == std::string::npos) continue;
      const UnitRule &rule = find_unit(name).rule;
      Outcome unit;
      std::string classes;
      for (int c = 0; c < gpu::kInputClasses; ++c) {
        if (!gpu::applies(x, gpu::InputClass(c))) continue;
        const Outcome o = compare(x, rule, gpu::InputClass(c), std::max<int64_t>(1, outputs / (x.m * x.n)), seed);
        unit.outputs += o.outputs;
        unit.mismatches += o.mismatches;
        if (o.mismatches != 0)
          classes += std::string(" ") + gpu::name_of(gpu::InputClass(c)) + ":" + std::to_string(o.mismatches) + " [" + o.first + "]";
      }
      std::printf("%-44s outputs %10llu mismatches %llu%s\n", name.c_str(), (unsigned long long)unit.outputs,
                  (unsigned long long)unit.mismatches, classes.c_str());
      std::fflush(stdout);
      total += unit.outputs;
      mismatches += unit.mismatches;
    }
    std::printf("total: %llu outputs, %llu mismatches\n", (unsigned long long)total, (unsigned long long)mismatches);
    return mismatches == 0 ? 0 : 1;
  } catch (const gpu::NoDevice &error) {
    std::fprintf(stderr, "nvfp4-check-units: no suitable device: %s\n", error.what());
    return 3;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "nvfp4-check-units: %s\n", error.what());
    return 1;
  }
}
