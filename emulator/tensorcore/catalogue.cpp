// SPDX-License-Identifier: Apache-2.0
// The rows of the catalogue. A row names the architectures, the instruction, the operand formats and the numbers; it
// expands to one unit per architecture and pair of formats. Adding an instruction is adding a row.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"

#include <algorithm>
#include <iterator>
#include <sstream>
#include <vector>

namespace nvfp4 {
namespace {

using enum FormatId;
using enum Family;
using enum Output;
using enum Evidence;

/// Which pairs of a row's formats exist as operands A and B.
enum Pairs : uint8_t { same, crossed, all };

/// One row. Lists are separated by blanks. `alike` names architectures that nobody measured and that are assumed to
/// equal the first of `archs`. `instruction` stops before the operand formats: "mma.m16n8k16.f32";
/// `kind` comes between them ("mxf4"), `suffix` after ("ue8m0.block32").
struct Row {
  const char *archs;
  const char *alike;
  const char *instruction;
  const char *kind;
  const char *formats;
  Pairs pairs;
  const char *suffix;
  Family family;
  FormatId acc;
  Output output;
  int16_t k, link, fraction_bits, floor;
  FormatId scale;
  int16_t scale_block;
  Evidence evidence;
  const char *source;
};

constexpr const char *kAmpereAda = "sm_80 sm_86 sm_89";
constexpr const char *kLikeB200 = "sm_103 sm_110";
constexpr const char *kLikeRtx50 = "sm_121";
constexpr const char *kF8f6f4 = "e4m3 e5m2 e3m2 e2m3 e2m1";
constexpr const char *kMmaSim = "MMA-Sim (arXiv 2511.10909)";
constexpr const char *kB200Words = "MMA-Sim and sf-tensor/tcgen05; reproduces the latter's B200 words, golden/vectors/published";
constexpr const char *kMatlab =
    "MMA-Sim; reproduces the GPU outputs of MATLAB-tensor-core, golden/evidence/matlab-tensor-core.txt";
constexpr const char *kAsSame = "as operands of equal format";
constexpr const char *kOneStep = "one of the two steps of m16n8k32";
constexpr const char *kTwoHmma1688 = "as m16n8k32, from the two HMMA.1688 that ptxas 13.0 emits";
constexpr const char *kCaptured = "captured on an H200, golden/vectors/hardware";
constexpr const char *kQmma16 = "one step of the native QMMA.16816 that ptxas 13.0 emits, as m16n8k32";
constexpr const char *kDmma8 = "ptxas 13.0 expands it to a chain of DMMA.8x8x4";
// Published floors of FP16 accumulators differ by one. The H200 shows -21, the value of Khattak and Mikaitis, so theirs
// are taken for the other architectures too.
constexpr const char *kMatlabF16 =
    "MMA-Sim and MATLAB-tensor-core; floor inferred from the latter, whose value for Hopper the H200 confirms";

#include "nvfp4/emulator/tensorcore/catalogue_rows.inc"

std::vector<std::string> words(const char *list) {
  std::istringstream in(list);
  return {std::istream_iterator<std::string>(in), {}};
}

/// Pairs with 6-bit and 4-bit operands of the f8f6f4 kinds, of which no outputs are public: taken to be like FP8.
bool narrow_pair(const Row &row, FormatId a, FormatId b) {
  return row.pairs != same && (format(a).code_bits < 8 || format(b).code_bits < 8);
}

Unit make_unit(const Row &row, const std::string &arch, bool assumed, FormatId a, FormatId b) {
  std::string name = row.instruction;
  if (*row.kind != 0) name += std::string(".") + row.kind;
  if (std::string_view(row.kind) != "mxf4" && std::string_view(row.kind) != "mxf4nvf4") {
    name += std::string(".") + format(a).name;
    if (a != b) name += std::string(".") + format(b).name;
  }
  if (*row.suffix != 0) name += std::string(".") + row.suffix;
  return {arch,
          name,
          {row.family, a, b, row.acc, row.output, row.k, row.link, row.fraction_bits, row.floor, row.scale,
           row.scale_block},
          assumed || narrow_pair(row, a, b) ? inferred : row.evidence,
          assumed                   ? "assumed equal to " + words(row.archs).front()
          : narrow_pair(row, a, b) ? std::string("as the e4m3 and e5m2 operands of this kind")
                                    : row.source};
}

std::vector<Unit> expand() {
  std::vector<Unit> units;
  for (const Row &row : kRows)
    for (const bool assumed : {false, true})
      for (const std::string &arch : words(assumed ? row.alike : row.archs))
        for (const std::string &a : words(row.formats))
          for (const std::string &b : words(row.formats))
            if (a == b ? row.pairs != crossed : row.pairs != same)
              units.push_back(make_unit(row, arch, assumed, *find_format(a), *find_format(b)));
  const auto number = [](const Unit &u) { return std::stoi(u.arch.substr(3)); };
  std::stable_sort(units.begin(), units.end(), [&](const Unit &x, const Unit &y) { return number(x) < number(y); });
  return units;
}

/// "…e4m3.e4m3…" -> "…e4m3…", so that equal operand formats may be written twice.
std::string without_doubled_formats(std::string_view name) {
  std::vector<std::string> parts;
  std::string part;
  std::istringstream in{std::string(name)};
  while (std::getline(in, part, '.')) {
    // the accumulator comes first: mma.m16n8k16.f16.f16 names accumulator and elements
    if (parts.size() > 3 && part == parts.back() && find_format(part)) continue;
    parts.push_back(part);
  }
  std::string joined;
  for (const std::string &p : parts) joined += (joined.empty() ? "" : ".") + p;
  return joined;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t up = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1] ? 1 : 0)});
      diagonal = up;
    }
  }
  return row[b.size()];
}

} // namespace

std::span<const Unit> catalogue() {
  static const std::vector<Unit> units = expand();
  return units;
}

const Unit &find_unit(std::string_view name) {
  const std::span<const Unit> units = catalogue();
  for (const std::string &wanted : {std::string(name), without_doubled_formats(name)})
    for (const Unit &u : units)
      if (u.name() == wanted) return u;
  std::vector<std::pair<size_t, std::string>> near;
  for (const Unit &u : units) near.emplace_back(edit_distance(name.substr(0, 80), u.name()), u.name());
  std::partial_sort(near.begin(), near.begin() + 3, near.end());
  throw Error("unknown unit '" + std::string(name) + "'; nearest: " + near[0].second + ", " + near[1].second + ", " +
              near[2].second + " (all: nvfp4 info --units)");
}

} // namespace nvfp4
