// SPDX-License-Identifier: Apache-2.0
// Types and ranges of JSON values, checked where they are read.
#include "nvfp4/reference_models/train/fields.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"

#include <algorithm>
#include <limits>

namespace nvfp4::models {
namespace {

using Json = Fields::Json;

std::string show(const Json &v) {
  return io::printable(v.dump(-1, ' ', false, Json::error_handler_t::replace), 60);
}

bool is_count(const Json &v, int64_t low, int64_t high) {
  if (!v.is_number_integer()) return false;
  if (v.is_number_unsigned() && v.get<uint64_t>() > uint64_t(high)) return false;
  return v.get<int64_t>() >= low && v.get<int64_t>() <= high;
}

} // namespace

Fields::Fields(Json json, std::string where, std::string advice)
    : where_(std::move(where)), advice_(std::move(advice)), json_(std::move(json)) {
  if (!json_.is_object()) throw Error(where_ + "expected a JSON object, got " + show(json_) + advice_);
}

void Fields::refuse(const std::string &key, const std::string &expected, const Json &got) const {
  throw Error(where_ + key + ": expected " + expected + ", got " + show(got) + advice_);
}

const Json &Fields::need(const char *key) const {
  const auto at = json_.find(key);
  if (at == json_.end()) throw Error(where_ + "expected the key \"" + key + "\"" + advice_);
  return *at;
}

bool Fields::has(const char *key) const {
  const auto at = json_.find(key);
  return at != json_.end() && !at->is_null();
}

int64_t Fields::count(const char *key, int64_t low, int64_t high) const {
  const Json &v = need(key);
  if (!is_count(v, low, high))
    refuse(key,
           "a whole number of at least " + std::to_string(low) +
               (high == kHigh ? "" : " and at most " + std::to_string(high)),
           v);
  return v.get<int64_t>();
}

uint64_t Fields::seed(const char *key) const {
  const Json &v = need(key);
  if (!v.is_number_integer() || (!v.is_number_unsigned() && v.get<int64_t>() < 0))
    refuse(key, "a whole number not below 0", v);
  return v.get<uint64_t>();
}

double Fields::number(const char *key, double low, double high) const {
  const Json &v = need(key);
  if (!v.is_number() || !(v.get<double>() >= low && v.get<double>() <= high))
    refuse(key, "a number from " + Json(low).dump() + " to " + Json(high).dump(), v);
  return v.get<double>();
}

double Fields::real(const char *key) const {
  const Json &v = need(key);
  if (v.is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (!v.is_number()) refuse(key, "a number or null", v);
  return v.get<double>();
}

double Fields::optional_real(const char *key) const {
  return json_.contains(key) ? real(key) : std::numeric_limits<double>::quiet_NaN();
}

std::string Fields::text(const char *key) const {
  const Json &v = need(key);
  if (!v.is_string()) refuse(key, "a string", v);
  return v.get<std::string>();
}

bool Fields::flag(const char *key) const {
  const Json &v = need(key);
  if (!v.is_boolean()) refuse(key, "true or false", v);
  return v.get<bool>();
}

std::vector<int64_t> Fields::counts(const char *key) const {
  const Json &v = need(key);
  if (!v.is_array() || std::any_of(v.begin(), v.end(), [](const Json &x) { return !is_count(x, 0, kHigh); }))
    refuse(key, "a list of whole numbers", v);
  return v.get<std::vector<int64_t>>();
}

std::vector<double> Fields::reals(const char *key) const {
  const Json &v = need(key);
  const auto good = [](const Json &x) { return x.is_number() || x.is_null(); };
  if (!v.is_array() || !std::all_of(v.begin(), v.end(), good)) refuse(key, "a list of numbers", v);
  std::vector<double> out;
  for (const Json &x : v)
    out.push_back(x.is_null() ? std::numeric_limits<double>::quiet_NaN() : x.get<double>());
  return out;
}

std::string Fields::digits(const char *key, size_t n) const {
  const Json &v = need(key);
  if (!v.is_string() || v.get_ref<const std::string &>().size() != n ||
      v.get_ref<const std::string &>().find_first_not_of("0123456789abcdef") != std::string::npos)
    refuse(key, std::to_string(n) + " hexadecimal digits", v);
  return v.get<std::string>();
}

uint64_t Fields::word(const char *key, size_t digit_count) const {
  return std::stoull(digits(key, digit_count), nullptr, 16);
}

Fields Fields::object(const char *key) const { return {need(key), where_ + key + ": ", advice_}; }

NotFinite not_finite_of(const Fields &fields) {
  NotFinite n;
  read_fields(kNotFiniteFields, n, fields.json(), fields.where(), {"tensor"});
  return n;
}

std::string read_text(const std::string &path) {
  const auto bytes = io::read_file(path);
  return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

} // namespace nvfp4::models
