// SPDX-License-Identifier: Apache-2.0
// Options that a Hugging Face folder takes beside those of a checkpoint of ours.
#pragma once
#include "nvfp4/reference_models/pretrained/run.hpp"
#include "tools/nvfp4/command.hpp"

namespace nvfp4::tool {

struct PretrainedFlags {
  std::string recipe, preset, activations, kv;
  bool rotate = false, patch = false;
};

inline void add_folder_options(Command &verb, PretrainedFlags &f) {
  verb.add_option("--preset", f.preset,
                  "Of a folder: quantize every linear layer of the blocks by this convention (nvfp4 info), "
                  "weights and inputs, instead of a recipe");
  verb.add_flag("--rotate", f.rotate, "With --preset: Hadamard rotation first");
  verb.add_flag("--patch", f.patch, "With --preset: the Hot-Channel Patch");
  verb.add_option("--activations", f.activations,
                  "Of a folder with quantized weights: convention of their inputs, or none; default: as the "
                  "folder says");
  verb.add_option("--kv", f.kv, "Of a folder: keys and values in f32 (default), bf16, e4m3 or nvfp4");
}

/// Error where a checkpoint of ours got what only a folder takes.
inline void refuse_folder_flags(const PretrainedFlags &f) {
  for (const auto &[name, given] :
       {std::pair{"--preset", !f.preset.empty()}, std::pair{"--rotate", f.rotate},
        std::pair{"--patch", f.patch}, std::pair{"--activations", !f.activations.empty()},
        std::pair{"--kv", !f.kv.empty()}})
    if (given) throw Error(std::string(name) + " is for Hugging Face folders; --checkpoint is a file");
}

/// Error where a folder got what only a checkpoint of ours takes.
[[nodiscard]] inline models::pretrained::RunOptions of_folder(const PretrainedFlags &f,
                                                              const std::string &path,
                                                              const std::string &model,
                                                              const std::string &device, int threads) {
  if (!model.empty()) throw Error("--model: a folder says in config.json what it is");
  if (device != "cpu") throw Error("--device " + device + ": pretrained models run on the CPU; expected cpu");
  return {.folder = path,
          .recipe = f.recipe,
          .preset = f.preset,
          .rotate = f.rotate,
          .patch = f.patch,
          .activations = f.activations,
          .kv = f.kv.empty() ? "f32" : f.kv,
          .threads = threads};
}

} // namespace nvfp4::tool
