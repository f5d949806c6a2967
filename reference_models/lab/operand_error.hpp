// SPDX-License-Identifier: Apache-2.0
// What quantization does to one operand, and the tables of made-up data and formats on which the lab compares
// them.
#pragma once
#include "nvfp4/emulator/quantize/statistics.hpp"
#include "nvfp4/reference_models/lab/measures.hpp"
#include "nvfp4/reference_models/linear/operand_engine.hpp"

#include <functional>
#include <optional>

namespace nvfp4::models {

/// Relative L2 of what was quantized; NaN where the signal is 0.
[[nodiscard]] double relative_error(const QuantizeStatistics &s);
/// Adds NAME/error (relative L2), NAME/sqnr (dB), NAME/flushed and NAME/saturated (parts of the elements).
void write_error(const QuantizeStatistics &s, Measures &to, const std::string &name);

/// x (rows, cols) as an operand contracted along `axis`, rounded to `source` first. f32 operands have no
/// error; those in BF16 that of the rounding. signs: of a rotation, those that recipe.hadamard_signs mean
/// (rotation_signs()).
[[nodiscard]] QuantizeStatistics operand_error(const OperandRecipe &recipe, FormatId source,
                                               MatrixView<const float> x, Axis axis, RandomKey key, int threads,
                                               const SignWords &signs = kFixedSigns);

/// x in blocks of one row under a rule that no convention has, element by element by the definition
/// (block_rule.hpp), to nearest. The global scale is that of the whole of x.
[[nodiscard]] QuantizeStatistics rule_error(const Rule &rule, MatrixView<const float> x);

/// A kind of made-up data. Values are BF16's.
struct Distribution {
  std::string_view name, text;
  std::vector<float> (*make)(int64_t rows, int64_t cols, uint64_t seed);
};
[[nodiscard]] std::span<const Distribution> distributions();
[[nodiscard]] const Distribution &find_distribution(std::string_view name);
/// Independent N(0, 1), the same words on every machine.
[[nodiscard]] std::vector<float> gaussian_values(int64_t count, uint64_t seed, uint64_t number);

/// Every convention, as it is and rotated where it has a rotation, on every distribution:
/// sweep/DISTRIBUTION/CONVENTION/... and sweep/DISTRIBUTION/CONVENTION+hadamard/...; and the rules that no
/// convention has.
[[nodiscard]] Measures sweep(int draws, int threads, const std::function<void(double)> &progress);

/// A format against another one, by crest factor: max |x| over the RMS of a block.
struct CrestPair {
  std::string_view name, low, high; ///< `low` is said to be better below the crossing, `high` above
};
[[nodiscard]] std::span<const CrestPair> crest_pairs();
/// Blocks of Gaussian values, each with a scale from 1 to 2 of its own, by their crest factor, in bins of
/// kCrestBin: crest/CONVENTION/CENTRE is the bin's signal-to-noise ratio in dB, and crossing/PAIR where the
/// two formats change places; NaN where they do not.
inline constexpr double kCrestBin = 0.1;
[[nodiscard]] Measures crest_sweep(int draws, int threads, const std::function<void(double)> &progress);
/// Where differences that are negative first become positive, between neighbouring bins; nothing where they
/// do not.
[[nodiscard]] std::optional<double> first_crossing(std::span<const double> x,
                                                   std::span<const double> difference);

} // namespace nvfp4::models
