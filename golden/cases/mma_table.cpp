// SPDX-License-Identifier: Apache-2.0
// Which tensor-core instructions each architecture has, and what they are called. Pure host code.
// Sources: PTX ISA 9.1 (mma, wgmma.mma_async, tcgen05.mma target notes) and what ptxas 13.0 accepts.
#include "nvfp4/golden/cases/mma_kinds.hpp"

#include <deque>
#include <string>

namespace nvfp4::golden::cases {
namespace {

using enum Element;
constexpr Element kFp8[] = {e4m3, e5m2};
constexpr Element kF8F6F4[] = {e4m3, e5m2, e3m2, e2m3, e2m1};

/// Keeps unit names alive; equal names are stored once.
const char *keep(const std::string &name) {
  static std::deque<std::string> names;
  for (const std::string &known : names)
    if (known == name) return known.c_str();
  return names.emplace_back(name).c_str();
}

struct Builder {
  std::string arch;
  std::vector<MmaKind> kinds;

  void add(Engine engine, Spelling spelling, int m, int n, int k, Element acc, Element a, Element b,
           const std::string &instruction, Element scale = ue8m0, int scale_block = 0) {
    kinds.push_back({keep(arch + ":" + instruction), m, n, k, format_of(a).bits, format_of(b).bits,
                     format_of(acc).bits, scale_block, a, b, acc, scale, engine, spelling});
  }

  static std::string pair(Element a, Element b) {
    return a == b ? format_of(a).name : std::string(format_of(a).name) + "." + format_of(b).name;
  }

  void mma(int m, int k, Element acc, Element a, Element b, Spelling spelling = Spelling::dense) {
    add(Engine::mma_sync, spelling, m, 8, k, acc, a, b,
        "mma.m" + std::to_string(m) + "n8k" + std::to_string(k) + "." + format_of(acc).name + "." +
            pair(a, b));
  }

  void wgmma(int k, Element acc, Element a, Element b) {
    add(Engine::wgmma, Spelling::dense, 64, 8, k, acc, a, b,
        "wgmma.k" + std::to_string(k) + "." + format_of(acc).name + "." + pair(a, b));
  }

  void tcgen05(int k, Element acc, Element a, Element b, Spelling spelling = Spelling::dense) {
    add(Engine::tcgen05, spelling, 128, 8, k, acc, a, b,
        "tcgen05.k" + std::to_string(k) + "." + format_of(acc).name + "." + pair(a, b));
  }

  /// Block-scaled kinds of either engine: `stem` is "mma.m16n8" or "tcgen05.".
  void scaled(Engine engine, int m, const std::string &stem) {
    for (const Element a : kF8F6F4)
      for (const Element b : kF8F6F4)
        add(engine, Spelling::mxf8f6f4, m, 8, 32, f32, a, b,
            stem + "k32.f32.mxf8f6f4." + pair(a, b) + ".ue8m0.block32", ue8m0, 32);
    add(engine, Spelling::mxf4, m, 8, 64, f32, e2m1, e2m1, stem + "k64.f32.mxf4.ue8m0.block32", ue8m0, 32);
    add(engine, Spelling::mxf4nvf4, m, 8, 64, f32, e2m1, e2m1, stem + "k64.f32.mxf4nvf4.ue4m3.block16", ue4m3,
        16);
    add(engine, Spelling::mxf4nvf4, m, 8, 64, f32, e2m1, e2m1, stem + "k64.f32.mxf4nvf4.ue8m0.block32", ue8m0,
        32);
  }
};

void add_mma_sync(Builder &x, uint32_t features) {
  if (features & kMma16) {
    for (const int k : {16, 8}) x.mma(16, k, f32, f16, f16);
    for (const int k : {16, 8}) x.mma(16, k, f32, bf16, bf16);
    for (const int k : {16, 8}) x.mma(16, k, f16, f16, f16);
    for (const int k : {4, 8}) x.mma(16, k, f32, tf32, tf32);
    x.mma(8, 4, f64, f64, f64);
  }
  if (features & kMmaF64Wide)
    for (const int k : {4, 8, 16}) x.mma(16, k, f64, f64, f64);
  if (features & kMmaFp8)
    for (const Element acc : {f32, f16})
      for (const int k : {32, 16})
        for (const Element a : kFp8)
          for (const Element b : kFp8) x.mma(16, k, acc, a, b);
  if (!(features & kMmaBlock)) return;
  for (const Element acc : {f32, f16})
    for (const Element a : kF8F6F4)
      for (const Element b : kF8F6F4) // the e4m3 and e5m2 pairs exist already, without the kind qualifier
        if (a > e5m2 || b > e5m2 || a < e4m3 || b < e4m3) x.mma(16, 32, acc, a, b, Spelling::f8f6f4);
  x.scaled(Engine::mma_sync, 16, "mma.m16n8");
}

void add_wgmma(Builder &x) {
  x.wgmma(16, f32, f16, f16);
  x.wgmma(16, f32, bf16, bf16);
  x.wgmma(16, f16, f16, f16);
  x.wgmma(8, f32, tf32, tf32);
  for (const Element acc : {f32, f16})
    for (const Element a : kFp8)
      for (const Element b : kFp8) x.wgmma(32, acc, a, b);
}

void add_tcgen05(Builder &x) {
  x.tcgen05(16, f32, f16, f16);
  x.tcgen05(16, f32, bf16, bf16);
  x.tcgen05(16, f16, f16, f16);
  x.tcgen05(8, f32, tf32, tf32);
  for (const Element acc : {f32, f16})
    for (const Element a : kF8F6F4)
      for (const Element b : kF8F6F4) x.tcgen05(32, acc, a, b, Spelling::f8f6f4);
  x.scaled(Engine::tcgen05, 128, "tcgen05.");
}

} // namespace

uint32_t features_of_arch(std::string_view arch) {
  constexpr uint32_t ada = kMma16 | kMmaFp8, hopper = ada | kMmaF64Wide | kCvtSm90;
  constexpr uint32_t blackwell = hopper | kCvtSm100 | kCvtNarrow;
  if (arch == "sm_80" || arch == "sm_86" || arch == "sm_87") return kMma16;
  if (arch == "sm_89") return ada;
  if (arch == "sm_90") return hopper | kWgmma;
  if (arch == "sm_100" || arch == "sm_103") return blackwell | kTcgen05 | kCvtRs;
  if (arch == "sm_110") return blackwell | kTcgen05;
  if (arch == "sm_120" || arch == "sm_121") return blackwell | kMmaBlock;
  return 0;
}

std::vector<MmaKind> kinds_for(std::string_view arch, uint32_t features) {
  Builder x{std::string(arch), {}};
  add_mma_sync(x, features);
  if (features & kWgmma) add_wgmma(x);
  if (features & kTcgen05) add_tcgen05(x);
  return std::move(x.kinds);
}

} // namespace nvfp4::golden::cases
