// SPDX-License-Identifier: Apache-2.0
// What the verbs of the program share: registration and exit codes.
#pragma once
#include <CLI/CLI.hpp>

#include <string>

namespace nvfp4::tool {

/// Exit codes of every verb.
enum ExitCode {
  kEqual = 0,
  kMismatch = 1,
  kBadInput = 2,
  kNoDevice = 3,
  kNotFinite = 4, ///< the computation did not stay finite
};

/// Each verb registers its options and, as callback, the function whose exit code ends the program.
void register_info(CLI::App &app, int &exit_code);
void register_quantize(CLI::App &app, int &exit_code);
void register_dequantize(CLI::App &app, int &exit_code);
void register_compare(CLI::App &app, int &exit_code);
void register_import(CLI::App &app, int &exit_code);
void register_recipe(CLI::App &app, int &exit_code);
void register_completion(CLI::App &app, int &exit_code);
void register_man(CLI::App &app, int &exit_code);
void register_convert(CLI::App &app, int &exit_code);
void register_mma(CLI::App &app, int &exit_code);
void register_gemm(CLI::App &app, int &exit_code);
void register_golden(CLI::App &app, int &exit_code);
void register_golden_training(CLI::App &golden, int &exit_code);
void register_bench(CLI::App &app, int &exit_code);
void register_check(CLI::App &app, int &exit_code);
void register_train(CLI::App &app, int &exit_code);
void register_eval(CLI::App &app, int &exit_code);
void register_init(CLI::App &app, int &exit_code);
void register_cnn(CLI::App &app, int &exit_code);
void register_experiment(CLI::App &app, int &exit_code);
void register_lab(CLI::App &app, int &exit_code);
void register_report(CLI::App &app, int &exit_code);
void register_log(CLI::App &app, int &exit_code);
void register_record(CLI::App &app, int &exit_code);
void register_replay(CLI::App &app, int &exit_code);
void register_crosscheck(CLI::App &app, int &exit_code);
void register_forward(CLI::App &app, int &exit_code);
void register_generate(CLI::App &app, int &exit_code);
void register_inspect(CLI::App &app, int &exit_code);
void register_export(CLI::App &app, int &exit_code);

} // namespace nvfp4::tool
