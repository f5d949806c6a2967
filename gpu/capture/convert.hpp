// SPDX-License-Identifier: Apache-2.0
// The conversion instructions of a device as data, and how to run one over an array of inputs.
#pragma once
#include "nvfp4/gpu/capture/capture.hpp"
#include "nvfp4/gpu/capture/golden_file.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace nvfp4::gpu {

/// What a conversion reads, one element at a time.
enum class Source : uint8_t { f32, f16, bf16, code8, code6, code4 };

struct ConvertLaunch {
  const uint32_t *in; ///< device pointer, one element a word
  const uint32_t
      *rbits; ///< device pointer, one word per group of `elements` inputs; null without stochastic rounding
  uint32_t *out; ///< device pointer, one element a word
  int64_t count; ///< multiple of 4
};

/// One instruction. A packed form (x2, x4) is run with different values in its places and reported per
/// element.
struct Conversion {
  const char *name; ///< "cvt.rn.satfinite.e4m3x2.f32"
  Source source;
  int out_bits;      ///< bits of a converted element
  int elements;      ///< inputs per instruction: 1, 2 or 4
  bool stochastic;   ///< takes rbits
  uint32_t features; ///< Feature bits that it needs
  void (*run)(const ConvertLaunch &);
  /// Digest of the 2^24 inputs of chunk `chunk` (input word = chunk << 24 | i) into *sum, a device word. Null
  /// without.
  void (*digest)(uint32_t chunk, uint64_t *sum);
};

/// All conversions in a fixed order, whatever the device.
[[nodiscard]] std::span<const Conversion> conversions();

/// Runs a conversion on host arrays. `rbits` (one word per group) is empty unless it is stochastic.
[[nodiscard]] std::vector<uint32_t> run_conversion(const Conversion &x, std::span<const uint32_t> in,
                                                   std::span<const uint32_t> rbits);

/// Inputs for a source: every code where there are at most 256; for 16-bit and f32 sources the boundaries of
/// every format's values, specials and random words. Pure host code, a function of the arguments alone.
[[nodiscard]] std::vector<uint32_t> conversion_inputs(Source source, std::string_view name, uint64_t seed);

/// Groups of four or two equal-or-different inputs with random bits that show which bits serve which element.
struct StochasticInputs {
  std::vector<uint32_t> in;    ///< groups of `elements` words
  std::vector<uint32_t> rbits; ///< one per group
};
[[nodiscard]] StochasticInputs stochastic_inputs(const Conversion &x, uint64_t seed);

/// Writes the golden file of a conversion and, for f32 sources without rbits, the digest file over all 2^32
/// inputs. Digest of a chunk: sum modulo 2^64 over its inputs of splitmix64(in ^ out << 32).
void capture_conversion(const Conversion &x, const CaptureOptions &options, const Provenance &provenance,
                        std::ostream &log);

} // namespace nvfp4::gpu
