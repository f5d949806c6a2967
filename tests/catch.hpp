// SPDX-License-Identifier: Apache-2.0
// Catch2, whichever major version is installed: 2 is the one header that Debian 12 ships; 3 splits its
// headers and has other names for what the tests use, which get those of 2 here.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>

namespace Catch {
inline auto Contains(const std::string &part) { return Matchers::ContainsSubstring(part); }
using Matchers::Equals;
using Matchers::StartsWith;
} // namespace Catch
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
