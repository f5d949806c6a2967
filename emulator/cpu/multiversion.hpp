// SPDX-License-Identifier: Apache-2.0
// Functions that the compiler builds for several instruction sets and the loader chooses from. Only for loops
// whose results do not depend on it. Internal.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define NVFP4_MULTIVERSION                                                                                   \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline))
#else
#define NVFP4_MULTIVERSION
#endif
