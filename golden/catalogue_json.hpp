// SPDX-License-Identifier: Apache-2.0
// The tables of units, conversions and conventions for machines, as `nvfp4 info --json` writes them.
#pragma once
#include <string>

namespace nvfp4::golden {

/// JSON lists of objects, those whose name contains `match`, in the order of the tables.
[[nodiscard]] std::string units_json(const std::string &match = {});
[[nodiscard]] std::string conversions_json(const std::string &match = {});
[[nodiscard]] std::string conventions_json(const std::string &match = {});

} // namespace nvfp4::golden
