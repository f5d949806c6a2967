// SPDX-License-Identifier: Apache-2.0
// What `nvfp4` and `nvfp4-arithmetic` have in common: all but the list of verbs.
#pragma once
#include "tools/nvfp4/command.hpp"

namespace nvfp4::tool {

/// Parses the command line, runs the verb that it names and returns the exit code. `name` is the program's, for --help,
/// --version and errors. add_verbs registers verbs, each of which sets exit_code when it has run.
int run_program(const char *name, int argc, char **argv, void (*add_verbs)(Command &program, int &exit_code));

} // namespace nvfp4::tool
