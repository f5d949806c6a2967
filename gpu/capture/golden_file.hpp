// SPDX-License-Identifier: Apache-2.0
// Writes golden text files: `# key: value` header lines, then one case a line in lower-case hex.
#pragma once
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace nvfp4::gpu {

/// What stands in every file's header about where its outputs came from.
struct Provenance {
  std::string device, driver, toolkit, date;
  std::string note; ///< one extra line, or empty
};

/// The current device, the driver (CUDA driver API version and, where readable, the kernel module's), the
/// toolkit this was compiled with, today's date.
[[nodiscard]] Provenance provenance_of_device();

/// "13.0.88": the compiler that built the device code.
[[nodiscard]] std::string nvcc_version();

/// `value` as exactly `digits` lower-case hex digits.
[[nodiscard]] std::string hex(uint64_t value, int digits);

class GoldenFile {
public:
  /// Opens `directory`/`name`.txt (a ':' in the name becomes '.') and writes the header. `fields` are the
  /// lines that identify the contents, e.g. {"unit", "sm_90:..."}. Throws std::runtime_error when it cannot
  /// be written.
  GoldenFile(const std::string &directory, const std::string &name, const std::string &kind,
             const std::vector<std::pair<std::string, std::string>> &fields, const Provenance &provenance,
             const std::string &columns);
  void line(const std::string &text);
  /// Flushes and checks; returns the number of cases written.
  int64_t close();

private:
  std::string path_;
  std::ofstream out_;
  int64_t lines_ = 0;
};

} // namespace nvfp4::gpu
