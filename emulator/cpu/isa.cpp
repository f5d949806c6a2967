// SPDX-License-Identifier: Apache-2.0
// What the CPU says of itself, and the environment variable NVFP4_ISA.
#include "nvfp4/emulator/cpu/isa.hpp"

#include "nvfp4/emulator/config.hpp"

#include <cstdlib>
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace nvfp4 {

const char *to_string(Isa isa) {
  constexpr const char *kNames[] = {"scalar", "avx2", "avx512", "neon", "neon_dot"};
  return kNames[size_t(isa)];
}

bool supported(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto has = [](bool x) { return x; };
  if (isa == Isa::avx2) return has(__builtin_cpu_supports("avx2")) && has(__builtin_cpu_supports("fma"));
  if (isa == Isa::avx512)
    return has(__builtin_cpu_supports("avx512f")) && has(__builtin_cpu_supports("avx512bw")) &&
           has(__builtin_cpu_supports("avx512vl")) && has(__builtin_cpu_supports("avx512dq")) &&
           has(__builtin_cpu_supports("avx512vnni"));
#elif defined(__aarch64__)
  if (isa == Isa::neon) return true;
#if defined(__linux__)
  if (isa == Isa::neon_dot) return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#endif
#endif
  return isa == Isa::scalar;
}

Isa choose_isa() {
  const char *asked = std::getenv("NVFP4_ISA");
  if (asked == nullptr || *asked == 0) {
    Isa best = Isa::scalar;
    for (const Isa isa : kIsas)
      if (supported(isa)) best = isa;
    return best;
  }
  std::string names;
  for (const Isa isa : kIsas) {
    names += std::string(names.empty() ? "" : ", ") + to_string(isa);
    if (std::string(asked) != to_string(isa)) continue;
    if (!supported(isa))
      throw Error(std::string("NVFP4_ISA=") + asked +
                  ": this CPU lacks the instructions; unset it or choose scalar");
    return isa;
  }
  throw Error(std::string("NVFP4_ISA=") + asked + " is unknown; choose one of " + names);
}

} // namespace nvfp4
