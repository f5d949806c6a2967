// SPDX-License-Identifier: Apache-2.0
// The program: parses the command line, runs one verb, turns errors into one line and exit code 2.
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/train/session.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/files.hpp"
#include "tools/nvfp4/known_values.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/version_text.hpp"
#include "tools/nvfp4/verbs.hpp"
#if NVFP4_CUDA
#include "nvfp4/gpu/models/session.hpp"
#endif

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string>

namespace nvfp4::tool {

namespace {

/// One line on stderr, whatever the message carries.
void complain(const std::string &message) {
  std::string line = "nvfp4: ";
  for (const char c : message) line += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  std::fprintf(stderr, "%s\n", line.c_str());
}

} // namespace
} // namespace nvfp4::tool

int main(int argc, char **argv) {
  using namespace nvfp4::tool;
  std::signal(SIGXFSZ, SIG_IGN); // a file-size limit is then an error of write(), which names the file
  CLI::App app{"nvfp4: what FP4 hardware does, to the last bit.\n"
               "Exit codes: 0 done or equal, 1 mismatch, 2 bad call or input, 3 no suitable device,\n"
               "4 the computation did not stay finite."};
  app.require_subcommand(1);
  app.set_version_flag("--version", version_text, "Version, commit, compiler, instruction sets, CUDA");
  int exit_code = kEqual;
  nvfp4::models::register_device(
      "cpu", [](int threads) { return nvfp4::models::make_cpu_session(threads, asked_isa()); });
#if NVFP4_CUDA
  nvfp4::cuda::register_cuda_device();
#endif
  Command program(app);
  register_info(program, exit_code);
  register_quantize(program, exit_code);
  register_dequantize(program, exit_code);
  register_compare(program, exit_code);
  register_import(program, exit_code);
  register_convert(program, exit_code);
  register_mma(program, exit_code);
  register_gemm(program, exit_code);
  register_golden(program, exit_code);
  register_bench(program, exit_code);
  register_check(program, exit_code);
  register_inspect(program, exit_code);
  register_export(program, exit_code);
  register_train(program, exit_code);
  register_eval(program, exit_code);
  register_init(program, exit_code);
  register_forward(program, exit_code);
  register_generate(program, exit_code);
  register_cnn(program, exit_code);
  register_experiment(program, exit_code);
  register_lab(program, exit_code);
  register_report(program, exit_code);
  register_log(program, exit_code);
  register_record(program, exit_code);
  register_replay(program, exit_code);
  register_crosscheck(program, exit_code);
  register_recipe(program, exit_code);
  register_completion(program, exit_code);
  register_man(program, exit_code);
  read_numbers_strictly(program);
  app.parse_complete_callback([&app] { check_outputs(app); });
  try {
    check_names(argc, argv);
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    complain(explain(app, error));
    return kBadInput;
  } catch (const nvfp4::models::NoDevice &error) {
    complain(error.what());
    return kNoDevice;
  } catch (const nvfp4::Error &error) {
    complain(error.what());
    return kBadInput;
  } catch (const std::bad_alloc &) {
    complain("out of memory");
    return kBadInput;
  } catch (const std::exception &error) { // a folder that cannot be made or read, say
    complain(error.what());
    return kBadInput;
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    complain("cannot write standard output");
    return kBadInput;
  }
  return exit_code;
}
