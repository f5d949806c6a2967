// SPDX-License-Identifier: Apache-2.0
// What the verbs of the program share: registration and exit codes.
#pragma once
#include "tools/nvfp4/command.hpp"

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
void register_info(Command &app, int &exit_code);
void register_quantize(Command &app, int &exit_code);
void register_dequantize(Command &app, int &exit_code);
void register_compare(Command &app, int &exit_code);
void register_import(Command &app, int &exit_code);
void register_recipe(Command &app, int &exit_code);
void register_completion(Command &app, int &exit_code);
void register_man(Command &app, int &exit_code);
void register_convert(Command &app, int &exit_code);
void register_mma(Command &app, int &exit_code);
void register_gemm(Command &app, int &exit_code);
/// Returns the verb, for capture and training.
Command *register_golden(Command &app, int &exit_code);
void register_golden_capture(Command &golden, int &exit_code);
void register_golden_training(Command &golden, int &exit_code);
void register_bench(Command &app, int &exit_code);
void register_check(Command &app, int &exit_code);
void register_train(Command &app, int &exit_code);
void register_eval(Command &app, int &exit_code);
void register_init(Command &app, int &exit_code);
void register_cnn(Command &app, int &exit_code);
void register_experiment(Command &app, int &exit_code);
void register_lab(Command &app, int &exit_code);
void register_report(Command &app, int &exit_code);
void register_log(Command &app, int &exit_code);
void register_record(Command &app, int &exit_code);
void register_replay(Command &app, int &exit_code);
void register_crosscheck(Command &app, int &exit_code);
void register_forward(Command &app, int &exit_code);
void register_generate(Command &app, int &exit_code);
void register_inspect(Command &app, int &exit_code);
void register_export(Command &app, int &exit_code);

/// The verbs that both programs begin with; returns golden.
inline Command *register_arithmetic(Command &program, int &exit_code) {
  register_info(program, exit_code);
  register_quantize(program, exit_code);
  register_dequantize(program, exit_code);
  register_compare(program, exit_code);
  register_import(program, exit_code);
  register_convert(program, exit_code);
  register_mma(program, exit_code);
  register_gemm(program, exit_code);
  return register_golden(program, exit_code);
}

} // namespace nvfp4::tool
