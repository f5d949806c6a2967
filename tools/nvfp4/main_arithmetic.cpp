// SPDX-License-Identifier: Apache-2.0
// nvfp4-arithmetic: the verbs that need no models, for the CPU. It is built in half the time of nvfp4.
#include "tools/nvfp4/program.hpp"
#include "tools/nvfp4/verbs.hpp"

namespace nvfp4::tool {
namespace {

void add_verbs(Command &program, int &exit_code) {
  register_arithmetic(program, exit_code);
  register_check(program, exit_code);
}

} // namespace
} // namespace nvfp4::tool

int main(int argc, char **argv) { return nvfp4::tool::run_program("nvfp4-arithmetic", argc, argv, nvfp4::tool::add_verbs); }
