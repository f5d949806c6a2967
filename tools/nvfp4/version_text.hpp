// SPDX-License-Identifier: Apache-2.0
// What nvfp4 --version prints.
#pragma once
#include <string>

namespace nvfp4::tool {

/// Name of the program, version and commit, compiler, instruction sets that this CPU runs, CUDA: a line each.
[[nodiscard]] std::string version_text(const std::string &program);

} // namespace nvfp4::tool
