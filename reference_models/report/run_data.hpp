// SPDX-License-Identifier: Apache-2.0
// A run folder as a report reads it: run.json, log.jsonl, and whatever diagnostics there are.
#pragma once
#include "nvfp4/reference_models/diagnostics/finite.hpp"
#include "nvfp4/reference_models/diagnostics/recorder.hpp"
#include "nvfp4/reference_models/family/family.hpp"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace nvfp4::models {

struct LogLine {
  int64_t step = 0, tokens = 0;
  double loss = 0; ///< NaN where the file has null
  double learning_rate = 0, gradient_norm = 0, tokens_per_second = 0;
  std::optional<double> validation_loss;
};

struct TensorRecord {
  int64_t step = 0;
  int layer = 0;
  std::string op;
  TensorKind kind = TensorKind::activation;
  int64_t channels = 0;
  double kurtosis = 0, block_max = 0, block_p99 = 0; ///< NaN where there is none
  double top1 = 0;                                   ///< largest |x|
  std::vector<int64_t> top;                          ///< the largest channels, largest first
  int64_t hot = 1;                                   ///< how many of them are the hot set
  bool quantized = false;
  double ftz = 0, snr_db = 0;
  /// Parts of the blocks whose scale is 0 over a nonzero element, or the format's largest, and of the
  /// elements beyond their block; NaN in records of older releases.
  double scale_underflows = 0, largest_scales = 0, saturated = 0;
};

struct OutputRecord {
  int64_t step = 0;
  int layer = 0;
  std::string op;
  double top1 = 0;
};
struct AttentionRecord {
  int64_t step = 0;
  int layer = 0;
  double entropy = 0, logit_max = 0, logit_kurtosis = 0;
  double sink = 0, sink_heads = 0; ///< NaN in records of older releases
};
/// The residual stream after a block, -1: the embedding.
struct ResidualRecord {
  int64_t step = 0;
  int layer = 0;
  double largest = 0, median = 0, massive = 0;
  double growth = 0; ///< over the block before; NaN for the embedding
};
struct GateRecord {
  int64_t step = 0;
  int layer = 0;
  double min = 0, max = 0, top1 = 0;
};
struct SwigluRecord {
  int64_t step = 0;
  int layer = 0;
  double mean_abs = 0, p99_abs = 0, weighted = 0;
};

struct ChannelHistory {
  int layer = 0;
  std::string op;
  int64_t channels = 0;
  std::vector<float> max; // (recorded steps, channels)
};

/// A run that stopped because something was not finite.
struct Divergence {
  int64_t step = 0;               ///< of it
  int64_t last_finite_step = 0;   ///< 0: there was none
  double last_finite_loss = 0;    ///< NaN then
  std::optional<NotFinite> first; ///< the first tensor that was not finite, where the log says so
};

/// Contents by name, "clip" -> "1.0": what two runs are compared by.
using RunContent = std::map<std::string, std::string>;

struct RunData {
  std::string folder;        ///< as it was given
  std::string family, model; ///< "gla", "gla-tiny"
  std::string recipe;
  uint64_t seed = 0;
  int64_t planned_steps = 0, parameters = 0;
  std::string data, device;  ///< data: file name without folders, or the task
  std::string settings;      ///< batch, sequence, learning rate, schedule in one line
  RunContent setting;        ///< what decides bits but recipe and seed: options, model, data
  RunContent recipe_content; ///< of the recipe but its name
  std::vector<LogLine> log;
  std::optional<Divergence> diverged;
  std::vector<NotFinite> not_finite; ///< tensors of the diagnostics
  std::vector<TensorRecord> tensors;
  std::vector<OutputRecord> outputs;
  std::vector<AttentionRecord> attention;
  std::vector<ResidualRecord> residual;
  std::vector<GateRecord> gates;
  std::vector<SwigluRecord> swiglu;
  std::vector<int64_t> channel_steps;
  std::vector<ChannelHistory> channels;
  std::vector<SensitivityRecord> sensitivity;

  [[nodiscard]] int64_t last_step() const { return log.empty() ? 0 : log.back().step; }
  /// Whether it is a family that this library knows, with this mixer.
  [[nodiscard]] bool has(MixerKind mixer) const {
    const ModelFamily *const known = family_or_null(family);
    return known != nullptr && known->mixer == mixer;
  }
  /// What the paper says of such models; all empty for an unknown family.
  [[nodiscard]] PaperFigures paper() const {
    const ModelFamily *const known = family_or_null(family);
    return known != nullptr ? known->paper : PaperFigures{};
  }
};

/// Throws Error for a folder without run.json or with files that cannot be understood: one line with the
/// file, the line in it, what is wrong and what to do. Missing diagnostics are fine, half a line at the end
/// of a file too: the run may be going on.
[[nodiscard]] RunData read_run(const std::string &folder);

/// The run folders that `paths` name: each a run folder or a folder of them (an experiment), which come in
/// the order of their names. Throws Error where there is none. A folder named twice counts once.
[[nodiscard]] std::vector<std::string> find_runs(const std::vector<std::string> &paths);

} // namespace nvfp4::models
