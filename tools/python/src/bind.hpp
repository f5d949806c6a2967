// SPDX-License-Identifier: Apache-2.0
// What the module is made of: one file and one function for each area.
#pragma once
#include "tools/python/src/python.hpp"

namespace nvfp4::python {

void bind_linear(Module &m);
void bind_quantize(Module &m);

inline constexpr void (*binders[])(Module &) = {bind_linear, bind_quantize};

} // namespace nvfp4::python
