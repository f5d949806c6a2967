// SPDX-License-Identifier: Apache-2.0
// nvfp4-vendor-vectors FOLDER: writes golden files whose outputs come from the host functions of the CUDA headers.
// Nothing of the emulator decides an output here; it only proposes inputs around every code of the target format.
#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/text.hpp"
#include "nvfp4/golden/vendor/cuda_headers.hpp"

#include <cuda_runtime_api.h>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>

namespace {

using namespace nvfp4;
using golden::TextFile;

std::string toolkit() {
  return "CUDA " + std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10) +
         " header host functions";
}

/// FP32 words at, between and beside the values of the target's codes, both signs, and the special ones.
std::vector<uint32_t> boundary_inputs(const Conversion &c) {
  const Format f = format(c.to);
  const uint64_t step = f.code_bits > 8 ? 61 : 1;
  std::set<uint32_t> words = {0,          1,          0x007FFFFF, 0x00800000, 0x00400000, 0x00400001, 0x3F800000,
                              0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x7FBFFFFF};
  for (uint64_t code = 0; code <= f.top_magnitude(); code += step) {
    const Decoded d = decode(f, code << f.padding_bits);
    if (d.cls == Class::nan || d.cls == Class::infinity) continue;
    const double v = value(c.to, code << f.padding_bits), next = value(c.to, (code + 1) << f.padding_bits);
    for (const double x : {v, next == next ? (v + next) / 2 : 1.5 * v}) {
      const uint32_t w = bit_cast<uint32_t>(float(x));
      for (int ulp = -2; ulp <= 2; ++ulp)
        if (w >= 2) words.insert(w + uint32_t(ulp));
    }
  }
  std::vector<uint32_t> both;
  for (const uint32_t w : words)
    for (const uint32_t sign : {0u, 0x80000000u}) both.push_back(w | sign);
  return both;
}

void write(const std::string &folder, const std::string &name, const std::string &extension, const TextFile &file) {
  const std::string text = format_text(file);
  io::write_file_atomically(folder + "/" + name + extension, std::as_bytes(std::span(text)));
}

TextFile start(std::string_view kind, std::string_view conversion, std::string_view columns) {
  TextFile f;
  f.header = {{"kind", std::string(kind)},
              {"conversion", std::string(conversion)},
              {"provenance", "vendor-software"},
              {"source", toolkit()},
              {"columns", std::string(columns)}};
  return f;
}

int digits_of(FormatId id) { return std::max<int>(8, format(id).storage_bits); }

} // namespace

int main(int argc, char **argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: nvfp4-vendor-vectors FOLDER\n"), 2;
  const std::string folder = argv[1];
  try {
    std::filesystem::create_directories(folder);
    for (const golden::VendorConversion &v : golden::kFromF32) {
      const Conversion &c = find_conversion(v.name);
      TextFile cases = start("convert", v.name, "in out");
      for (const uint32_t w : boundary_inputs(c))
        cases.rows.push_back({golden::hex_word(w, 32), golden::hex_word(v.convert(w), digits_of(c.to))});
      write(folder, std::string(v.name), ".txt", cases);

      TextFile digests = start("convert-digest", v.name, "chunk digest");
      digests.rows.resize(256);
#pragma omp parallel for schedule(dynamic, 1)
      for (uint32_t chunk = 0; chunk < 256; ++chunk) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < (1u << 24); ++i) {
          const uint32_t in = chunk << 24 | i;
          sum += splitmix64(in | v.convert(in) << 32);
        }
        digests.rows[chunk] = {golden::hex_word(chunk, 8), golden::hex_word(sum, 64)};
      }
      write(folder, std::string(v.name), ".digest.txt", digests);
      std::printf("%s\n", std::string(v.name).c_str());
      std::fflush(stdout);
    }
    for (const golden::SmallVendorConversion &v : golden::kFromNarrow) {
      const Conversion &c = find_conversion(v.conversion.name);
      TextFile cases = start("convert", v.conversion.name, "in out");
      const uint32_t stride = v.inputs > 256 ? 23 : 1; // 23 is prime to 65536: all exponents, all low bits
      for (uint32_t w = 0; w < v.inputs; w += stride)
        cases.rows.push_back({golden::hex_word(w, digits_of(c.from)), golden::hex_word(v.conversion.convert(w), digits_of(c.to))});
      write(folder, std::string(v.conversion.name), ".txt", cases);
    }
  } catch (const Error &error) {
    std::fprintf(stderr, "nvfp4-vendor-vectors: %s\n", error.what());
    return 2;
  }
}
