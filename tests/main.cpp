// SPDX-License-Identifier: Apache-2.0
// The one translation unit with Catch2's main; with version 3 the library has it.
#if !__has_include(<catch2/catch_all.hpp>)
#define CATCH_CONFIG_MAIN
#endif
#include "tests/catch.hpp"
