// SPDX-License-Identifier: Apache-2.0
// The files of a run: run.json says what it is, log.jsonl has a line a step, checkpoint.safetensors its
// state. Written so that a run killed at any moment leaves files that a resumed one continues.
#pragma once
#include "nvfp4/reference_models/family/config.hpp"
#include "nvfp4/reference_models/train/trainer.hpp"

#include <string>

namespace nvfp4::models {

/// What a run may leave in its folder; result.json is an experiment's.
inline constexpr const char *kRunFiles[] = {
    "run.json",         "log.jsonl",         "checkpoint.safetensors",
    "checksums.json",   "diagnostics.jsonl", "diagnostics.safetensors",
    "sensitivity.json", "result.json"};

/// What run.json holds.
struct RunDescription {
  TrainOptions options;
  ModelConfig model;
  std::string recipe;      ///< JSON
  std::string data_digest; ///< SHA-256 of the corpus or task
  std::string data;        ///< one line for people
};

/// By which two runs are compared: of parameters, moments and step, as golden training slices have it; and of
/// HCP's state and the token counter as well (state_digest()).
struct Digests {
  std::string parameters, state;
  bool operator==(const Digests &) const = default;
};

class RunFolder {
public:
  /// Makes the folder and run.json, or with `resume` checks that run.json describes the same run. Throws
  /// Error where a run is already there, where it is another run (naming the first difference), where another
  /// process writes it, and for what cannot be written. Removes what a killed process left unfinished.
  RunFolder(const std::string &path, const RunDescription &run, bool resume);
  ~RunFolder();
  RunFolder(const RunFolder &) = delete;
  RunFolder &operator=(const RunFolder &) = delete;

  [[nodiscard]] std::string checkpoint() const { return path_ + "/checkpoint.safetensors"; }
  [[nodiscard]] const std::string &path() const { return path_; }
  /// Removes log lines after `step`, a torn last line included, and returns the losses of those before.
  /// Throws Error, and leaves the log as it is, where lines are missing or damaged, or the last one kept has
  /// other digests than `state`. A line without state_digest, as older logs have it, counts as equal in it.
  std::vector<float> truncate_log(int64_t step, const Digests &state);
  /// Waits until the log is on the disk, so that a checkpoint never knows more steps than the log.
  void sync_log() const;
  /// Appends one line with one write.
  void log(const StepReport &report, const Digests &digests);

private:
  std::string path_;
  int log_ = -1;
};

} // namespace nvfp4::models
