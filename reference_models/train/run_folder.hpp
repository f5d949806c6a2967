// SPDX-License-Identifier: Apache-2.0
// The files of a run: run.json says what it is, log.jsonl has a line a step, checkpoint.safetensors its
// state, checksums.json what the others were when it was written. Written so that a run killed at any moment
// leaves files that a resumed one continues, and that one whose files were damaged is not continued.
#pragma once
#include "nvfp4/reference_models/diagnostics/recorder.hpp"
#include "nvfp4/reference_models/family/config.hpp"
#include "nvfp4/reference_models/train/trainer.hpp"

#include <functional>
#include <memory>
#include <string>

namespace nvfp4::models {

/// What a run may leave in its folder; result.json is an experiment's.
inline constexpr const char *kRunFiles[] = {
    "run.json",         "log.jsonl",         "checkpoint.safetensors",
    "checksums.json",   "diagnostics.jsonl", "diagnostics.safetensors",
    "sensitivity.json", "result.json"};

/// What an error in one of them ends with.
inline constexpr const char *kRestoreRun = "; restore the file or start the run again in another folder";

/// Throws Error if an output would replace a file of the run in a folder.
void check_not_of_run(const std::string &output, const std::string &folder);

/// What run.json holds.
struct RunDescription {
  TrainOptions options;
  ModelConfig model;
  std::string recipe;      ///< JSON
  std::string data_digest; ///< SHA-256 of the corpus or task
  std::string data;        ///< one line for people
};

/// The same of a run of any kind.
struct RunRecord {
  std::string json; ///< run.json but for its checksum: "options" with steps, schedule_steps, data, validation_data, and "data"
  std::string data; ///< a path that the run reads
  /// Where a stored run.json differs from this run in what decides its bits; empty: nowhere. Steps and the place of the
  /// data may.
  std::function<std::string(const std::string &stored)> difference;
};

/// run.json of a folder, checked against its own checksum, without it. Throws Error where there is none or it is damaged.
[[nodiscard]] std::string read_run_json(const std::string &folder);

/// The options in run.json of a folder. Throws Error where there is none or it is damaged.
[[nodiscard]] TrainOptions read_options(const std::string &folder);

/// Where a run in a folder differs from this one in what decides its bits: contents of model, recipe and
/// data, options; as "seed: 3 here, 4 there". Empty if nowhere: a run may have had fewer steps under the same
/// schedule, and its data may lie elsewhere now. Throws Error for a damaged run.json.
[[nodiscard]] std::string difference_from(const RunDescription &run, const std::string &folder);

/// By which two runs are compared: of parameters, moments and step, as golden training slices have it; and of
/// HCP's state and the token counter as well (state_digest()).
struct Digests {
  std::string parameters, state;
  bool operator==(const Digests &) const = default;
};

class Checksums; ///< checksums.hpp

class RunFolder {
public:
  /// Makes the folder and takes its lock; then writes run.json, or with `resume` checks that it describes the
  /// same run. Throws Error where a run is already there, where it is another run (naming the first
  /// difference), where another process writes it, and for what cannot be written; all of this before
  /// anything in the folder is changed. Removes what a killed process left unfinished.
  RunFolder(const std::string &path, const RunDescription &run, bool resume);
  RunFolder(const std::string &path, RunRecord run, bool resume);
  ~RunFolder();
  RunFolder(const RunFolder &) = delete;
  RunFolder &operator=(const RunFolder &) = delete;

  [[nodiscard]] std::string checkpoint() const { return path_ + "/checkpoint.safetensors"; }
  [[nodiscard]] const std::string &path() const { return path_; }
  /// Goes back to `step`: removes the lines after it, torn ones included, from log and diagnostics, and
  /// returns the losses of those before. Throws Error, and leaves every file as it is, where lines are
  /// missing or damaged, where the last log line kept has other digests than `state`, or where a file is not
  /// what the run wrote (checksums.hpp). A line without state_digest, as older logs have it, counts as equal
  /// in it.
  std::vector<float> go_back(int64_t step, const Digests &state);
  /// Notes what log and diagnostics are when they are on the disk; before the checkpoint of `step` is
  /// written.
  void note_files(int64_t step);
  /// DIR/sensitivity.json, so that it never stands beside a checksum of an older one.
  void sensitivity(std::span<const SensitivityRecord> records, int64_t step);
  /// Appends one line with one write.
  void log(const StepReport &report, const Digests &digests);

private:
  std::string path_;
  int log_ = -1;
  std::unique_ptr<Checksums> checksums_;
  bool again_ = false; ///< run.json has other steps or another place of the data
  RunRecord run_;
};

/// Keeps others from a folder while it lives: of an experiment, whose runs have locks of their own.
class FolderLock {
public:
  /// Throws Error where another process has it; `shared` ones bear each other.
  explicit FolderLock(const std::string &path, bool shared = false);
  ~FolderLock();
  FolderLock(const FolderLock &) = delete;
  FolderLock &operator=(const FolderLock &) = delete;

private:
  int fd_ = -1;
};

} // namespace nvfp4::models
