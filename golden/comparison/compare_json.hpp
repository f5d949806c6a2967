// SPDX-License-Identifier: Apache-2.0
// Two JSON texts, one document or one a line (logs of runs), value by value.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nvfp4::golden {

/// A value that one side has and the other has not, or has otherwise. Values as JSON; nothing where there is
/// none.
struct ValueDifference {
  int64_t line = 0; ///< from 1; 0 in a single document
  std::string key;  ///< "loss", "model.hidden", "rules[0].use"
  std::optional<std::string> a = {}, b = {};
};

/// How often a key differs, and at most by how much: |a - b| / |b| where both are numbers and b is not 0.
struct KeyDifference {
  int64_t count = 0;
  double max_relative = 0;
};

struct JsonComparison {
  int64_t a_lines = 0, b_lines = 0; ///< documents: 1 each
  int64_t values = 0;               ///< compared, those of both sides and those of one
  int64_t differing = 0;
  std::optional<ValueDifference> first = {};
  std::map<std::string, KeyDifference> keys = {};
  int64_t times = 0; ///< differing values of keys that tell time (tokens_per_s): they count nowhere else

  [[nodiscard]] bool equal() const { return differing == 0 && a_lines == b_lines; }
};

/// `lines`: one JSON value a line; lines that only one side has are counted, not compared. `a` and `b` name
/// the sources in the Error for text that is not JSON.
[[nodiscard]] JsonComparison compare_json(std::string_view a_text, std::string_view b_text, bool lines,
                                          const std::string &a, const std::string &b);

/// The differences of two maps of strings, as a file's metadata is; values that are JSON objects on both
/// sides are taken apart: "model.hidden".
[[nodiscard]] std::vector<ValueDifference> compare_metadata(const std::map<std::string, std::string> &a,
                                                            const std::map<std::string, std::string> &b);

} // namespace nvfp4::golden
