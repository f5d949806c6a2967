// SPDX-License-Identifier: Apache-2.0
// The fields of TrainOptions as one list, from which reading and writing JSON, checks, the command lines of
// train and record, the keys of an experiment and the table in README.md follow. Internal.
#pragma once
#include "nvfp4/reference_models/family/family.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/reference_models/train/schedule.hpp"
#include "nvfp4/reference_models/train/trainer.hpp"

namespace nvfp4::models {

/// Marks of a field.
enum TrainMark : unsigned {
  kDecides = 1,  ///< decides bits of a run
  kRecorded = 2, ///< decides what `record` repeats of a run, and can be given to it
  kGrid = 4,     ///< of an experiment decided by its grid
  kNames = 8,    ///< names or changes a model, recipe or data, whose contents decide
};
inline constexpr unsigned kStep = kDecides | kRecorded;

[[nodiscard]] std::string recipe_names();

inline constexpr auto kTrainFields = std::tuple{
    field("model", &TrainOptions::model, ", or a JSON file with the sizes")
        .of(family_names)
        .marked(kStep | kGrid | kNames),
    field("size", &TrainOptions::size, "Preset of the family: tiny, small, ...")
        .marked(kStep | kGrid | kNames),
    field("sizes", &TrainOptions::sizes, "Changes to the preset, e.g. hidden=256,layers=6,intermediate=768")
        .as("--set")
        .marked(kDecides | kNames),
    field("recipe", &TrainOptions::recipe,
          ", or a JSON file; behind it +mixers=bf16 (GLA and attention as on tensor cores), +mixer_rules=, "
          "+kv_cache=, +gate_inputs=")
        .of(recipe_names)
        .marked(kDecides | kGrid | kNames),
    field("bf16_first", &TrainOptions::bf16_first, "First blocks in BF16; -1: as the recipe says",
          at_least(-1))
        .marked(kDecides | kNames),
    field("bf16_last", &TrainOptions::bf16_last, "Last blocks in BF16; -1: as the recipe says", at_least(-1))
        .marked(kDecides | kNames),
    field("data", &TrainOptions::data,
          "Text file; token files .bin or .npy, also a list a,b or a pattern; or task:copy, task:mqar, "
          "task:dyck")
        .marked(kStep | kNames),
    field("validation_data", &TrainOptions::validation_data,
          "Text or token files to validate on, instead of a fraction of --data")
        .marked(kStep | kNames),
    field("out", &TrainOptions::out, "Folder of the run").marked(kGrid),
    field("steps", &TrainOptions::steps, "Optimizer steps", from_to(1, 0x1p40)).marked(kStep),
    field("seed", &TrainOptions::seed, "Of initial values, order of data, stochastic rounding")
        .marked(kStep | kGrid),
    field("batch", &TrainOptions::batch, "Sequences a micro-batch", from_to(1, 0x1p20)).marked(kStep),
    field("sequence", &TrainOptions::sequence, "Tokens a sequence", from_to(1, 0x1p20)).marked(kStep),
    field("accumulation", &TrainOptions::accumulation, "Micro-batches a step", from_to(1, 0x1p16))
        .marked(kStep),
    field("learning_rate", &TrainOptions::learning_rate, "Peak learning rate", above(0))
        .as("--lr,--learning-rate")
        .marked(kStep),
    field("final_learning_rate", &TrainOptions::final_learning_rate, "Fraction of it at the end",
          from_to(0, 1))
        .as("--final-lr")
        .marked(kStep),
    field("warmup", &TrainOptions::warmup, "Steps of warm-up; -1: 5 % of the steps", at_least(-1))
        .marked(kStep),
    field("schedule", &TrainOptions::schedule, ": what follows the warm-up")
        .of(name_list<Schedule>)
        .marked(kStep),
    field("schedule_steps", &TrainOptions::schedule_steps,
          "Steps that the schedule is made for; later ones keep its last rate; -1: the steps", at_least(-1))
        .marked(kStep),
    field("beta1", &TrainOptions::beta1, "AdamW", from_below(0, 1)).marked(kStep),
    field("beta2", &TrainOptions::beta2, "AdamW", from_below(0, 1)).marked(kStep),
    field("epsilon", &TrainOptions::epsilon, "AdamW", above(0)).marked(kStep),
    field("weight_decay", &TrainOptions::weight_decay, "AdamW, of linear layers and the embedding",
          at_least(0))
        .marked(kStep),
    field("clip", &TrainOptions::clip, "Largest gradient norm; 0: off", at_least(0)).marked(kStep),
    field("validation", &TrainOptions::validation, "Fraction of the text or tokens held out, their end")
        .marked(kStep),
    field("eval_every", &TrainOptions::eval_every, "Steps between validations; 0: at the end only",
          at_least(0)),
    field("eval_batches", &TrainOptions::eval_batches, "Micro-batches a validation", at_least(1))
        .marked(kDecides), // the validation losses
    field("checkpoint_every", &TrainOptions::checkpoint_every, "Steps between checkpoints; 0: 100",
          at_least(0)),
    field("diagnostics_every", &TrainOptions::diagnostics_every, "Steps between diagnostics; -1: 50, 0: none",
          at_least(-1)),
    field("diagnostics_tokens", &TrainOptions::diagnostics_tokens,
          "First tokens of a step that diagnostics measure; 0: those of the first micro-batch", at_least(0)),
    field("sensitivity", &TrainOptions::sensitivity, "After training, measure each operator alone in NVFP4"),
    field("resume", &TrainOptions::resume, "Continue the run in --out, bit for bit").marked(kGrid),
    field("threads", &TrainOptions::threads, "0: all; changes no bit", from_to(0, 1024)),
    field("device", &TrainOptions::device, "cpu or cuda")};

/// Throws Error, in the words of the command line, for a field that is out of its bounds and for an unknown
/// schedule.
void check_options(const TrainOptions &options);

/// Every field, in the order of the list.
[[nodiscard]] nlohmann::ordered_json options_to_json(const TrainOptions &options);

/// Sets the field `key`. False if there is none of that name; Error, which starts with `where` and ends with
/// `advice`, for a wrong type or a number out of bounds.
bool set_option(TrainOptions &options, std::string_view key, const nlohmann::ordered_json &value,
                const std::string &where, const std::string &advice = {});

/// The steps that the schedule is made for.
[[nodiscard]] inline int64_t schedule_steps(const TrainOptions &options) {
  return options.schedule_steps > 0 ? options.schedule_steps : options.steps;
}

/// The recipe of a run: the one named, with the options' blocks in BF16, for the steps of the schedule. Error like
/// load_recipe()'s.
[[nodiscard]] Recipe recipe_of_run(const TrainOptions &options);

/// The learning rate of a step of a run.
[[nodiscard]] inline float learning_rate(const TrainOptions &o, int64_t step) {
  return learning_rate(parse_enum<Schedule>(o.schedule), o.learning_rate, o.final_learning_rate, o.warmup,
                       schedule_steps(o), step);
}

/// The first field that decides bits and is not as `stored` says, as "seed: 2 here, 1 there"; empty if none.
/// A field that `stored` lacks counts as its default. Left out are fields that name what is compared by its
/// content (kNames); `stored` may have fewer steps if the schedule is made for the same number. Errors are
/// those of set_option().
[[nodiscard]] std::string first_difference(const TrainOptions &options, const nlohmann::ordered_json &stored,
                                           const std::string &where = "stored options: ",
                                           const std::string &advice = {});

} // namespace nvfp4::models
