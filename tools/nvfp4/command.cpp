// SPDX-License-Identifier: Apache-2.0
#include "tools/nvfp4/command.hpp"

#include <CLI/CLI.hpp>

#include <optional>

namespace nvfp4::tool {

Option *Option::required() { return option_->required(), this; }
Option *Option::capture_default_str() { return option_->capture_default_str(), this; }
Option *Option::delimiter(char c) { return option_->delimiter(c), this; }
Option *Option::expected(int least, int most) { return option_->expected(least, most), this; }
Option *Option::group(const std::string &name) { return option_->group(name), this; }
template <class T> Option *Option::check(const Range<T> &range) {
  return option_->check(CLI::Range(range.low, range.high)), this;
}
template Option *Option::check(const Range<int> &);
template Option *Option::check(const Range<int64_t> &);
template Option *Option::check(const Range<double> &);
Option *Option::check(const OneOf &words) { return option_->check(CLI::IsMember(words.words)), this; }
Option *Option::check(NotNegative) { return option_->check(CLI::NonNegativeNumber), this; }
size_t Option::count() const { return option_->count(); }
std::string Option::get_name() const { return option_->get_name(); }

Command *Command::add_subcommand(const std::string &name, const std::string &description) {
  return &commands_.emplace_back(*app_->add_subcommand(name, description));
}
template <class T> Option *Command::add_option(const std::string &names, T &value, const std::string &description) {
  return keep(app_->add_option(names, value, description));
}
#define NVFP4_OPTION_TYPE(...) \
  template Option *Command::add_option(const std::string &, __VA_ARGS__ &, const std::string &);
NVFP4_OPTION_TYPE(std::string)
NVFP4_OPTION_TYPE(int)
NVFP4_OPTION_TYPE(int64_t)
NVFP4_OPTION_TYPE(uint64_t)
NVFP4_OPTION_TYPE(float)
NVFP4_OPTION_TYPE(double)
NVFP4_OPTION_TYPE(std::vector<std::string>)
NVFP4_OPTION_TYPE(std::vector<int64_t>)
NVFP4_OPTION_TYPE(std::vector<int>)
NVFP4_OPTION_TYPE(std::vector<double>)
NVFP4_OPTION_TYPE(std::optional<uint64_t>)
#undef NVFP4_OPTION_TYPE
Option *Command::add_option_function(const std::string &names, const std::function<void(const std::string &)> &take,
                                     const std::string &description, const std::string &type) {
  return keep(app_->add_option_function<std::string>(names, take, description)->type_name(type));
}
Option *Command::add_flag(const std::string &names, bool &value, const std::string &description) {
  return keep(app_->add_flag(names, value, description));
}
Command *Command::require_subcommand(int count) { return app_->require_subcommand(count), this; }
Command *Command::footer(const std::string &text) { return app_->footer(text), this; }
Command *Command::callback(const std::function<void()> &run) { return app_->callback(run), this; }

} // namespace nvfp4::tool
