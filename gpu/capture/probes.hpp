// SPDX-License-Identifier: Apache-2.0
// Directed cases: single dot products whose result decides one question about the arithmetic (alignment
// width, floor of the largest exponent, rounding, chaining along K, signs of zero, NaN words, block scales).
// Pure host code.
#pragma once
#include "nvfp4/gpu/capture/run_tiles.hpp"

#include <string>
#include <vector>

namespace nvfp4::gpu {

/// One dot product: codes in K order, scales in block order, C as an accumulator code.
struct Probe {
  std::string name; ///< "P1", "align.product.e24"; written as class "probe:NAME"
  std::vector<uint64_t> a, b;
  std::vector<uint8_t> scale_a, scale_b;
  uint64_t c = 0;
};

/// Every probe that the kind's formats can express, in a fixed order.
[[nodiscard]] std::vector<Probe> probes_for(const MmaKind &kind);

/// Builds one probe; `ok` turns false when a value has no exact code in the kind's formats.
class ProbeBuilder {
public:
  ProbeBuilder(const MmaKind &kind, std::string name);
  /// Product k of the dot product as exact values.
  ProbeBuilder &product(int k, double a, double b);
  /// A product of +-2^exponent split over both operands; fails when no split is representable.
  ProbeBuilder &power(int k, int exponent, bool negative = false);
  /// Product k as codes.
  ProbeBuilder &codes(int k, uint64_t a, uint64_t b);
  ProbeBuilder &c(double value);
  ProbeBuilder &c_code(uint64_t code);
  /// Scales of block `block`, as codes.
  ProbeBuilder &scales(int block, uint8_t a, uint8_t b);
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] const Probe &probe() const { return probe_; }

private:
  const MmaKind &kind_;
  Probe probe_;
  bool ok_ = true;
};

/// The parts of probes_for, one file each.
void add_width_probes(const MmaKind &kind, std::vector<Probe> &out); ///< alignment, floor, rounding, chaining
void add_special_probes(const MmaKind &kind,
                        std::vector<Probe> &out);                    ///< zeros, signs, Inf, NaN, ignored bits
void add_scale_probes(const MmaKind &kind, std::vector<Probe> &out); ///< block scales

} // namespace nvfp4::gpu
