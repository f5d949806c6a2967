// SPDX-License-Identifier: Apache-2.0
// Syntax first, range second; whole numbers are then converted by CLI11, reals here.
#include "tools/nvfp4/numbers.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <fmt/core.h>

namespace nvfp4::tool {
namespace {

/// The number that the whole of `text` says, unless T cannot hold it; not "nan" or "inf".
template <class T> std::optional<T> number_of(const std::string &text) {
  T value{};
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) return {};
  if constexpr (std::is_floating_point_v<T>)
    if (!std::isfinite(value)) return {};
  return value;
}

/// 01, -00, 08.5: other programs read some of these as octal.
bool has_leading_zero(const std::string &text) {
  const size_t first = text.starts_with('-') ? 1 : 0;
  return text.size() > first + 1 && text[first] == '0' && text[first + 1] >= '0' && text[first + 1] <= '9';
}

/// Puts a check in front of those that an option has; as a transformation it may rewrite the text.
template <class Check> void check_first(CLI::Option &option, Check check) {
  option.transform(CLI::Validator([check](std::string &text) { return check(text); }, ""));
}

template <class Number>
Option *add_any_fp32(Command &verb, const std::string &name, Number &number, const std::string &help,
                     std::optional<float> low) {
  const auto take = [&number, name, low](const std::string &text) {
    const std::optional<float> value = number_of<float>(text);
    if (!value || (low && *value < *low))
      throw CLI::ValidationError(name, "expected a number that FP32 can hold" +
                                           (low ? fmt::format(", at least {}", *low) : "") + ", got " +
                                           io::in_quotes(text));
    number = *value;
  };
  return verb.add_option_function(name, take, help, "FP32");
}

void read_strictly(CLI::App &app) {
  for (CLI::Option *const option : app.get_options()) {
    const std::string type = option->get_type_name();
    if (type.starts_with("INT"))
      check_first(*option, [](const std::string &t) { return whole_number_fault(t, true); });
    if (type.starts_with("UINT"))
      check_first(*option, [](const std::string &t) { return whole_number_fault(t, false); });
    if (type.starts_with("FP32")) check_first(*option, number_fault);
    if (type.starts_with("FLOAT"))
      check_first(*option, [](std::string &t) {
        const std::string fault = number_fault(t);
        // CLI11 reads FP80 first, which would round twice; what is exact is rounded by neither
        if (fault.empty()) t = fmt::format("{:a}", *number_of<double>(t));
        return fault;
      });
  }
  for (CLI::App *const verb : app.get_subcommands([](const CLI::App *) { return true; }))
    read_strictly(*verb);
}

} // namespace

std::string whole_number_fault(const std::string &text, bool is_signed) {
  const bool good = is_signed ? number_of<int64_t>(text).has_value() : number_of<uint64_t>(text).has_value();
  if (good && !has_leading_zero(text)) return {};
  return std::string("expected a whole number in decimal ") +
         (is_signed ? "from -2^63 to 2^63 - 1" : "from 0 to 2^64 - 1") + ", got " + io::in_quotes(text);
}

std::string number_fault(const std::string &text) {
  if (number_of<double>(text) && !has_leading_zero(text)) return {};
  return "expected a finite number in decimal, such as 0.5 or 1e-3, got " + io::in_quotes(text);
}

void read_numbers_strictly(Command &program) { read_strictly(program.cli()); }

Option *add_fp32(Command &verb, const std::string &name, float &number, const std::string &help,
                 std::optional<float> low) {
  return add_any_fp32(verb, name, number, help, low);
}
Option *add_fp32(Command &verb, const std::string &name, std::optional<float> &number, const std::string &help,
                 std::optional<float> low) {
  return add_any_fp32(verb, name, number, help, low);
}

Option *add_threads(Command &verb, int &threads) {
  return verb.add_option("--threads", threads, "0: all; changes no bit")
      ->capture_default_str()
      ->check(Range{0, 1024});
}

} // namespace nvfp4::tool
