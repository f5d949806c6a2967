// SPDX-License-Identifier: Apache-2.0
// One way in which a quantized tensor may have been made, and making it: on all blocks or on a sample of
// them. Internal.
#pragma once
#include "nvfp4/golden/diagnosis/quantizer_check.hpp"

namespace nvfp4::diagnosis {

/// Another rounding of the elements than the rule's.
enum class ElementTies : uint8_t {
  by_rule,
  away,
  down,
  toward_zero,
  upward,
  downward,
  through_bf16,
  through_f16
};

/// Changes a stored code or scale.
using CodeMap = uint8_t (*)(const Format &format, uint8_t code);
/// MINE as it would be had it been written in our order; false where it does not fit.
using Reading = bool (*)(const BlockScaled &mine, BlockScaled &out);

struct Making {
  Rule rule;
  Capabilities can;
  QuantizeOptions options; ///< the layout is always linear
  bool bf16_first = false; ///< the source is rounded to BF16 before anything else
  ElementTies ties = ElementTies::by_rule;
  std::optional<Rounding> scale_rounding = {}; ///< of block scales, saturating, instead of the rule's
  CodeMap code_map = nullptr;
  CodeMap scale_map = nullptr;
  bool scale_map_last = false; ///< the elements are divided by the scale before the map
  Reading reading = nullptr;
};

/// The source as the quantizer reads it: rows along k, rotated, rounded.
[[nodiscard]] SourceTensor prepare(const QuantizerProblem &p, const Making &m);
/// Two makings that prepare the same.
[[nodiscard]] bool prepare_alike(const Making &a, const Making &b);

/// Blocks on which a making is tried. Where it is not the whole tensor, a row is one block and then numbers
/// that give the row its maximum, and the last 16 rows give the tensor's.
struct BlockSample {
  SourceTensor x;
  bool whole = true;
  std::vector<std::pair<int64_t, int64_t>>
      blocks; ///< (row, block) of row 0, 1, ...; not for the whole tensor
};
/// Strips of 16 rows that hold the blocks; ragged ones are left out where others remain.
[[nodiscard]] BlockSample take_sample(const QuantizerProblem &p, const SourceTensor &prepared,
                                      const std::vector<std::pair<int64_t, int64_t>> &blocks);

/// Codes and linear scales; nothing where the rule cannot be executed with these options.
[[nodiscard]] std::optional<BlockScaled> make(const QuantizerProblem &p, const Making &m,
                                              const SourceTensor &prepared);

struct Leftover {
  int64_t codes = 0, scales = 0, blocks = 0; ///< that differ
  int64_t of_blocks = 0;
  [[nodiscard]] bool none() const { return codes == 0 && scales == 0; }
};
/// MINE (after the making's reading) against what was made of the sample.
[[nodiscard]] Leftover compare_blocks(const BlockScaled &mine, const BlockSample &sample,
                                      const BlockScaled &made);

} // namespace nvfp4::diagnosis
