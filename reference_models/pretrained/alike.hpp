// SPDX-License-Identifier: Apache-2.0
// Whether a trainer's weights and a server's checkpoint become the same bytes: each master weight quantized
// as a recipe's forward product has it, against what the checkpoint stores, and where they differ, why.
#pragma once
#include "nvfp4/golden/checkpoint/weight.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include <functional>

namespace nvfp4::models::pretrained {

struct AlikeOptions {
  std::string tensor; ///< a glob of names; empty: all
  int threads = 0;
  std::function<void(double)> progress = {};
};

struct AlikeLine {
  std::string name = {}, trained = {},
              served = {}; ///< "te, 16x16 tiles, own amax", "modelopt, amax of the fused modules"
  bool alike = false;
  int64_t codes = 0, scales = 0; ///< that differ, where both are of one format
  std::string why = {};          ///< where they are not alike
};

struct Alike {
  std::string family;
  std::vector<AlikeLine> lines;
  int64_t differing = 0;
};

/// Compares the linear layers that `served` has; names are those of transformers. Weights of training are
/// rounded to the recipe's source type first. Error where a layer is missing among the masters, or none is
/// there.
[[nodiscard]] Alike compare_alike(const checkpoint::Checkpoint &served, const checkpoint::Checkpoint &masters,
                                  const Recipe &recipe, const AlikeOptions &options);

[[nodiscard]] std::string to_text(const Alike &alike);
[[nodiscard]] std::string to_json(const Alike &alike);

} // namespace nvfp4::models::pretrained
