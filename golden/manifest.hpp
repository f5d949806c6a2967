// SPDX-License-Identifier: Apache-2.0
// The manifest of the golden set: every file with its checksum, what it holds and where its outputs came from.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nvfp4::golden {

/// Where the outputs of a golden file came from.
enum class Provenance : uint8_t {
  hardware,        ///< a real GPU: the entry names it with driver, toolkit and instruction
  vendor_software, ///< code by the vendor, such as the host functions of the CUDA headers
  model,           ///< a published or our own model, named with its version
  exact,           ///< multiprecision arithmetic or a mathematical identity
};
[[nodiscard]] std::string_view to_string(Provenance p);
[[nodiscard]] Provenance parse_provenance(std::string_view text);

struct Entry {
  std::string file;    ///< relative to the golden folder
  std::string kind;    ///< mma, convert, convert-digest or quantize
  std::string subject; ///< unit, conversion or convention
  Provenance provenance = Provenance::model;
  std::string source; ///< device, driver, toolkit, date; or software and version
  uint64_t cases = 0;
  std::string sha256;
};

struct Manifest {
  std::string folder; ///< where manifest.json lies
  std::vector<Entry> entries;
};

/// The folder of the golden set: the named one, else golden/ above the working directory or above the program
/// itself, else the installed share/nvfp4/golden. Throws Error when there is none.
[[nodiscard]] std::string find_golden_folder(const std::string &named = {});

[[nodiscard]] Manifest read_manifest(const std::string &folder);
/// Builds the manifest of all golden files under folder/vectors from their headers and bytes.
[[nodiscard]] Manifest scan_folder(const std::string &folder);
void write_manifest(const Manifest &manifest);

/// The sha256 of a golden file as it lies on disk.
[[nodiscard]] std::string file_sha256(const std::string &path);

} // namespace nvfp4::golden
