// SPDX-License-Identifier: Apache-2.0
// What can be said of D without a hypothesis: parts that are NaN, Inf, zero or one repeated word, and parts
// that are right but stand in another place. Looks at the words of D and of the reference only.
#pragma once
#include "nvfp4/emulator/formats/format.hpp"
#include "nvfp4/golden/diagnosis/index_set.hpp"

#include <span>

namespace nvfp4::diagnosis {

struct Fact {
  std::string kind;             ///< for machines: nan, infinity, zero, constant, rows-moved, columns-moved,
                                ///< outputs-moved, tiles-moved, tiles-alike, tiles-transposed,
                                ///< factor, addend
  std::string text;             ///< one clause: "rows 8 to 15 are zero"
  Indices rows = {}, cols = {}; ///< where, when that is one rectangle pattern rows x columns; else empty
  int64_t outputs = 0;          ///< differing outputs that it accounts for
  int64_t first = -1;           ///< one such output, row-major
  double factor = 0;            ///< of kind `factor`: D there is this times what is expected
  std::vector<double> addends = {}; ///< of kind `addend`: what is added to each of `rows` or `cols`
};

/// Whether a fact is decided on values, not on words.
[[nodiscard]] inline bool is_of_values(const Fact &f) { return f.kind == "factor" || f.kind == "addend"; }

struct Structure {
  std::vector<Fact> facts;
  std::vector<bool> covered; ///< (rows, cols): differing outputs that a fact accounts for
  int64_t left = 0;          ///< differing outputs that none accounts for
};

/// got and want: (rows, cols) words of `type`. Facts are about differing words; words that differ and of
/// which nothing is said are counted in `left`.
[[nodiscard]] Structure structure_of(FormatId type, int64_t rows, int64_t cols, std::span<const uint8_t> got,
                                     std::span<const uint8_t> want);

} // namespace nvfp4::diagnosis
