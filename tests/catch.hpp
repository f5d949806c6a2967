// SPDX-License-Identifier: Apache-2.0
// Catch2, whichever major version is installed: 3 splits its headers, 2 is the one header that Debian 12
// ships.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
