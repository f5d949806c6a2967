// SPDX-License-Identifier: Apache-2.0
// Writes a checkpoint in another container: codes and block scales are carried as they are, or made from
// numbers by a convention; what a container cannot hold is refused with the reason.
#pragma once
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/golden/checkpoint/inspect.hpp"

namespace nvfp4::checkpoint {

enum class Target : uint8_t {
  modelopt,           ///< folder: ModelOpt NVFP4, model.safetensors, config.json, hf_quant_config.json
  compressed_tensors, ///< folder: nvfp4-pack-quantized or mxfp4-pack-quantized
  gguf,               ///< one file: NVFP4 or MXFP4 blocks, tensors under the names of the source
  hf_bf16,            ///< folder: every weight as BF16, rounded to nearest even once
};
[[nodiscard]] constexpr auto names_of(Target) {
  return enum_names("target", "modelopt", "compressed-tensors", "gguf", "hf-bf16");
}
static_assert(names_of(Target{}).end_with(Target::hf_bf16));

/// How a matrix of numbers is quantized.
struct WeightQuantizer {
  std::string convention;
  int block_rows = 1;     ///< 16: tiles
  bool fused_amax = true; ///< the global amax is the largest of the modules that are fused when served
  /// Numbers are rounded to it first: bf16. Nothing: they are taken as they are stored.
  std::optional<FormatId> source = {};
};
/// By a weight's name; nothing: it stays numbers. Its Errors leave the export.
using WeightQuantizers = std::function<std::optional<WeightQuantizer>(const std::string &name)>;

struct ExportOptions {
  Target target = Target::modelopt;
  /// Convention that quantizes numbers: the matrices named *proj.weight and experts' w1, w2, w3, or those
  /// that `tensors` names. Empty: nothing is quantized.
  std::string convention;
  std::string tensors; ///< a glob
  /// Instead of `convention`: a quantizer of each matrix. It may choose among those that `tensors` names.
  WeightQuantizers quantizers = {};
  /// Refuses where a global scale has to be inverted and values then differ in FP32.
  bool exact = false;
  int threads = 0;
  Progress progress = {};
};

struct ExportReport {
  int64_t carried = 0; ///< quantized weights whose codes and block scales were not touched
  int64_t quantized = 0;
  int64_t dequantized = 0;
  int64_t copied = 0; ///< tensors that are the source's byte for byte
  int64_t inverted =
      0; ///< global scales that became 1 / x; the word is kept in the metadata for the way back
  /// Weights some of whose reconstructed FP32 values change, by a rounding, because the global scale is inverted
  /// or applied at another place: of carried ones values that stand in them, of quantized ones any that codes have.
  int64_t values_apart = 0;
  int64_t rounded = 0; ///< numbers that BF16 does not hold, rounded
  std::vector<std::string> notes;
};

/// Writes `destination`, which must not exist (a folder) or is replaced at once (a .gguf file). On an Error
/// nothing is left there.
ExportReport export_checkpoint(const Checkpoint &source, const std::string &destination,
                               const ExportOptions &options);

/// One line of JSON about what was written to `output`.
[[nodiscard]] std::string to_json(const ExportReport &report, const std::string &output);

} // namespace nvfp4::checkpoint
