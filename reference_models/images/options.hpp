// SPDX-License-Identifier: Apache-2.0
// The fields of ImageOptions as one list, from which JSON, checks and the command line of nvfp4 cnn follow. Internal.
#pragma once
#include "nvfp4/reference_models/images/train.hpp"
#include "nvfp4/reference_models/train/options.hpp"

namespace nvfp4::models {

inline constexpr auto kImageTrainFields = std::tuple{
    field("size", &ImageOptions::size, "Preset: tiny, small or cifar").marked(kDecides | kNames),
    field("widths", &ImageOptions::widths, "Channels of each block instead, e.g. 16,32,64").marked(kDecides | kNames),
    field("convolutions", &ImageOptions::convolutions, "Of each block; -1: as the preset", at_least(-1))
        .marked(kDecides | kNames),
    field("hidden", &ImageOptions::hidden, "Outputs of the hidden layer, 0: none; -1: as the preset", at_least(-1))
        .marked(kDecides | kNames),
    field("recipe", &ImageOptions::recipe, ", or a JSON file").of(image_recipe_names).marked(kDecides | kNames),
    field("bf16_first", &ImageOptions::bf16_first, "First layers in BF16; -1: as the recipe says", at_least(-1))
        .marked(kDecides | kNames),
    field("bf16_last", &ImageOptions::bf16_last, "Last layers in BF16; -1: as the recipe says", at_least(-1))
        .marked(kDecides | kNames),
    field("data", &ImageOptions::data,
          "task:shapes[,noise=N][,contrast=N], or files of CIFAR-10's binary version, also a list a,b or a pattern")
        .marked(kDecides | kNames),
    field("validation_data", &ImageOptions::validation_data, "Files to validate on, instead of a fraction of --data")
        .marked(kDecides | kNames),
    field("out", &ImageOptions::out, "Folder of the run"),
    field("steps", &ImageOptions::steps, "Optimizer steps", from_to(1, 0x1p40)).marked(kDecides),
    field("seed", &ImageOptions::seed, "Of initial values, order of images, stochastic rounding").marked(kDecides),
    field("batch", &ImageOptions::batch, "Images a step", from_to(1, 65536)).marked(kDecides),
    field("learning_rate", &ImageOptions::learning_rate, "Peak learning rate", above(0)).as("--lr,--learning-rate").marked(kDecides),
    field("final_learning_rate", &ImageOptions::final_learning_rate, "Fraction of it at the end", from_to(0, 1))
        .as("--final-lr")
        .marked(kDecides),
    field("warmup", &ImageOptions::warmup, "Steps of warm-up; -1: 5 % of the steps", at_least(-1)).marked(kDecides),
    field("schedule", &ImageOptions::schedule, ": what follows the warm-up").of(name_list<Schedule>).marked(kDecides),
    field("schedule_steps", &ImageOptions::schedule_steps,
          "Steps that the schedule is made for; later ones keep its last rate; -1: the steps", at_least(-1))
        .marked(kDecides),
    field("beta1", &ImageOptions::beta1, "AdamW", from_below(0, 1)).marked(kDecides),
    field("beta2", &ImageOptions::beta2, "AdamW", from_below(0, 1)).marked(kDecides),
    field("epsilon", &ImageOptions::epsilon, "AdamW", above(0)).marked(kDecides),
    field("weight_decay", &ImageOptions::weight_decay, "AdamW, of convolutions and linear layers", at_least(0)).marked(kDecides),
    field("clip", &ImageOptions::clip, "Largest gradient norm; 0: off", at_least(0)).marked(kDecides),
    field("validation", &ImageOptions::validation, "Fraction of the images held out, their end").marked(kDecides),
    field("plain", &ImageOptions::plain, "Train on images of files as they are, neither shifted nor mirrored").marked(kDecides),
    field("eval_every", &ImageOptions::eval_every, "Steps between validations; 0: at the end only", at_least(0)),
    field("eval_images", &ImageOptions::eval_images, "Images a validation, at most", at_least(1)).marked(kDecides),
    field("checkpoint_every", &ImageOptions::checkpoint_every, "Steps between checkpoints; 0: 100", at_least(0)),
    field("resume", &ImageOptions::resume, "Continue the run in --out, bit for bit"),
    field("threads", &ImageOptions::threads, "0: all; changes no bit", from_to(0, 1024)),
    field("device", &ImageOptions::device, "cpu or cuda")};

} // namespace nvfp4::models
