// SPDX-License-Identifier: Apache-2.0
// nvfp4-gpu: holds a GPU against the CPU, word by word. Exit code 0 equal, 1 mismatch, 2 bad call or failure,
// 3 no suitable GPU.
#include "nvfp4/gpu/capture/cuda_check.hpp"
#include "nvfp4/gpu/program/program.hpp"
#include "nvfp4/reference_models/backend/backend.hpp"

int main(int argc, char **argv) {
  using namespace nvfp4::crosscheck;
  CLI::App app{"Hold a GPU against the CPU, word by word"};
  app.name("nvfp4-gpu");
  app.require_subcommand(1);
  app.footer("Exit code 0: equal, 1: a mismatch, 2: a bad call or a failure, 3: no suitable GPU.\n"
             "Example: nvfp4-gpu all --quick");
  int exit_code = kEqual;
  register_all(app, exit_code);
  register_twin(app, exit_code);
  register_training(app, exit_code);
  register_hardware(app, exit_code);
  register_blackwell(app, exit_code);
  register_speed(app, exit_code);
#if NVFP4_CUBLASLT
  register_probes(app, exit_code);
#endif
  const auto complain = [](const std::string &what, int code) {
    std::fprintf(stderr, "nvfp4-gpu: %s\n", what.c_str());
    return code;
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    if (app.get_subcommands().empty() && !app.remaining().empty())
      return complain("there is no command '" + app.remaining().front() + "' (see nvfp4-gpu --help)", kBadCall);
    return complain(std::string(error.what()) + " (see nvfp4-gpu --help)", kBadCall);
  } catch (const nvfp4::models::NoDevice &error) {
    return complain(error.what(), kNoDevice);
  } catch (const nvfp4::gpu::NoDevice &error) {
    return complain(error.what(), kNoDevice);
  } catch (const std::exception &error) {
    return complain(error.what(), kBadCall);
  }
  return exit_code;
}
