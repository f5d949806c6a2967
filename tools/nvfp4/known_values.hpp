// SPDX-License-Identifier: Apache-2.0
// What may stand on the command line, read from its description: values of options, completions of a word,
// and what a misspelt word may have meant.
#pragma once
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
class ParseError;
} // namespace CLI

namespace nvfp4::tool {

/// The values that an option takes where they are names; empty for numbers, files and free text.
[[nodiscard]] std::vector<std::string> known_values(const CLI::Option &option);

/// Completions of the last of `words`, which follow the program's name; the last may be empty. None: a file
/// may stand there.
[[nodiscard]] std::vector<std::string> completions(const CLI::App &app,
                                                   const std::vector<std::string> &words);

/// The error of a command line in one line, with the verbs, options or values nearest to what is wrong.
[[nodiscard]] std::string explain(const CLI::App &app, const CLI::ParseError &error);

} // namespace nvfp4::tool
