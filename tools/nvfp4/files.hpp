// SPDX-License-Identifier: Apache-2.0
// What holds for the files on every command line: names are text, and no verb writes over what it reads.
#pragma once
namespace CLI {
class App;
}

namespace nvfp4::tool {

/// Throws Error unless all arguments are UTF-8: they go into messages, JSON and metadata.
void check_names(int argc, char **argv);

/// Throws Error where a verb that was called has as its output (-o or --dump) a file that another of its
/// options or arguments names, also by a link. Call it after parsing, before the verb runs.
void check_outputs(const CLI::App &app);

} // namespace nvfp4::tool
