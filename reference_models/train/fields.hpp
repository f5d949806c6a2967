// SPDX-License-Identifier: Apache-2.0
// The fields of a JSON object from a file that anybody may have damaged: each is asked for with its type, and
// what is wrong is said in one line that names the file, the key, what was expected, what came and what to
// do. Internal.
#pragma once
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/reference_models/diagnostics/finite.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nvfp4::models {

class Fields {
public:
  using Json = nlohmann::ordered_json;

  /// `where` opens messages ("runs/a/run.json: "), `advice` ends them ("; remove the file"). Throws Error
  /// unless `json` is an object.
  Fields(Json json, std::string where, std::string advice = {});

  static constexpr int64_t kHigh = int64_t{1} << 40;

  /// There, and not null.
  [[nodiscard]] bool has(const char *key) const;
  /// From `low` to `high`.
  [[nodiscard]] int64_t count(const char *key, int64_t low, int64_t high = kHigh) const;
  [[nodiscard]] uint64_t seed(const char *key) const;
  [[nodiscard]] double number(const char *key, double low, double high) const;
  /// NaN where the file has null, as it has for numbers that are not finite.
  [[nodiscard]] double real(const char *key) const;
  /// The same, NaN where there is no such key too.
  [[nodiscard]] double optional_real(const char *key) const;
  [[nodiscard]] std::string text(const char *key) const;
  [[nodiscard]] bool flag(const char *key) const;
  [[nodiscard]] std::vector<int64_t> counts(const char *key) const;
  [[nodiscard]] std::vector<double> reals(const char *key) const;
  /// n hexadecimal digits in lower case.
  [[nodiscard]] std::string digits(const char *key, size_t n) const;
  [[nodiscard]] uint64_t word(const char *key, size_t digit_count) const;
  /// The object under a key; its messages name both.
  [[nodiscard]] Fields object(const char *key) const;
  [[nodiscard]] const Json &json() const { return json_; }
  [[nodiscard]] const std::string &where() const { return where_; }

private:
  [[nodiscard]] const Json &need(const char *key) const;
  [[noreturn]] void refuse(const std::string &key, const std::string &expected, const Json &got) const;

  std::string where_, advice_;
  Json json_;
};

using io::parse_json;

/// Written with kNotFiniteFields. Throws Error for what is none.
[[nodiscard]] NotFinite not_finite_of(const Fields &fields);

/// The text of a file.
[[nodiscard]] std::string read_text(const std::string &path);

} // namespace nvfp4::models
