// SPDX-License-Identifier: Apache-2.0
// Products, GPU against CPU: FP4 on operands of every kind, so that every path of the fast engine is taken,
// in ragged shapes and under all accumulation models; the other families on small shapes; epilogues.
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"
#include "nvfp4/gpu/check/operands.hpp"
#include "nvfp4/gpu/emulated/gemm_fp4_small.hpp"

#include <cstring>
#include <memory>
#include <utility>

namespace nvfp4::crosscheck {
namespace {

struct Shape {
  int64_t m, n, k;
};

constexpr const char *kFp4Units[] = {"sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16",
                                     "sm_100:tcgen05.k64.f32.mxf4nvf4.ue8m0.block16",
                                     "sm_120:mma.m16n8k64.f32.mxf4.ue8m0.block32"};
constexpr Shape kFp4Shapes[] = {{1, 1, 32},      {1, 1, 64},       {17, 9, 96},
                                {128, 128, 64},  {129, 257, 224},  {17, 9, 1024},
                                {33, 100, 2048}, {256, 130, 1024}, {40, 24, 8192}};

/// A path that none of these operands took is a mismatch: it was not compared with the CPU at all.
void expect_paths(Tally &t, const cuda::Fp4Paths &p, const Unit &unit, Accumulation model, bool brief) {
  cudaDeviceProp device{};
  cuda::check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  const bool frames = device.major == 9, hardware = model == Accumulation::mmasim;
  const struct {
    const char *name;
    unsigned long long count;
    bool wanted;
  } rows[] = {
      {"fast tiles", p.tiles_fast, true},
      {"mostly fast tiles", p.tiles_mostly, frames && (hardware || model == Accumulation::exact)},
      {"steps in halves", p.halved, frames && (hardware || model == Accumulation::exact)},
      {"fragments apart", p.apart, frames && hardware && !brief},
      {"carried tiles", p.tiles_carried, frames && hardware && !brief},
      {"carried steps", p.carried, frames && hardware && !brief},
      {"outgrown pieces", p.outgrown, frames && hardware && !brief && unit.rule.scale == FormatId::ue4m3},
      {"framed tiles", p.tiles_framed, frames && !brief && (hardware || model == Accumulation::exact)},
      {"mixed tiles", p.tiles_mixed, true},
      {"summed steps", p.summed, true},
      {"framed steps", p.framed, frames && !brief && (hardware || model == Accumulation::exact)},
      {"guarded steps", p.guarded, frames && hardware && !brief},
      {"repaired steps", p.repaired, frames && hardware && !brief},
      {"split steps", p.split, true},
      {"FP64 steps", p.wide, !brief},
      {"aligned steps", p.aligned, hardware && !brief},
      {"defined steps", p.defined,
       !brief && (model == Accumulation::nadpe || model == Accumulation::tcgen05_model)}};
  for (const auto &row : rows)
    if (row.wanted && row.count == 0) t.mismatch(std::string("no operand took the path of ") + row.name);
}

/// Nothing negative, and a large block in the same place of every fourth step of every row: tiles are carried until their
/// accumulators are too large for it.
HostOperand growing_operand(const UnitRule &rule, int64_t rows, int64_t k, uint64_t seed) {
  HostOperand h = fp4_operand(rule, Fp4Kind::quantized, rows, k, seed);
  for (uint8_t &two : h.codes) two &= 0x77;
  const int64_t step = 64 / rule.scale_block, blocks = k / rule.scale_block;
  for (size_t i = 0; i < h.scales.size(); ++i)
    h.scales[i] = uint8_t(encode(rule.scale, int64_t(i) % blocks % (4 * step) == 0 ? 448.0f : 1.0f, Rounding::upward));
  return h;
}

Tally check_fp4(cuda::DeviceBuffer &paths, bool brief, const std::string &match) {
  Tally all;
  cuda::GemmWorkspace workspace;
  uint64_t seed = 11;
  for (const char *name : kFp4Units) {
    const Unit &unit = find_unit(name);
    if (unit.name().find(match) == std::string::npos) continue;
    for (const Accumulation model : enumerators<Accumulation>()) {
      Tally t;
      cuda::check(cudaMemset(paths.as<void>(), 0, sizeof(cuda::Fp4Paths)), "cudaMemset");
      for (int kind = 0; kind < kFp4Kinds; ++kind)
        for (const Shape &s : kFp4Shapes) {
          const int64_t most = Fp4Kind(kind) == Fp4Kind::tokens   ? 17 * 9 * 1024
                               : Fp4Kind(kind) == Fp4Kind::spread ? 128 * 128 * 64
                                                                  : 17 * 9 * 96;
          if (brief && s.m * s.n * s.k > most) continue;
          // B of another kind now and then, so that empty and wide rows meet every other
          const Fp4Kind other = Fp4Kind(seed % 3 == 0 ? int(seed / 3) % kFp4Kinds : kind);
          const HostOperand a = fp4_operand(unit.rule, Fp4Kind(kind), s.m, s.k, seed++);
          const HostOperand b = fp4_operand(unit.rule, other, s.n, s.k, seed++);
          t.add(compare_product(unit, a, b, model,
                                "kind " + std::to_string(kind) + "/" + std::to_string(int(other)), workspace,
                                paths.as<cuda::Fp4Paths>()));
        }
      if (!brief)
        t.add(compare_product(unit, growing_operand(unit.rule, 40, 16384, seed),
                              growing_operand(unit.rule, 24, 16384, seed + 1), model, "growing", workspace,
                              paths.as<cuda::Fp4Paths>()));
      const cuda::Fp4Paths taken = paths.download<cuda::Fp4Paths>(1)[0];
      expect_paths(t, taken, unit, model, brief);
      const std::string what = "gemm " + unit.instruction + " " + std::string(to_string(model));
      t.print(what.c_str());
      print_paths("these", taken);
      all.add(t);
    }
  }
  return all;
}

/// What one launch prepares and multiplies for many small operands and products, against one by one, which
/// check_fp4 holds to the CPU.
Tally check_small(bool brief, const std::string &match) {
  Tally all;
  uint64_t seed = 901;
  for (const char *name : kFp4Units) {
    const Unit &unit = find_unit(name);
    if (unit.name().find(match) == std::string::npos) continue;
    Tally t;
    for (const Accumulation model : enumerators<Accumulation>())
      for (int kind = 0; kind < kFp4Kinds; ++kind) {
        if (brief && (kind + int(model)) % 3 != 0) continue;
        struct One {
          Resident a, b;
          cuda::Fp4Operand single_a, single_b, small_a, small_b;
          cuda::DeviceBuffer d[3];

          One(const HostOperand &x, const HostOperand &y) : a(x), b(y) {}
        };
        std::vector<std::unique_ptr<One>> ones;
        std::vector<cuda::PrepareRequest> prepare;
        std::vector<cuda::SmallProduct> products;
        for (const Shape &s : kFp4Shapes) {
          const Fp4Kind other = Fp4Kind(seed % 3 == 0 ? int(seed / 3) % kFp4Kinds : kind);
          const HostOperand a = fp4_operand(unit.rule, Fp4Kind(kind), s.m, s.k, seed++),
                            b = fp4_operand(unit.rule, other, s.n, s.k, seed++);
          ones.push_back(std::make_unique<One>(a, b));
          One &o = *ones.back();
          if (!cuda::prepares_small(o.a.operand) || !cuda::prepares_small(o.b.operand)) {
            ones.pop_back();
            continue;
          }
          cuda::prepare_fp4(unit.rule, o.a.operand, o.single_a, nullptr);
          cuda::prepare_fp4(unit.rule, o.b.operand, o.single_b, nullptr);
          prepare.push_back({&unit.rule, o.a.operand, &o.small_a});
          prepare.push_back({&unit.rule, o.b.operand, &o.small_b});
        }
        cuda::prepare_small(prepare, nullptr);
        for (const auto &o : ones) {
          cuda::GemmOutput out;
          out.accumulators = true;
          const cuda::Fp4Operand *const sides[2][2] = {{&o->single_a, &o->single_b},
                                                       {&o->small_a, &o->small_b}};
          for (int i = 0; i < 3; ++i) {
            o->d[i].reserve(o->a.operand.rows * o->b.operand.rows * 4);
            cuda::check(cudaMemset(o->d[i].as<void>(), 0x55, size_t(o->d[i].size())), "cudaMemset");
            out.d = o->d[i].as<void>();
            if (i < 2) cuda::gemm_fp4(unit.rule, *sides[i][0], *sides[i][1], out, model, nullptr);
          }
          if (cuda::multiplies_small(o->small_a, o->small_b))
            products.push_back({.rule = &unit.rule,
                                .a = &o->small_a,
                                .b = &o->small_b,
                                .output = out,
                                .accumulation = model});
        }
        if (products.size() < 5) t.mismatch("fewer than five of the products were small");
        cuda::gemm_fp4_small(products, nullptr);
        for (const auto &o : ones) {
          const int64_t outputs = o->a.operand.rows * o->b.operand.rows;
          const std::vector<uint32_t> want = o->d[0].download<uint32_t>(outputs);
          for (int i = 1; i < 3; ++i) {
            if (i == 2 && !cuda::multiplies_small(o->small_a, o->small_b)) continue;
            const std::vector<uint32_t> got = o->d[i].download<uint32_t>(outputs);
            t.values += uint64_t(outputs);
            for (size_t at = 0; at < got.size(); ++at)
              if (got[at] != want[at])
                t.mismatch(unit.name() + (i == 1 ? " prepared" : " multiplied") + " with others, kind " +
                           std::to_string(kind) + ", output " + std::to_string(at));
          }
        }
      }
    t.print(("small products " + unit.instruction).c_str());
    all.add(t);
  }
  return all;
}

/// Units of which one operand or another must meet every path of products in parts.
[[nodiscard]] bool in_parts(const UnitRule &r) {
  cudaDeviceProp device{};
  cuda::check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  return device.major == 9 && r.link == 32 && r.fraction_bits == 25 && r.output == Output::rz_f32 &&
         (r.family == Family::fdpa || r.family == Family::st_fdpa);
}

Tally check_dense(bool brief, const std::string &match) {
  Tally all;
  cuda::GemmWorkspace workspace;
  cuda::DeviceBuffer paths(sizeof(cuda::Fp4Paths));
  uint64_t seed = 500;
  for (const char *name : {"sm_90:wgmma.k16.f32.bf16",
                           "sm_90:mma.m16n8k16.f32.f16",
                           "sm_80:mma.m16n8k16.f32.bf16",
                           "sm_120:mma.m16n8k16.f32.bf16",
                           "sm_90:mma.m16n8k8.f32.bf16",
                           "sm_100:mma.m16n8k8.f32.f16",
                           "sm_90:wgmma.k32.f32.e4m3",
                           "sm_90:wgmma.k32.f32.e5m2",
                           "sm_90:wgmma.k32.f32.e5m2.e4m3",
                           "sm_120:mma.m16n8k32.f32.e4m3",
                           "sm_100:tcgen05.k32.f32.e5m2",
                           "sm_100:tcgen05.k32.f32.e5m2.e3m2",
                           "sm_120:mma.m16n8k32.f32.mxf8f6f4.e4m3.ue8m0.block32",
                           "sm_120:mma.m16n8k32.f32.mxf8f6f4.e5m2.ue8m0.block32",
                           "sm_120:mma.m16n8k32.f32.mxf8f6f4.e2m1.e4m3.ue8m0.block32",
                           "sm_90:mma.m16n8k32.f32.e4m3",
                           "sm_90:wgmma.k16.f16.f16",
                           "sm_120:mma.m16n8k16.f16.f16",
                           "sm_90:mma.m16n8k8.f16.f16",
                           "sm_80:mma.m16n8k8.f16.f16",
                           "sm_90:mma.m16n8k16.f32.e4m3.e5m2",
                           "sm_90:mma.m16n8k32.f32.e5m2.e4m3",
                           "sm_90:mma.m16n8k16.f16.e5m2",
                           "sm_90:mma.m16n8k32.f16.e4m3",
                           "sm_89:mma.m16n8k32.f32.e4m3",
                           "sm_89:mma.m16n8k32.f16.e4m3.e5m2",
                           "sm_90:wgmma.k32.f16.e4m3",
                           "sm_120:mma.m16n8k32.f16.e4m3",
                           "sm_120:mma.m16n8k32.f16.e5m2",
                           "sm_90:mma.m16n8k4.f32.tf32",
                           "sm_90:wgmma.k8.f32.tf32",
                           "sm_90:mma.m8n8k4.f64.f64",
                           "sm_120:mma.m16n8k32.f32.e3m2"}) {
    const Unit *unit = nullptr;
    for (const Unit &u : catalogue())
      if (u.name().rfind(name, 0) == 0) {
        unit = &u;
        break;
      }
    if (unit == nullptr) throw Error(std::string("no unit ") + name);
    if (unit->name().find(match) == std::string::npos || (brief && !in_parts(unit->rule))) continue;
    Tally t;
    cuda::check(cudaMemset(paths.as<void>(), 0, sizeof(cuda::Fp4Paths)), "cudaMemset");
    for (int kind = 0; kind < kDenseKinds; ++kind)
      for (const Shape &s : {Shape{1, 1, 32}, Shape{65, 33, 64}, Shape{70, 130, 96}, Shape{64, 64, 512},
                             Shape{200, 300, 1024}}) {
        if (brief && s.m * s.n * s.k > 65 * 33 * 64) continue;
        const HostOperand a = dense_operand(unit->rule, false, kind, s.m, s.k, seed++);
        const HostOperand b = dense_operand(unit->rule, true, kind, s.n, s.k, seed++);
        t.add(compare_product(*unit, a, b, Accumulation::mmasim, "kind " + std::to_string(kind), workspace,
                              paths.as<cuda::Fp4Paths>()));
      }
    const cuda::Fp4Paths p = paths.download<cuda::Fp4Paths>(1)[0];
    const bool narrow = format(unit->rule.a).exponent_bits + format(unit->rule.b).exponent_bits <= 6;
    if (in_parts(unit->rule) && !brief)
      for (const auto &[what, count] : {std::pair{"tiles in parts", p.tiles_framed},
                                        {"steps in parts", p.framed},
                                        {"tiles left", narrow ? 1 : p.tiles_mixed},
                                        {"repaired steps", narrow ? 1 : p.repaired}})
        if (count == 0) t.mismatch(std::string("no operand took the path of ") + what);
    t.print(("gemm " + unit->name()).c_str());
    if (in_parts(unit->rule)) print_paths("these", p);
    all.add(t);
  }
  return all;
}

/// 54 and 90 tiles of 128 x 128: with 132 multiprocessors, narrow and wide ones.
constexpr struct TileCase {
  const char *name;
  int64_t m, n;
} kTileCases[] = {{"narrow", 1100, 700}, {"wide", 1100, 1270}};

/// A product of more tiles than are small: rows again and again, so that outputs are those of a small product, which
/// check_fp4 and check_recorded hold to the CPU.
void compare_tiles(Tally &t, const TileCase &size, const Unit &unit, const HostOperand &a, const HostOperand &b,
                   Accumulation model, const std::string &what, cuda::Fp4Paths *paths) {
  static cuda::GemmWorkspace workspace;
  const auto product = [&](const HostOperand &x, const HostOperand &y, cuda::Fp4Paths *counts) {
    cuda::DeviceBuffer d(x.rows * y.rows * 4);
    cuda::GemmOutput out;
    out.accumulators = true;
    out.d = d.as<void>();
    const Resident rx(x), ry(y);
    cuda::gemm(unit.rule, rx.operand, ry.operand, out, model, workspace, nullptr, counts);
    return d.download<uint32_t>(x.rows * y.rows);
  };
  const std::vector<uint32_t> want = product(a, b, nullptr),
                              got = product(repeated(a, size.m, a.k), repeated(b, size.n, b.k), paths);
  t.values += uint64_t(got.size());
  for (int64_t i = 0; i < size.m; ++i)
    for (int64_t j = 0; j < size.n; ++j)
      if (got[size_t(i * size.n + j)] != want[size_t(i % a.rows * b.rows + j % b.rows)])
        t.mismatch(unit.name() + ' ' + size.name + ' ' + std::string(to_string(model)) + ", " + what + ", output " +
                   std::to_string(i) + ", " + std::to_string(j));
}

/// All kinds of operands on both sides, and with friendly ones; every path that ue4m3 operands take must be met.
Tally check_tile_sizes(cuda::DeviceBuffer &paths, bool brief, const std::string &match) {
  Tally all;
  uint64_t seed = 1701;
  for (const char *name : kFp4Units) {
    const Unit &unit = find_unit(name);
    if (unit.name().find(match) == std::string::npos) continue;
    for (const TileCase &size : kTileCases) {
      Tally t;
      cuda::check(cudaMemset(paths.as<void>(), 0, sizeof(cuda::Fp4Paths)), "cudaMemset");
      constexpr int64_t kRows = 250, kColumns = 190;
      const auto compare = [&](Accumulation model, Fp4Kind first, Fp4Kind second, int64_t k) {
        const HostOperand a = fp4_operand(unit.rule, first, kRows, k, seed++), b = fp4_operand(unit.rule, second, kColumns, k, seed++);
        compare_tiles(t, size, unit, a, b, model, "kinds " + std::to_string(int(first)) + "/" + std::to_string(int(second)),
                      paths.as<cuda::Fp4Paths>());
      };
      for (const Accumulation model : enumerators<Accumulation>()) {
        if (brief) { // for compute-sanitizer
          if (model != Accumulation::mmasim) continue;
          for (const Fp4Kind kind : {Fp4Kind::outliers, Fp4Kind::tokens}) compare(model, kind, Fp4Kind::quantized, 128);
          continue;
        }
        for (int kind = 0; kind < kFp4Kinds; ++kind) {
          compare(model, Fp4Kind(kind), Fp4Kind(kind), 1120);
          if (kind == 0) continue;
          compare(model, Fp4Kind(kind), Fp4Kind::quantized, 2048);
          compare(model, Fp4Kind::quantized, Fp4Kind(kind), 2048);
        }
        compare_tiles(t, size, unit, growing_operand(unit.rule, kRows, 16384, seed), growing_operand(unit.rule, kColumns, 16384, seed + 1),
                      model, "growing", paths.as<cuda::Fp4Paths>());
      }
      const cuda::Fp4Paths taken = paths.download<cuda::Fp4Paths>(1)[0];
      const bool frames = taken.tiles_framed + taken.tiles_carried != 0; // sm_90
      const bool ue4m3 = unit.rule.scale == FormatId::ue4m3; // the others' operands do not take all of it
      for (const auto &[what, count, wanted] :
           {std::tuple{"fast tiles", taken.tiles_fast, true}, {"mostly fast tiles", taken.tiles_mostly, ue4m3},
            {"steps in halves", taken.halved, ue4m3}, {"fragments apart", taken.apart, ue4m3},
            {"carried tiles", taken.tiles_carried, true}, {"carried steps", taken.carried, true},
            {"outgrown pieces", taken.outgrown, ue4m3}, {"framed steps", taken.framed, true},
            {"guarded steps", taken.guarded, true}, {"mixed tiles", taken.tiles_mixed, true}})
        if (frames && !brief && wanted && count == 0) t.mismatch(std::string("no operand took the path of ") + what);
      t.print(("gemm of " + std::string(size.name) + " tiles " + unit.instruction).c_str());
      print_paths("these", taken);
      all.add(t);
    }
  }
  return all;
}

/// Products of operands that a model made, as they are and again and again along K, so that accumulators
/// grow.
Tally check_recorded(const std::string &path) {
  Tally all;
  cuda::GemmWorkspace workspace;
  cuda::DeviceBuffer paths(sizeof(cuda::Fp4Paths));
  const Unit &unit = find_unit(kFp4Units[0]);
  for (const RecordedProduct &p : read_products(path)) {
    Tally t;
    cuda::check(cudaMemset(paths.as<void>(), 0, sizeof(cuda::Fp4Paths)), "cudaMemset");
    for (const Accumulation model : enumerators<Accumulation>())
      for (const int64_t k : {p.a.k, 16 * p.a.k})
        t.add(compare_product(unit, repeated(p.a, p.a.rows, k), repeated(p.b, p.b.rows, k), model, p.name,
                              workspace, paths.as<cuda::Fp4Paths>()));
    for (const TileCase &size : kTileCases)
      compare_tiles(t, size, unit, p.a, p.b, Accumulation::mmasim, p.name, paths.as<cuda::Fp4Paths>());
    t.print(("gemm recorded " + p.name).c_str());
    print_paths("these", paths.download<cuda::Fp4Paths>(1)[0]);
    all.add(t);
  }
  return all;
}

/// alpha, beta and every output format against GemmPlan::run.
Tally check_epilogue() {
  Tally t;
  cuda::GemmWorkspace workspace;
  for (const char *name :
       {kFp4Units[0], "sm_90:wgmma.k16.f32.bf16", "sm_90:wgmma.k32.f32.e4m3", "sm_120:mma.m16n8k16.f16.f16",
        "sm_120:mma.m16n8k32.f32.mxf8f6f4.e4m3.ue8m0.block32", "sm_90:mma.m8n8k4.f64.f64"}) {
    const Unit &unit = find_unit(name);
    const bool fp4 = unit.rule.family == Family::gst_fdpa, f64 = unit.rule.acc == FormatId::f64;
    const int64_t m = 70, n = 45, k = 128;
    const HostOperand a = fp4 ? fp4_operand(unit.rule, Fp4Kind::outliers, m, k, 3)
                              : dense_operand(unit.rule, false, 2, m, k, 3);
    const HostOperand b = fp4 ? fp4_operand(unit.rule, Fp4Kind::nan_scales, n, k, 4)
                              : dense_operand(unit.rule, true, 2, n, k, 4);
    const Resident x(a), y(b);
    std::vector<uint8_t> c(size_t(m * n * (f64 ? 8 : 4)));
    Random random{9};
    for (int64_t i = 0; i < m * n; ++i) {
      const float g = random.normal();
      const double wide = double(g);
      std::memcpy(c.data() + i * (f64 ? 8 : 4), f64 ? static_cast<const void *>(&wide) : &g, f64 ? 8 : 4);
    }
    cuda::DeviceBuffer dc, dd(m * n * 8), dalpha;
    dc.upload(c);
    dalpha.upload(std::vector<float>{0.37f});
    for (const FormatId out : {FormatId::f32, FormatId::bf16, FormatId::f16, FormatId::f64})
      for (const float beta : {0.0f, -1.25f})
        for (const bool on_device : {false, true}) {
          if ((out == FormatId::f64) != f64) continue;
          GemmOptions o;
          o.alpha = on_device ? 0.37f : 1.5e-3f;
          o.beta = beta;
          o.out = out;
          const GemmResult want = GemmPlan(unit, o).run(
              make_operand(unit, Side::a, RawCodes{m, k, a.codes}, RawScales(a.scales, ScaleLayout::linear)),
              make_operand(unit, Side::b, RawCodes{n, k, b.codes}, RawScales(b.scales, ScaleLayout::linear)),
              {.c = c});
          cuda::GemmOutput g;
          g.d = dd.as<void>();
          g.out = out;
          g.alpha = o.alpha;
          g.beta = beta;
          g.c = dc.as<void>();
          if (on_device) g.device_alpha = dalpha.as<float>();
          cuda::gemm(unit.rule, x.operand, y.operand, g, Accumulation::mmasim, workspace, nullptr);
          const std::vector<uint8_t> got = dd.download<uint8_t>(int64_t(want.words.size()));
          t.values += uint64_t(m * n);
          for (size_t i = 0; i < got.size(); ++i)
            if (got[i] != want.words[i])
              t.mismatch(unit.name() + " epilogue to " + format(out).name + ", byte " + std::to_string(i));
        }
  }
  t.print("gemm epilogues");
  return t;
}

/// Chains that continue accumulators of any bits, and of K = 0.
Tally check_start() {
  Tally t;
  cuda::GemmWorkspace workspace;
  Random random{77};
  for (const char *name : {kFp4Units[0], "sm_90:wgmma.k16.f32.bf16", "sm_90:wgmma.k32.f32.e4m3",
                           "sm_90:wgmma.k16.f16.f16", "sm_90:mma.m8n8k4.f64.f64"}) {
    const Unit &unit = find_unit(name);
    const bool fp4 = unit.rule.family == Family::gst_fdpa;
    const FormatId acc = unit.rule.acc;
    for (const int64_t k : {int64_t{0}, int64_t{128}}) {
      const int64_t m = 37, n = 29;
      const HostOperand a = fp4 ? fp4_operand(unit.rule, Fp4Kind::outliers, m, k, 31)
                                : dense_operand(unit.rule, false, 2, m, k, 31);
      const HostOperand b =
          fp4 ? fp4_operand(unit.rule, Fp4Kind::raw, n, k, 32) : dense_operand(unit.rule, true, 2, n, k, 32);
      std::vector<uint64_t> start(size_t(m * n));
      for (uint64_t &word : start)
        word =
            random.below(3) == 0 ? random() >> (64 - format(acc).storage_bits) : encode(acc, random.normal());
      t.add(
          compare_product(unit, a, b, Accumulation::mmasim, "from accumulators", workspace, nullptr, start));
    }
  }
  t.print("gemm from accumulators");
  return t;
}

} // namespace

Tally check_gemm(bool large, bool brief, const std::string &recorded, const std::string &match) {
  cuda::DeviceBuffer paths(sizeof(cuda::Fp4Paths));
  Tally all = check_fp4(paths, brief, match);
  all.add(check_tile_sizes(paths, brief, match));
  all.add(check_small(brief, match));
  all.add(check_dense(brief, match));
  if (match.empty()) {
    all.add(check_epilogue());
    all.add(check_start());
  }
  const Unit &unit = find_unit(kFp4Units[0]);
  const auto matches = [&](const Unit &u) { return u.name().find(match) != std::string::npos; };
  if (!recorded.empty() && matches(unit)) all.add(check_recorded(recorded));
  if (!large) return all;
  cuda::GemmWorkspace workspace;
  for (const Fp4Kind kind :
       {Fp4Kind::quantized, Fp4Kind::lognormal1, Fp4Kind::lognormal3, Fp4Kind::outliers, Fp4Kind::raw}) {
    if (!matches(unit)) break;
    cuda::check(cudaMemset(paths.as<void>(), 0, sizeof(cuda::Fp4Paths)), "cudaMemset");
    const int64_t size = 4096;
    const Tally t = compare_product(unit, fp4_operand(unit.rule, kind, size, size, 21),
                                    fp4_operand(unit.rule, kind, size, size, 22), Accumulation::mmasim,
                                    "large", workspace, paths.as<cuda::Fp4Paths>());
    t.print(("gemm 4096^3 kind " + std::to_string(int(kind))).c_str());
    print_paths("these", paths.download<cuda::Fp4Paths>(1)[0]);
    all.add(t);
  }
  for (const char *name :
       {"sm_120:mma.m16n8k32.f32.e4m3", "sm_120:mma.m16n8k32.f32.e5m2",
        "sm_120:mma.m16n8k32.f32.mxf8f6f4.e4m3.ue8m0.block32", "sm_120:mma.m16n8k16.f16.f16"}) {
    const Unit &wide = find_unit(name);
    if (!matches(wide)) continue;
    const int64_t size = 2048;
    cuda::check(cudaMemset(paths.as<void>(), 0, sizeof(cuda::Fp4Paths)), "cudaMemset");
    const Tally t = compare_product(wide, dense_operand(wide.rule, false, 3, size, size, 23),
                                    dense_operand(wide.rule, true, 3, size, size, 24), Accumulation::mmasim,
                                    "large", workspace, paths.as<cuda::Fp4Paths>());
    t.print((std::string("gemm 2048^3 ") + name).c_str());
    print_paths("these", paths.download<cuda::Fp4Paths>(1)[0]);
    all.add(t);
  }
  return all;
}

} // namespace nvfp4::crosscheck
