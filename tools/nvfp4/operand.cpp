// SPDX-License-Identifier: Apache-2.0
// Reads what a GEMM takes from files.
#include "tools/nvfp4/operand.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "tools/nvfp4/paths.hpp"

#include <charconv>
#include <cmath>

namespace nvfp4::tool {

Operand read_operand(const std::string &path, const std::string &tensor, const Unit &unit, Side side) {
  return golden::read_operand(io::read_tensors(input_path(path)), tensor, unit, side);
}

const std::map<std::string, AlphaRule> &alpha_rules() {
  static const std::map<std::string, AlphaRule> rules = [] {
    std::map<std::string, AlphaRule> all;
    for (const AlphaRule r : enumerators<AlphaRule>()) all.emplace(to_string(r), r);
    return all;
  }();
  return rules;
}

OneOf alpha_rule_names() {
  OneOf names;
  for (const auto &[name, rule] : alpha_rules()) names.words.push_back(name);
  return names;
}

void check_epilogue(const GemmFlags &f) {
  if (f.beta == 0.0f && !f.c.empty()) throw Error("--c " + f.c + " has no effect without --beta");
  if (f.beta != 0.0f && f.c.empty()) throw Error("--beta " + std::to_string(f.beta) + " needs --c FILE");
}

std::vector<uint8_t> read_c(const std::string &path, const std::string &tensor, const char *what,
                            FormatId acc, int64_t m, int64_t n) {
  return golden::read_c(io::read_tensors(input_path(path)), tensor, what, acc, m, n);
}

std::vector<uint8_t> read_accumulators(const std::string &path, FormatId acc, int64_t m, int64_t n) {
  return golden::read_accumulators(io::read_tensors(input_path(path)), acc, m, n);
}

std::vector<float> read_vector(const std::string &path, const char *what, int64_t n) {
  return golden::read_vector(io::read_tensors(input_path(path)), what, n);
}

std::vector<RowsFactor> parse_ranges(const std::string &text, const char *flag) {
  std::vector<RowsFactor> ranges;
  const char *at = text.data(), *const end = at + text.size();
  const auto wrong = [&] {
    return Error(std::string(flag) + " '" + text +
                 "': expected FIRST:LAST=SCALE, for example 0:1024=0.5,1024:1536=0.25");
  };
  const auto number = [&](auto &value, char after) {
    const auto [next, code] = std::from_chars(at, end, value);
    if (code != std::errc() || (after != 0 ? next == end || *next != after : next != end && *next != ','))
      throw wrong();
    at = next == end ? end : next + 1;
  };
  while (at != end) {
    RowsFactor r{0, 0, {}};
    number(r.first, ':');
    number(r.last, '=');
    number(r.factor.decode, 0);
    if (!std::isfinite(r.factor.decode)) throw wrong();
    ranges.push_back(r);
  }
  if (ranges.empty() || text.back() == ',') throw wrong();
  return ranges;
}

} // namespace nvfp4::tool
