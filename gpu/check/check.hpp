// SPDX-License-Identifier: Apache-2.0
// What the checks share: the tally of a comparison, and the checks of gpu/emulated, gpu/models
// and the GPU's own instructions.
#pragma once
#include "nvfp4/golden/product_operands.hpp"
#include "nvfp4/gpu/device/device.hpp"

#include <cstdint>
#include <cstdio>
#include <string>

namespace nvfp4::crosscheck {

using golden::Random;

/// Values compared and found different; the first difference in words.
struct Tally {
  uint64_t values = 0, mismatches = 0;
  std::string first;

  void mismatch(const std::string &where) {
    if (mismatches++ == 0) first = where;
  }
  void add(const Tally &o) {
    values += o.values;
    if (mismatches == 0) first = o.first;
    mismatches += o.mismatches;
  }
  void print(const char *what) const {
    std::printf("%-58s values %13llu  mismatches %llu%s%s\n", what, static_cast<unsigned long long>(values),
                static_cast<unsigned long long>(mismatches), first.empty() ? "" : "  first: ", first.c_str());
    std::fflush(stdout);
  }
};

/// Every matrix instruction of the GPU at hand against the emulator's unit: `outputs` of every unit and class
/// of input, generated from `seed`. `match`: part of a unit's name.
[[nodiscard]] Tally check_units(int64_t outputs, uint64_t seed, const std::string &match);
/// The element encoders of the fast quantization kernels against the codec, all 2^32 words, on the device.
[[nodiscard]] Tally check_elements();
/// Every convention and option on random and adversarial tensors.
[[nodiscard]] Tally check_quantize(int repeats);
/// Every unit of the catalogue, `tiles` tiles of every class.
[[nodiscard]] Tally check_mma(int tiles, const std::string &match);
/// Products: FP4 on every path, the others on ragged shapes. `large` adds 4096^3 of five kinds of data;
/// `brief` keeps to the smallest, for compute-sanitizer; `recorded`, if not empty, is a file of operands;
/// `match`, if not empty, leaves units whose name has this text.
[[nodiscard]] Tally check_gemm(bool large, bool brief, const std::string &recorded = {},
                               const std::string &match = {});
/// Every kernel of the models; every recipe and form of the Hot-Channel Patch in linear layers. `match`: part
/// of a group's name.
[[nodiscard]] Tally check_kernels(const std::string &match);
[[nodiscard]] Tally check_linear(const std::string &match);
/// Speed of quantization and products beside its ceilings, those of a file of operands among them; compares
/// the large product with the CPU. `match`, if not empty: only products whose line
/// has this text in "gemm UNIT LABEL [M, N, K]".
[[nodiscard]] Tally time_twin(int64_t size, const std::string &recorded = {}, const std::string &match = {});

/// Tensor-core rate of mma.sync on registers alone, operations per second: BF16 m16n8k16 and S8 m16n8k32.
[[nodiscard]] double mma_peak(bool integers);

} // namespace nvfp4::crosscheck
