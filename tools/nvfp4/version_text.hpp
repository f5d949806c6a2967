// SPDX-License-Identifier: Apache-2.0
// What nvfp4 --version prints.
#pragma once
#include <string>

namespace nvfp4::tool {

/// Version and commit, compiler, instruction sets that this CPU runs, CUDA: a line each.
[[nodiscard]] std::string version_text();

} // namespace nvfp4::tool
