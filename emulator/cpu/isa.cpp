// SPDX-License-Identifier: Apache-2.0
// What the CPU says of itself.
#include "nvfp4/emulator/cpu/choose_isa.hpp"

#include "nvfp4/emulator/config.hpp"

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

Isa choose_isa(std::optional<Isa> asked) {
  if (asked) {
    if (supported(*asked)) return *asked;
    throw Error(std::string("instruction set ") + to_string(*asked) +
                ": this CPU lacks it; leave the choice open or take scalar");
  }
  Isa best = Isa::scalar;
  for (const Isa isa : kIsas)
    if (supported(isa)) best = isa;
  return best;
}

Isa parse_isa(std::string_view name) {
  std::string names;
  for (const Isa isa : kIsas) {
    if (name == to_string(isa)) return isa;
    names += std::string(names.empty() ? "" : ", ") + to_string(isa);
  }
  throw Error("instruction set " + std::string(name) + " is unknown; choose one of " + names);
}

} // namespace nvfp4
