// SPDX-License-Identifier: Apache-2.0
// Runs the emulator on generated inputs and writes what it gives, with its provenance.
#include "nvfp4/golden/generate.hpp"

#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/golden/generate_quantize.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/manifest.hpp"
#include "nvfp4/golden/mma_kind.hpp"

#include <algorithm>
#include <filesystem>

namespace nvfp4::golden {
namespace fs = std::filesystem;
namespace {

std::string hex(const std::vector<uint8_t> &packed, int bits, int64_t n) {
  std::string s;
  for (int64_t i = 0; i < n; ++i) s += hex_word(CodeView{packed.data(), bits}[i], bits);
  return s;
}

TextFile mma_vectors(const Unit &unit, Accumulation accumulation, const GenerateOptions &options) {
  const UnitRule &r = unit.rule;
  const std::string name = unit.name();
  const cases::MmaKind kind = kind_of(unit, name);
  const bool scaled = r.scale_block != 0;
  TextFile f;
  f.header = {{"kind", "mma"}, {"unit", name}, {"provenance", "model"}};
  if (r.family == Family::gst_fdpa) f.header.emplace_back("accumulation", to_string(accumulation));
  f.header.emplace_back("source", unit.source + " (" + std::string(to_string(unit.evidence)) + ")");
  f.header.emplace_back("seed", std::to_string(options.seed));
  f.header.emplace_back("columns", scaled ? "class a b scale_a scale_b c d" : "class a b c d");
  for (int c = 0; c < cases::kInputClasses; ++c) {
    if (!cases::applies(kind, cases::InputClass(c))) continue;
    for (int s = 0; s < (scaled ? cases::kScaleClasses : 1); ++s)
      for (int i = 0; i < options.cases_per_class; ++i) {
        const cases::Tile t =
            cases::generate(kind, cases::InputClass(c), cases::ScaleClass(s), options.seed, i);
        const DotOperands op{
            {t.a.data(), kind.a_bits}, {t.b.data(), kind.b_bits}, t.scale_a.data(), t.scale_b.data()};
        const uint64_t start = CodeView{t.c.data(), kind.acc_bits}[0];
        const uint64_t d = dot(r, op, r.k, start, accumulation);
        std::string label = cases::name_of(cases::InputClass(c));
        if (scaled) label += std::string("/") + cases::name_of(cases::ScaleClass(s));
        std::vector<std::string> row = {label, hex(t.a, kind.a_bits, r.k), hex(t.b, kind.b_bits, r.k)};
        if (scaled) {
          const int bits = format(r.scale).storage_bits;
          row.push_back(hex(t.scale_a, bits, r.k / r.scale_block));
          row.push_back(hex(t.scale_b, bits, r.k / r.scale_block));
        }
        row.push_back(hex_word(start, kind.acc_bits));
        row.push_back(hex_word(d, kind.acc_bits));
        f.rows.push_back(std::move(row));
      }
  }
  return f;
}

void write(const fs::path &path, const TextFile &file) {
  fs::create_directories(path.parent_path());
  const std::string text = format_text(file);
  io::write_file_atomically(path.string(), std::as_bytes(std::span(text)));
}

} // namespace

size_t generate(const GenerateOptions &options, const std::function<void(const std::string &)> &log,
                const std::function<void(double)> &progress) {
  const fs::path vectors = fs::path(options.folder) / "vectors";
  size_t files = 0;
  double done = 0;
  for (const Unit &unit : catalogue()) {
    if (progress) progress(done++ / double(catalogue().size()));
    if (unit.name().find(options.match) == std::string::npos) continue;
    std::string name = unit.name();
    std::replace(name.begin(), name.end(), ':', '.');
    const bool fp4 = unit.rule.family == Family::gst_fdpa;
    for (const Accumulation a : enumerators<Accumulation>()) {
      if (!fp4 && a != Accumulation::mmasim) continue;
      const std::string suffix = fp4 ? "." + std::string(to_string(a)) : "";
      write(vectors / "model" / unit.arch / (name + suffix + ".txt"), mma_vectors(unit, a, options));
      ++files;
    }
  }
  log(std::to_string(files) + " files of MMA cases");
  if (options.match.empty()) {
    const size_t cases = generate_quantize((vectors / "quantize").string());
    files += cases;
    log(std::to_string(cases) + " files of quantizer cases");
  }
  const Manifest manifest = scan_folder(options.folder);
  write_manifest(manifest);
  log("manifest of " + std::to_string(manifest.entries.size()) + " files");
  return files;
}

} // namespace nvfp4::golden
