// SPDX-License-Identifier: Apache-2.0
// Writes what a run measures of itself: DIR/diagnostics.jsonl, one JSON object a record, and
// DIR/diagnostics.safetensors, the channel magnitudes of the operators' inputs over the steps. Computes
// through metrics.hpp.
#pragma once
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/golden/io/tensor.hpp"
#include "nvfp4/reference_models/diagnostics/metrics.hpp"

#include <map>
#include <string>
#include <string_view>

namespace nvfp4::models {

enum class TensorKind : uint8_t {
  activation, ///< the operator's input, (tokens, input features)
  weight,     ///< (output features, input features)
  gradient,   ///< of the operator's output, (tokens, output features)
};
[[nodiscard]] constexpr auto names_of(TensorKind) {
  return enum_names("kind of tensor", "activation", "weight", "gradient");
}
static_assert(names_of(TensorKind{}).end_with(TensorKind::gradient));

/// How flushing and noise of a tensor are measured: rounded to nearest, blocks along its rows.
struct OperandInfo {
  std::string_view convention = "te";
  int block_rows = 1;    ///< 16 for tiles
  bool quantized = true; ///< what the recipe does; a tensor that it keeps in BF16 is measured as if quantized
};

/// Fed by a trainer: begin_step, the measures of that step in any order, end_step. Operators are named
/// `attn.q_proj`, `attn.gk_proj.0`, `mlp.down_proj`, `lm_head`; a layer of -1 is a part outside the blocks.
/// JSON has null where a number is not finite, "not_finite" (NaN, Inf, first index) in the line of a tensor
/// that is not, whose largest channels are those of its other elements, and "exact": true beside a
/// quantization without any error.
class Recorder {
public:
  /// Continues the files in `dir` if there are any; call truncate_after first when a run is resumed or
  /// started anew. Throws Error for files that are not such a record.
  explicit Recorder(std::string dir);

  void begin_step(int64_t step);
  /// Tails, channel magnitudes, hot set (1 % of the channels) and the 16 largest channels, FTZ, SNR.
  void tensor(int layer, std::string_view op, TensorKind kind, MatrixView<const float> x,
              const OperandInfo &info);
  /// Largest finite or infinite |x| of an operator's output, (tokens, output features): what decides which
  /// operator has the largest.
  void output(int layer, std::string_view op, MatrixView<const float> y);
  /// nats, logits q.k / sqrt(d) over the causally valid pairs; see SoftmaxStatistics. sink: mean probability
  /// of the first token over heads and later queries; sink_heads: the part of the heads where that is above
  /// 0.3 (Gu et al. 2024, "When Attention Sink Emerges in Language Models"). NaN of one token.
  void attention(int layer, double entropy, double logit_max, double logit_kurtosis, double sink,
                 double sink_heads);
  /// The residual stream after a block, (tokens, width), -1: the embedding. growth: its largest over that of
  /// the layer before, recorded in this step.
  void residual(int layer, MatrixView<const float> x);
  /// Pre-activations of a gate (gk_proj's output): smallest, largest, largest magnitude.
  void gate(int layer, double min, double max, double top1);
  void swiglu(int layer, double mean_abs, double p99_abs, double weighted);
  /// Appends the step's lines to the JSONL with one write. Do this before the checkpoint of that step.
  void end_step();

  /// Writes diagnostics.safetensors: `steps` (I64, recorded steps) and, for each operator,
  /// `channel_max/LAYER.OP` and `channel_mean/LAYER.OP` (F32, [recorded steps, channels], NaN where a step
  /// lacks the operator). Atomic, and as large as the whole record: call it before each checkpoint and at the
  /// end, not at each step.
  void save() const;

  /// What both files have up to `step`: their bytes, nothing where a file is not there or has nothing.
  struct Kept {
    std::string lines;
    std::vector<std::byte> tensors;
  };
  /// Throws Error if a whole line is not a record. Writes nothing.
  [[nodiscard]] static Kept read_until(const std::string &dir, int64_t step);
  /// Forgets everything else, half a line at the end included: nothing comes twice when a run continues from
  /// its checkpoint.
  static void keep(const std::string &dir, const Kept &kept);
  /// Both: 0 for a new run.
  static void truncate_after(const std::string &dir, int64_t step) { keep(dir, read_until(dir, step)); }

private:
  struct Channels {
    int64_t count = 0;
    std::vector<float> max, mean; // (recorded steps, count)
  };
  void pad(Channels &channels, size_t rows) const;
  void load();

  std::string dir_;
  int64_t step_ = 0;
  double residual_ = 0; ///< largest of the layer before, in this step
  bool open_ = false;
  std::string lines_;
  std::vector<int64_t> steps_;
  std::map<std::string, Channels> channels_; ///< by LAYER.OP
};

/// diagnostics.safetensors of a run, whose `steps` are checked. Throws Error, which says what to do with the
/// file.
[[nodiscard]] io::TensorFile read_channel_file(const std::string &path);

/// One operator in NVFP4, everything else in BF16, evaluated on the same data.
struct SensitivityRecord {
  std::string op;         ///< in all layers
  double score = 0;       ///< sensitivity_score(); of an operator without parameters the gap in percent
  double loss = 0;        ///< nats per token
  double baseline = 0;    ///< the same in BF16
  int64_t parameters = 0; ///< of the operator, all layers; 0: it is inside a mixer
};

/// DIR/sensitivity.json, atomically; a list in the given order.
void write_sensitivity(const std::string &dir, std::span<const SensitivityRecord> records);

} // namespace nvfp4::models
