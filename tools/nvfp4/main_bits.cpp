// SPDX-License-Identifier: Apache-2.0
// nvfp4-bits: the verbs whose results are compared between compilers (tests/tools/same_bits_test.sh), and no others.
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/train/session.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/program.hpp"
#include "tools/nvfp4/verbs.hpp"

namespace nvfp4::tool {
namespace {

void add_verbs(Command &program, int &exit_code) { register_golden_training(*register_arithmetic(program, exit_code), exit_code); }

} // namespace
} // namespace nvfp4::tool

int main(int argc, char **argv) {
  using namespace nvfp4;
  models::register_device("cpu", [](int threads) { return models::make_cpu_session(threads, tool::asked_isa()); });
  return tool::run_program("nvfp4-bits", argc, argv, tool::add_verbs);
}
