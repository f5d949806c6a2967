// SPDX-License-Identifier: Apache-2.0
// A file is known by its device and number, whatever it is called.
#include "tools/nvfp4/files.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <CLI/CLI.hpp>

namespace nvfp4::tool {
namespace {

bool is_output(const CLI::Option &option) {
  return option.check_lname("output") || option.check_lname("dump");
}

} // namespace

void check_names(int argc, char **argv) {
  for (int i = 1; i < argc; ++i)
    if (!io::is_utf8(argv[i]))
      throw Error("expected names in UTF-8, got " + io::in_quotes(argv[i]) + ": rename the file");
}

void check_outputs(const CLI::App &app) {
  for (const CLI::App *const verb : app.get_subcommands()) {
    const std::vector<const CLI::Option *> options = verb->get_options();
    for (const CLI::Option *const output : options) {
      if (!is_output(*output)) continue;
      for (const std::string &path : output->results())
        for (const CLI::Option *const input : options)
          for (const std::string &text : input->results())
            if (input != output && io::is_same_file(path, text))
              throw Error(io::printable(path) + ": " + output->get_name() + " would replace what " +
                          input->get_name() + " reads: give another name");
    }
    check_outputs(*verb);
  }
}

} // namespace nvfp4::tool
