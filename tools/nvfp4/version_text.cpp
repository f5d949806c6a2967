// SPDX-License-Identifier: Apache-2.0
// Which build this is, and what it finds on this machine.
#include "tools/nvfp4/version_text.hpp"

#include "commit.hpp"
#include "nvfp4/emulator/cpu/choose_isa.hpp"
#include "nvfp4/version.hpp"
#include "tools/environment.hpp"

namespace nvfp4::tool {

std::string version_text(const std::string &program) {
#if defined(__clang__)
  const std::string compiler = "clang " __clang_version__;
#else
  const std::string compiler = "gcc " __VERSION__;
#endif
  std::string sets;
  for (const Isa isa : kIsas)
    if (supported(isa)) sets += std::string(sets.empty() ? "" : ", ") + to_string(isa);
  return program + " " NVFP4_VERSION_STRING " (commit " NVFP4_COMMIT ")\ncompiler: " + compiler +
         "\ninstruction sets: " + sets + "; in use: " + to_string(choose_isa(asked_isa())) + "\nCUDA: " +
#if NVFP4_CUDA
         "built in" NVFP4_CUDA_VERSION;
#else
         "not built";
#endif
}

} // namespace nvfp4::tool
