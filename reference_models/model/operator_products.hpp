// SPDX-License-Identifier: Apache-2.0
// What mixers that run product by product share: their operators under a block's recipe, and how these are
// shown.
#pragma once
#include "nvfp4/reference_models/linear/operator_products.hpp"
#include "nvfp4/reference_models/model/mixer.hpp"

namespace nvfp4::models {

/// The products of an operator of the block's mixer.
[[nodiscard]] OperatorProducts make_operator_products(const BlockContext<float> &context,
                                                      const std::string &role);

/// Calls hooks.observer, which must not be empty, with each of these matrices of a sequence.
void observe_operator(const BlockContext<float> &context, const OperatorProducts &op, const char *role,
                      int64_t sequence, std::span<const OperatorMatrices> of, const MixerHooks<float> &hooks);

/// Calls hooks.matrix, where it is not empty, with one matrix (rows, cols) a head, `stride` elements apart.
void show_operator(const BlockContext<float> &context, const char *role, StepTensor what, OperatorPart part,
                   const float *data, int64_t heads, int64_t rows, int64_t cols, int64_t stride,
                   const MixerHooks<float> &hooks);

/// Whether the recipe's mixer rules speak of an operator of this block.
[[nodiscard]] bool has_mixer_rules(const Recipe &recipe, const ModelFamily &family, int64_t layer,
                                   int64_t layers);
/// Of any block.
[[nodiscard]] bool has_mixer_rules(const Recipe &recipe, const ModelConfig &config);

} // namespace nvfp4::models
