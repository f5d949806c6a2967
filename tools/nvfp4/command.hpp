// SPDX-License-Identifier: Apache-2.0
// How a verb declares its options, in the words of CLI11, which parses them. CLI11 is a header that takes longer to compile
// than most verbs: only command.cpp and the files that read a command line's description include it.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
} // namespace CLI

namespace nvfp4::tool {

/// Values from low to high, both included. T: int, int64_t or double.
template <class T> struct Range {
  T low, high;
};
template <class T> Range(T, T) -> Range<T>; // clang before 17 does not find it
/// These words and no others.
struct OneOf {
  std::vector<std::string> words;
};
/// Numbers from 0 on.
struct NotNegative {};

/// An option, flag or argument of a verb. The setters return the option itself.
class Option {
public:
  explicit Option(CLI::Option &option) : option_(&option) {}
  Option *required();
  Option *capture_default_str(); ///< --help shows the variable's value as the default
  Option *delimiter(char c);     ///< several values in one word
  Option *expected(int least, int most);
  Option *group(const std::string &name); ///< under which --help lists it; "": not at all
  template <class T> Option *check(const Range<T> &range);
  Option *check(const OneOf &words);
  Option *check(NotNegative);
  [[nodiscard]] size_t count() const; ///< how often it was given
  [[nodiscard]] std::string get_name() const;
  [[nodiscard]] CLI::Option &cli() const { return *option_; }

private:
  CLI::Option *option_;
};

/// The program, a verb or a verb of a verb. `app` outlives it; it outlives the parsing.
class Command {
public:
  explicit Command(CLI::App &app) : app_(&app) {}
  Command(const Command &) = delete;
  Command &operator=(const Command &) = delete;

  Command *add_subcommand(const std::string &name, const std::string &description);
  /// T is one of the types that command.cpp lists; the linker misses others.
  template <class T> Option *add_option(const std::string &names, T &value, const std::string &description);
  /// The value's text goes to `take`, which throws Error; --help calls it `type`.
  Option *add_option_function(const std::string &names, const std::function<void(const std::string &)> &take,
                              const std::string &description, const std::string &type);
  Option *add_flag(const std::string &names, bool &value, const std::string &description);
  Command *require_subcommand(int count);
  Command *footer(const std::string &text);
  Command *callback(const std::function<void()> &run);
  [[nodiscard]] CLI::App &cli() const { return *app_; }

private:
  Option *keep(CLI::Option *option) { return &options_.emplace_back(*option); }

  CLI::App *app_;
  std::deque<Command> commands_;
  std::deque<Option> options_;
};

} // namespace nvfp4::tool
