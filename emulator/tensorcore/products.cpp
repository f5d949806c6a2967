// SPDX-License-Identifier: Apache-2.0
// The rows of products and kinds, and the choice of an instruction.
#include "nvfp4/emulator/tensorcore/products.hpp"

#include "nvfp4/emulator/nearest.hpp"

#include <array>
#include <tuple>

namespace nvfp4 {
namespace {

using enum FormatId;

constexpr auto kProducts = std::to_array<Product>({
    {"V100", "sm_70"},
    {"Titan V", "sm_70"},
    {"T4", "sm_75"},
    {"RTX 2080", "sm_75"},
    {"RTX 2080 Ti", "sm_75"},
    {"A100", "sm_80"},
    {"A30", "sm_80"},
    {"A2", "sm_86"},
    {"A10", "sm_86"},
    {"A16", "sm_86"},
    {"A40", "sm_86"},
    {"RTX A6000", "sm_86"},
    {"RTX 3060", "sm_86"},
    {"RTX 3070", "sm_86"},
    {"RTX 3080", "sm_86"},
    {"RTX 3090", "sm_86"},
    {"Jetson AGX Orin", "sm_87"},
    {"Jetson Orin NX", "sm_87"},
    {"Jetson Orin Nano", "sm_87"},
    {"L4", "sm_89"},
    {"L40", "sm_89"},
    {"L40S", "sm_89"},
    {"RTX 6000 Ada", "sm_89"},
    {"RTX 4060", "sm_89"},
    {"RTX 4070", "sm_89"},
    {"RTX 4080", "sm_89"},
    {"RTX 4090", "sm_89"},
    {"H100", "sm_90"},
    {"H200", "sm_90"},
    {"GH200", "sm_90"},
    {"B200", "sm_100"},
    {"GB200", "sm_100"},
    {"B300", "sm_103"},
    {"GB300", "sm_103"},
    {"Jetson Thor", "sm_110"},
    {"Jetson T5000", "sm_110"},
    {"RTX 5050", "sm_120"},
    {"RTX 5060", "sm_120"},
    {"RTX 5060 Ti", "sm_120"},
    {"RTX 5070", "sm_120"},
    {"RTX 5070 Ti", "sm_120"},
    {"RTX 5080", "sm_120"},
    {"RTX 5090", "sm_120"},
    {"RTX PRO 4000 Blackwell", "sm_120"},
    {"RTX PRO 5000 Blackwell", "sm_120"},
    {"RTX PRO 6000 Blackwell", "sm_120"},
    {"GB10", "sm_121"},
    {"DGX Spark", "sm_121"},
});

constexpr auto kKinds = std::to_array<UnitKind>({
    {"nvfp4", e2m1, 16, ue4m3},
    {"mxfp4", e2m1, 32},
    {"mxfp8", e4m3, 32},
    {"mxfp8-e5m2", e5m2, 32},
    {"mxfp6-e2m3", e2m3, 32},
    {"mxfp6-e3m2", e3m2, 32},
    {"nvint4", int4, 16, ue4m3},
    {"mxint4", int4, 32},
    {"mxint8", int8, 32},
    {"dfp16", int16, 32},
    {"amd-fp4", e2m1, 16, ue5m3},
    {"if4", if4, 16, ue4m3f},
    {"mixfp4", mixfp4, 16, ue4m3f},
    {"hif4", s1p2, 64, hif4s},
    {"tetrajet-v2", e2m1, 16, f32},
    {"fp8-1x128", e4m3, 128, f32},
    {"fp8", e4m3},
    {"fp8-e5m2", e5m2},
    {"bf16", bf16},
    {"fp16", f16},
    {"tf32", tf32},
    {"fp64", f64},
});

/// A plain name without the maker's and the line's name before it.
std::string key_of(std::string_view name) {
  std::string s = plain_name(name);
  for (const std::string_view prefix : {"nvidia", "geforce", "tesla"})
    if (s.starts_with(prefix) && s.size() > prefix.size()) s.erase(0, prefix.size());
  return s;
}

/// Instructions in the order in which kernels of today prefer them; "mma" is the last.
int rank_of(const Unit &u) {
  return u.instruction.starts_with("tcgen05.") ? 2 : u.instruction.starts_with("wgmma.") ? 1 : 0;
}

} // namespace

std::span<const Product> products() { return kProducts; }
std::span<const UnitKind> unit_kinds() { return kKinds; }

const Product *find_product(std::string_view name) {
  const std::string wanted = key_of(name);
  for (const Product &p : kProducts)
    if (key_of(p.name) == wanted) return &p;
  return nullptr;
}

const Unit *unit_of_kind(std::string_view arch, const UnitKind &kind) {
  const FormatId acc = kind.element == f64 ? f64 : f32;
  // the kinds of FP4 that are made for it, before those that take it among other formats
  const auto key = [&](const Unit &u) {
    return std::tuple(rank_of(u), u.rule.k, u.instruction.find(".mxf4.") != std::string::npos);
  };
  const Unit *best = nullptr;
  for (const Unit &u : catalogue()) {
    const UnitRule &r = u.rule;
    if (u.arch != arch || r.a != kind.element || r.b != kind.element || r.acc != acc ||
        r.scale_block != kind.scale_block || (kind.scale_block != 0 && r.scale != kind.scale))
      continue;
    if (best == nullptr || key(u) > key(*best)) best = &u;
  }
  return best;
}

std::string kinds_of(std::string_view arch) {
  std::string list;
  for (const UnitKind &kind : kKinds)
    if (unit_of_kind(arch, kind) != nullptr) list += (list.empty() ? "" : ", ") + std::string(kind.name);
  return list;
}

} // namespace nvfp4
