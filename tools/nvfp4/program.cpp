// SPDX-License-Identifier: Apache-2.0
// Parses the command line, runs one verb, turns errors into one line and exit code 2.
#include "tools/nvfp4/program.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/reference_models/train/session.hpp"
#include "tools/nvfp4/files.hpp"
#include "tools/nvfp4/known_values.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/verbs.hpp"
#include "tools/nvfp4/version_text.hpp"

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string>

namespace nvfp4::tool {

namespace {

/// One line on stderr, whatever the message carries.
void complain(const std::string &program, const std::string &message) {
  std::string line = program + ": ";
  for (const char c : message) line += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  std::fprintf(stderr, "%s\n", line.c_str());
}

} // namespace

int run_program(const char *name, int argc, char **argv, void (*add_verbs)(Command &program, int &exit_code)) {
  std::signal(SIGXFSZ, SIG_IGN); // a file-size limit is then an error of write(), which names the file
  CLI::App app{std::string(name) + ": what FP4 hardware does, to the last bit.\n"
               "Exit codes: 0 done or equal, 1 mismatch, 2 bad call or input, 3 no suitable device,\n"
               "4 the computation did not stay finite."};
  app.require_subcommand(1);
  app.set_version_flag("--version", [name] { return version_text(name); }, "Version, commit, compiler, instruction sets, CUDA");
  int exit_code = kEqual;
  Command program(app);
  add_verbs(program, exit_code);
  read_numbers_strictly(program);
  app.parse_complete_callback([&app] { check_outputs(app); });
  try {
    check_names(argc, argv);
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    complain(name, explain(app, error));
    return kBadInput;
  } catch (const models::NoDevice &error) {
    complain(name, error.what());
    return kNoDevice;
  } catch (const Error &error) {
    complain(name, error.what());
    return kBadInput;
  } catch (const std::bad_alloc &) {
    complain(name, "out of memory");
    return kBadInput;
  } catch (const std::exception &error) { // a folder that cannot be made or read, say
    complain(name, error.what());
    return kBadInput;
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    complain(name, "cannot write standard output");
    return kBadInput;
  }
  return exit_code;
}

} // namespace nvfp4::tool
