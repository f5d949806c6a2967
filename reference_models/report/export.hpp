// SPDX-License-Identifier: Apache-2.0
// Logs and diagnostics of runs for other programs: comma-separated values, and event files as TensorBoard
// reads them.
#pragma once
#include "nvfp4/reference_models/report/run_data.hpp"

namespace nvfp4::models {

/// A line a step of each run under the head "run,step,tokens,loss,learning_rate,gradient_norm,tokens_per_s,
/// validation_loss"; RFC 4180, lines end in \n. Numbers are the shortest that give the same FP64 number; what
/// was not measured is empty, what is not finite nan.
[[nodiscard]] std::string log_csv(const std::vector<RunData> &runs);

/// A line a measure of each run under "run,step,layer,operator,quantity,value"; the layer of a part outside
/// the blocks is -1. Quantities: activation_kurtosis, weight_top1, ..., attention_entropy, gate_max, ...
[[nodiscard]] std::string diagnostics_csv(const std::vector<RunData> &runs);

/// The content of an events.out.tfevents file: losses, learning rate, gradient norm and speed of every step
/// as scalars "train/loss", ..., "validation/loss", diagnostics as "diagnostics/QUANTITY/LAYER.OPERATOR".
/// Times are the seconds that the steps took, from 0: logs have no clock. Format: TFRecord (length, masked
/// CRC-32C, data, masked CRC-32C) of tensorflow.Event messages.
[[nodiscard]] std::string event_file(const RunData &run);

/// CRC-32C (Castagnoli, RFC 3720, B.4) of the bytes.
[[nodiscard]] uint32_t crc32c(std::string_view bytes);

} // namespace nvfp4::models
