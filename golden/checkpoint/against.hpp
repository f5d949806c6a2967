// SPDX-License-Identifier: Apache-2.0
// A quantized weight against the weight it was made from: the noise, and which convention gives its bytes.
#pragma once
#include "nvfp4/golden/checkpoint/weight.hpp"

namespace nvfp4::checkpoint {

/// A convention and where it took its global amax from.
struct Reproduction {
  std::string convention;
  std::string amax; ///< "own", "fused" (the largest of the modules that are fused with it) or "stored" (its
                    ///< global scale)
  int block_rows = 1;
  int64_t codes_differing = 0, scales_differing = 0; ///< over the whole weight
  bool global_equal = true; ///< the stored word is the convention's; true where none is stored

  [[nodiscard]] bool bytes_equal() const { return codes_differing == 0 && scales_differing == 0; }
  [[nodiscard]] std::string text() const; ///< "te with 16x16 tiles, amax of the fused modules"
};

struct Comparison {
  std::string refused = {}; ///< why it could not be compared; the rest is then empty
  double snr_db = 0;        ///< 10 log10 of sum x^2 over sum (x - reconstruction)^2, finite elements
  int64_t flushed = 0;      ///< finite elements that are not 0 and whose reconstruction is
  int64_t not_finite = 0;   ///< of the original, or reconstructed from a finite one
  std::vector<Reproduction> equal = {};     ///< every byte of codes and scales
  std::optional<Reproduction> closest = {}; ///< where none is equal
  std::string explanation = {}; ///< then: what the quantizer did, as far as its first rows show; may be empty
};

struct AgainstOptions {
  std::string convention;          ///< the only one to try; empty: all of the weight's format
  std::optional<float> fused_amax; ///< of the modules that are fused with this one
  int threads = 0;
};

/// `mine` must be decodable.
[[nodiscard]] Comparison compare_with(const Weight &mine, const Weight &original,
                                      const AgainstOptions &options);

/// The largest magnitude of a weight's finite values.
[[nodiscard]] float largest_magnitude(const Weight &w, int threads = 0);

/// Names of the weights that serving software fuses with this one, itself not among them.
[[nodiscard]] std::vector<std::string> fused_with(const std::string &name);

} // namespace nvfp4::checkpoint
