// SPDX-License-Identifier: Apache-2.0
// The fields of Rule as a list: what a search over rules enumerates. A field that is added to Rule does not
// compile until it stands here.
#pragma once
#include "nvfp4/emulator/quantize/rule.hpp"

#include <cstdio>
#include <string>
#include <type_traits>
#include <vector>

namespace nvfp4 {

/// Calls visit(name, member, values) for each field: its name in the struct, a pointer to it, and all values
/// that a rule may have there.
template <class Visit> void for_each_rule_field(Visit visit) {
  using enum FormatId;
  // one name per field: another number of them is an error here, and the list below must grow as well
  [[maybe_unused]] const auto &[element, scale, block, e4m3_max, amax_nan, global, per_row, top, outer_block, order,
                                scale_rounding, least_scale, scaling, zero_multiplier, negative_zero, nan_code, ties,
                                four_over_six, second_scale, fused_error, flush, decoding] = Rule{};
  const auto field = [&]<class T>(const char *name, T Rule::*member) {
    if constexpr (NamedEnum<T>) {
      const auto all = enumerators<T>();
      visit(name, member, std::vector<T>(all.begin(), all.end()));
    } else {
      static_assert(std::is_same_v<T, bool>, "name the values of this field");
      visit(name, member, std::vector<T>{false, true});
    }
  };
  visit("element", &Rule::element, formats_where(&Format::of_elements));
  visit("scale", &Rule::scale, formats_where(&Format::of_scales));
  visit("block", &Rule::block, std::vector<int16_t>{16, 32, 64, 128});
  visit("outer_block", &Rule::outer_block, std::vector<int16_t>{0, 128});
  visit("top", &Rule::top, std::vector<float>{0.0f, kUnbiasedTop, kEdenTop, 7.25f});
  visit("least_scale", &Rule::least_scale, std::vector<float>{0.0f, 1e-10f / 448.0f});
  visit("e4m3_max", &Rule::e4m3_max, std::vector<float>{448.0f, 256.0f});
  field("amax_nan", &Rule::amax_nan);
  field("global", &Rule::global);
  field("per_row", &Rule::per_row);
  field("order", &Rule::order);
  field("scale_rounding", &Rule::scale_rounding);
  field("scaling", &Rule::scaling);
  field("zero_multiplier", &Rule::zero_multiplier);
  field("negative_zero", &Rule::negative_zero);
  field("nan_code", &Rule::nan_code);
  field("ties", &Rule::ties);
  field("four_over_six", &Rule::four_over_six);
  field("second_scale", &Rule::second_scale);
  field("fused_error", &Rule::fused_error);
  field("flush", &Rule::flush);
  field("decoding", &Rule::decoding);
}

/// A value of a field for a message.
template <class T> [[nodiscard]] std::string field_text(T value) {
  if constexpr (NamedEnum<T>)
    return std::string(to_string(value));
  else if constexpr (std::is_same_v<T, bool>)
    return value ? "yes" : "no";
  else if constexpr (std::is_same_v<T, FormatId>)
    return format(value).name;
  else if constexpr (std::is_same_v<T, float>) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", double(value));
    return text;
  } else
    return std::to_string(int(value));
}

} // namespace nvfp4
