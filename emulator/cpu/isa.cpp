// SPDX-License-Identifier: Apache-2.0
// CPUID and the environment variable NVFP4_ISA.
#include "nvfp4/emulator/cpu/isa.hpp"

#include "nvfp4/emulator/config.hpp"

#include <cstdlib>

namespace nvfp4 {

const char *to_string(Isa isa) {
  return isa == Isa::scalar ? "scalar" : isa == Isa::avx2 ? "avx2" : "avx512";
}

bool supported(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto has = [](bool x) { return x; };
  switch (isa) {
  case Isa::scalar: return true;
  case Isa::avx2: return has(__builtin_cpu_supports("avx2")) && has(__builtin_cpu_supports("fma"));
  case Isa::avx512:
    return has(__builtin_cpu_supports("avx512f")) && has(__builtin_cpu_supports("avx512bw")) &&
           has(__builtin_cpu_supports("avx512vl")) && has(__builtin_cpu_supports("avx512dq")) &&
           has(__builtin_cpu_supports("avx512vnni"));
  }
#endif
  return isa == Isa::scalar;
}

Isa choose_isa() {
  const char *asked = std::getenv("NVFP4_ISA");
  if (asked == nullptr || *asked == 0) {
    for (const Isa isa : {Isa::avx512, Isa::avx2})
      if (supported(isa)) return isa;
    return Isa::scalar;
  }
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    if (std::string(asked) != to_string(isa)) continue;
    if (!supported(isa))
      throw Error(std::string("NVFP4_ISA=") + asked +
                  ": this CPU lacks the instructions; unset it or choose scalar");
    return isa;
  }
  throw Error(std::string("NVFP4_ISA=") + asked + " is unknown; choose scalar, avx2 or avx512");
}

} // namespace nvfp4
