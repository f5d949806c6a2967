// SPDX-License-Identifier: Apache-2.0
// The sub-commands of nvfp4-gpu: each file registers its own.
#pragma once
#include "nvfp4/gpu/check/check.hpp"

#include <CLI/CLI.hpp>

namespace nvfp4::crosscheck {

enum ExitCode { kEqual = 0, kMismatch = 1, kBadCall = 2, kNoDevice = 3 };

/// Prints the total and turns it into an exit code; a tally of nothing is an Error: a name matched nothing.
[[nodiscard]] int finish(const Tally &tally);

void register_twin(CLI::App &app, int &exit_code);      ///< elements, mma, quantize, gemm, kernels, linear
void register_training(CLI::App &app, int &exit_code);  ///< training, profile
void register_hardware(CLI::App &app, int &exit_code);  ///< units, hopper, attention, gla, capture
void register_blackwell(CLI::App &app, int &exit_code); ///< blackwell and what is below it
void register_speed(CLI::App &app, int &exit_code);     ///< speed and what is below it
void register_probes(CLI::App &app, int &exit_code);    ///< probe, in a build with cuBLASLt
void register_all(CLI::App &app, int &exit_code);       ///< all

} // namespace nvfp4::crosscheck
