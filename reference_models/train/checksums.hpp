// SPDX-License-Identifier: Apache-2.0
// That the files of a run are what the run wrote: checksums.json has the SHA-256 of each as it was at the
// last two checkpoints, and JSON files that stand by themselves carry their own. The checkpoint itself is
// checked by the digests in log.jsonl. Internal.
#pragma once
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/train/fields.hpp"

#include <map>
#include <memory>

namespace nvfp4::models {

/// The object with its own checksum behind it, as key "checksum".
[[nodiscard]] nlohmann::ordered_json sealed(nlohmann::ordered_json object);
/// Takes the checksum out again. Error if it is not that of the rest; what an older release wrote has none.
void check_seal(nlohmann::ordered_json &object, const std::string &where, const std::string &advice);

/// Bytes of a file, from its beginning.
struct FileSum {
  uint64_t bytes = 0;
  std::string sha256;
};
[[nodiscard]] FileSum sum_of(std::span<const std::byte> bytes);

class Checksums {
public:
  explicit Checksums(std::string folder);
  ~Checksums();
  /// Notes what log.jsonl, the diagnostics and sensitivity.json are now, as of `step`, beside what was noted
  /// of the step before it. Before the checkpoint of that step is written: a run that is killed in between
  /// continues from the older one. Waits until logs and diagnostics are on the disk.
  void save(int64_t step);
  /// The same without sensitivity.json, which is about to be written.
  void save_without_sensitivity(int64_t step);

  /// Throws Error unless what is to be kept of the files, by name, is what was noted at `step`; before the
  /// first checkpoint, and in folders of older releases, nothing is noted. Forgets the other steps. Call
  /// save(step) when the files are cut.
  void verify(int64_t step, const std::map<std::string, FileSum> &kept);

private:
  struct Growing;
  using Files = std::map<std::string, FileSum>;
  void write(int64_t step, bool sensitivity);

  std::string folder_;
  std::map<std::string, std::unique_ptr<Growing>> growing_; ///< files that are only appended to
  std::map<int64_t, Files> noted_;
};

} // namespace nvfp4::models
