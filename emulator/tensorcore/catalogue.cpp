// SPDX-License-Identifier: Apache-2.0
// The rows of the catalogue. A row names the architectures, the instruction, the operand formats and the numbers; it
// expands to one unit per architecture and pair of formats. Adding an instruction is adding a row.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"

#include "nvfp4/emulator/nearest.hpp"
#include "nvfp4/emulator/tensorcore/products.hpp"

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
constexpr const char *kExactArch = "exact";
constexpr const char *kOurs = "this project: emulator/tensorcore/exact_sum.hpp";
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
  const auto number = [](const Unit &u) { return u.arch == kExactArch ? 1 << 20 : std::stoi(u.arch.substr(3)); };
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

/// A kind in lower case, also by its format's name in the catalogue: "F16" is fp16, "e4m3" is fp8.
std::string plain_kind(std::string_view name) {
  std::string s;
  for (const char c : name) s += c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  for (const UnitKind &kind : unit_kinds())
    if (kind.scale_block == 0 && s == format(kind.element).name) return std::string(kind.name);
  return s;
}

/// The unit that stands exactly so in the catalogue, equal formats written once or twice; null if there is none.
const Unit *unit_of_name(const std::string &name) {
  const auto stands = [](const std::string &wanted) -> const Unit * {
    // names are not put together: small products would spend most of their time here
    for (const Unit &u : catalogue())
      if (wanted.size() == u.arch.size() + 1 + u.instruction.size() && wanted.starts_with(u.arch) &&
          wanted[u.arch.size()] == ':' && wanted.ends_with(u.instruction))
        return &u;
    return nullptr;
  };
  const Unit *const unit = stands(name);
  return unit != nullptr ? unit : stands(without_doubled_formats(name));
}

/// For a name whose part before the colon is no architecture and no product.
[[noreturn]] void unknown_architecture(const std::string &name) {
  std::vector<std::string> known;
  const size_t colon = std::min(name.find(':'), name.size());
  for (const Unit &u : catalogue())
    if (known.empty() || known.back() != u.arch) known.push_back(u.arch);
  for (const Product &p : products()) known.emplace_back(p.name);
  for (std::string &first : known) first += name.substr(colon);
  throw Error("unknown unit '" + name + "'" + suggestion(name, known) + "; all: nvfp4 info --units");
}

[[noreturn]] void unknown_instruction(const std::string &name, const std::string &arch) {
  std::vector<std::string> known;
  for (const Unit &u : catalogue())
    if (u.arch == arch) known.push_back(u.name());
  throw Error("unknown unit '" + name + "'" + suggestion(name, known) + "; " + arch +
              " also takes what is multiplied: " + kinds_of(arch));
}

} // namespace

std::span<const Unit> catalogue() {
  static const std::vector<Unit> units = expand();
  return units;
}

const Unit &find_unit(std::string_view text) {
  const std::string name(text);
  if (const Unit *u = unit_of_name(name)) return *u;
  const size_t colon = name.find(':');
  const std::string first = name.substr(0, colon), second = colon == std::string::npos ? "" : name.substr(colon + 1);
  const Product *product = find_product(first);
  std::string arch;
  for (const Unit &u : catalogue())
    if (u.arch == (product != nullptr ? product->arch : std::string_view(first))) arch = u.arch;
  if (arch.empty()) unknown_architecture(name);
  if (const Unit *u = unit_of_name(arch + ":" + second)) return *u;
  for (const UnitKind &kind : unit_kinds())
    if (kind.name == (colon == std::string::npos ? "nvfp4" : plain_kind(second)))
      if (const Unit *u = unit_of_kind(arch, kind)) return *u;
  if (colon == std::string::npos)
    throw Error("unit '" + name + "' (" + arch + ") multiplies no NVFP4: add what it multiplies, as in " + name + ":bf16; there are " +
                kinds_of(arch));
  unknown_instruction(arch + ":" + second, arch);
}

} // namespace nvfp4
