// SPDX-License-Identifier: Apache-2.0
// The fields of TrainOptions by name: one table for reading them from JSON, writing them, and telling which
// of them decide the bits of a run. Internal.
#pragma once
#include "nvfp4/reference_models/train/trainer.hpp"

#include <nlohmann/json.hpp>
#include <string_view>

namespace nvfp4::models {

/// Calls visit(name, field, decides) for each field of TrainOptions; `decides` is false for fields that
/// change no bit.
template <class Options, class Visit> void for_each_option(Options &o, Visit &&visit) {
  visit("model", o.model, true);
  visit("size", o.size, true);
  visit("sizes", o.sizes, true);
  visit("recipe", o.recipe, true);
  visit("bf16_first", o.bf16_first, true);
  visit("bf16_last", o.bf16_last, true);
  visit("data", o.data, true);
  visit("out", o.out, false);
  visit("steps", o.steps, true);
  visit("seed", o.seed, true);
  visit("batch", o.batch, true);
  visit("sequence", o.sequence, true);
  visit("accumulation", o.accumulation, true);
  visit("learning_rate", o.learning_rate, true);
  visit("final_learning_rate", o.final_learning_rate, true);
  visit("warmup", o.warmup, true);
  visit("schedule", o.schedule, true);
  visit("beta1", o.beta1, true);
  visit("beta2", o.beta2, true);
  visit("epsilon", o.epsilon, true);
  visit("weight_decay", o.weight_decay, true);
  visit("clip", o.clip, true);
  visit("validation", o.validation, true);
  visit("eval_every", o.eval_every, false);
  visit("eval_batches", o.eval_batches, false);
  visit("checkpoint_every", o.checkpoint_every, false);
  visit("diagnostics_every", o.diagnostics_every, false);
  visit("sensitivity", o.sensitivity, false);
  visit("resume", o.resume, false);
  visit("threads", o.threads, false);
  visit("device", o.device, false);
}

/// Every field, in the order of the struct.
[[nodiscard]] nlohmann::ordered_json options_to_json(const TrainOptions &options);

/// Sets the field `key`. False if there is none of that name; Error, which starts with `where` and ends with
/// `advice`, for a wrong type.
bool set_option(TrainOptions &options, std::string_view key, const nlohmann::ordered_json &value,
                const std::string &where, const std::string &advice = {});

/// The first field that decides bits and is not as `stored` says, as "steps: 200 here, 100 there"; empty if
/// none. A field that `stored` lacks counts as its default. Errors are those of set_option().
[[nodiscard]] std::string first_difference(const TrainOptions &options, const nlohmann::ordered_json &stored,
                                           const std::string &where = "stored options: ",
                                           const std::string &advice = {});

} // namespace nvfp4::models
