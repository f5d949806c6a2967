// SPDX-License-Identifier: Apache-2.0
// The program: parses the command line, runs one verb, turns errors into one line and exit code 2.
#include "emulator/config.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <cstdio>
#include <new>
#include <unistd.h>

namespace nvfp4::tool {

void show_progress(const char *label, double fraction) {
  static const bool terminal = isatty(STDERR_FILENO) != 0;
  static int shown = -1;
  const int percent = int(fraction * 100);
  if (!terminal || percent == shown) return;
  shown = percent;
  std::fprintf(stderr, fraction >= 1.0 ? "\r\033[K" : "\r%s %3d %%", label, percent);
  std::fflush(stderr);
}

} // namespace nvfp4::tool

int main(int argc, char **argv) {
  using namespace nvfp4::tool;
  CLI::App app{"nvfp4: what FP4 hardware does, to the last bit.\n"
               "Exit codes: 0 done or equal, 1 mismatch, 2 bad call or input, 3 no suitable device."};
  app.require_subcommand(1);
  app.set_version_flag("--version", NVFP4_VERSION);
  int exit_code = kEqual;
  register_info(app, exit_code);
  register_quantize(app, exit_code);
  register_dequantize(app, exit_code);
  register_mma(app, exit_code);
  register_gemm(app, exit_code);
  register_golden(app, exit_code);
  register_bench(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::fprintf(stderr, "nvfp4: %s (see nvfp4 --help)\n", error.what());
    return kBadInput;
  } catch (const nvfp4::Error &error) {
    std::fprintf(stderr, "nvfp4: %s\n", error.what());
    return kBadInput;
  } catch (const std::bad_alloc &) {
    std::fprintf(stderr, "nvfp4: out of memory\n");
    return kBadInput;
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    std::fprintf(stderr, "nvfp4: cannot write standard output\n");
    return kBadInput;
  }
  return exit_code;
}
