// SPDX-License-Identifier: Apache-2.0
// Medians of the kernels' times beside what the machine allows: copy bandwidth and tensor-core rate, measured
// in the same run.
#include "nvfp4/gpu/check/operands.hpp"
#include "nvfp4/gpu/check/timing.hpp"
#include "nvfp4/gpu/emulated/quantize.hpp"

#include <algorithm>

namespace nvfp4::crosscheck {
namespace {

void time_quantize(double copy_rate, int64_t size) {
  std::vector<float> x(size_t(size * size));
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < size; ++r) {
    Random random{uint64_t(r)};
    for (int64_t i = 0; i < size; ++i) x[size_t(r * size + i)] = random.normal();
  }
  cuda::DeviceBuffer dx, amax;
  dx.upload(x);
  amax.upload(std::vector<float>{5.0f});
  cuda::DeviceBlockScaled q;
  struct Work {
    const char *convention, *what;
    Axis axis = Axis::row;
    int block_rows = 1;
    ElementRounding rounding = ElementRounding::nearest;
    bool hadamard = false, given = false;
  };
  using enum ElementRounding;
  for (const Work &w : {Work{"te", "1x16 nearest, amax included"},
                        Work{"te", "1x16 nearest, amax given", Axis::row, 1, nearest, false, true},
                        Work{"te", "1x16 sr_carry8, amax included", Axis::row, 1, sr_carry8},
                        Work{"te", "1x16 sr_carry8, amax given", Axis::row, 1, sr_carry8, false, true},
                        Work{"te", "1x16 sr_te, amax given", Axis::row, 1, sr_te, false, true},
                        Work{"te", "1x16 sr_exact, amax given", Axis::row, 1, sr_exact, false, true},
                        Work{"te", "16x16 nearest, amax included", Axis::row, 16},
                        Work{"te", "16x16 columnwise, amax included", Axis::col, 16},
                        Work{"te", "columnwise nearest, amax included", Axis::col},
                        Work{"te", "columnwise nearest, amax given", Axis::col, 1, nearest, false, true},
                        Work{"te", "columnwise sr_carry8, amax given", Axis::col, 1, sr_carry8, false, true},
                        Work{"te", "rotated nearest, amax included", Axis::row, 1, nearest, true},
                        Work{"te", "rotated nearest, amax given", Axis::row, 1, nearest, true, true},
                        Work{"te", "columnwise, rotated, amax included", Axis::col, 1, nearest, true},
                        Work{"te", "columnwise, rotated, sr_carry8", Axis::col, 1, sr_carry8, true},
                        Work{"te213", "1x16 nearest, amax given", Axis::row, 1, nearest, false, true},
                        Work{"compressed-tensors", "1x16 nearest, amax included"},
                        Work{"torchao", "1x16 nearest, amax included"},
                        Work{"modelopt", "1x16 nearest, amax included"},
                        Work{"flashinfer", "1x16 nearest, amax given", Axis::row, 1, nearest, false, true},
                        Work{"te-4over6", "1x16 nearest, amax included"},
                        Work{"fouroversix", "16x16 nearest, amax included", Axis::row, 16},
                        Work{"ggml", "1x16 nearest"},
                        Work{"mxfp4", "1x32 nearest"},
                        Work{"mxfp8-e4m3", "1x32 nearest"},
                        Work{"mxfp8-e5m2", "1x32 nearest"},
                        Work{"mxfp8-e4m3", "1x32 sr_carry8", Axis::row, 1, sr_carry8},
                        Work{"mxfp8-e4m3", "columnwise nearest", Axis::col},
                        Work{"mxfp4-ceil", "1x32 nearest"},
                        Work{"mxfp8-e4m3-ceil", "1x32 nearest"}}) {
    const Convention &c = find_convention(w.convention);
    QuantizeOptions o;
    o.axis = w.axis;
    o.block_rows = w.block_rows;
    o.rounding = w.rounding;
    o.hadamard = w.hadamard;
    const bool reads_twice = c.rule.global != GlobalRule::none && !w.given;
    const double t = median_seconds([&] {
      cuda::quantize(dx.as<float>(), size, size, size, c, o, q, nullptr,
                     w.given ? amax.as<float>() : nullptr);
    });
    const double elements = double(size) * double(size);
    const double bytes =
        elements * (reads_twice ? 8 : 4) + double(q.info.rows * (q.info.row_bytes() + q.info.scale_cols()));
    std::printf("time quantize %-16s %-36s %8.3f ms  %6.1f Gelem/s  %7.1f GB/s = %.2f of copy\n",
                w.convention, w.what, t * 1e3, elements / t * 1e-9, bytes / t * 1e-9, bytes / t / copy_rate);
  }
  std::fflush(stdout);
}

void time_ceilings_and_quantization(int64_t size) {
  const int64_t gib = int64_t{1} << 30;
  cuda::DeviceBuffer from(2 * gib), to(2 * gib);
  const double copy = median_seconds([&] {
    cuda::check(cudaMemcpyAsync(to.as<void>(), from.as<void>(), size_t(2 * gib), cudaMemcpyDeviceToDevice),
                "copy");
  });
  const double copy_rate = 4.0 * double(gib) / copy;
  const double bf16 = mma_peak(false), s8 = mma_peak(true);
  std::printf("ceilings: copy %.0f GB/s (read + written); mma.sync BF16 %.0f TFLOP/s, S8 %.0f TOP/s\n",
              copy_rate * 1e-9, bf16 * 1e-12, s8 * 1e-12);
  std::fflush(stdout);
  time_quantize(copy_rate, size);
}

} // namespace

Tally time_twin(int64_t size, const std::string &recorded, const std::string &match) {
  Tally tally;
  cudaDeviceProp p{};
  int driver = 0, runtime = 0, clock = 0;
  cuda::check(cudaGetDeviceProperties(&p, 0), "device properties");
  cuda::check(cudaDriverGetVersion(&driver), "driver version");
  cuda::check(cudaRuntimeGetVersion(&runtime), "runtime version");
  cuda::check(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0), "clock rate");
  std::printf("device %s, %d multiprocessors, %d MHz, CUDA driver %d runtime %d\n", p.name,
              p.multiProcessorCount, clock / 1000, driver, runtime);
  if (match.empty()) time_ceilings_and_quantization(size);

  const int64_t largest = std::max<int64_t>(size, 4096);
  cuda::DeviceBuffer d(largest * largest * 4), paths(sizeof(cuda::Fp4Paths));
  cuda::GemmOutput out;
  out.d = d.as<void>();
  cuda::GemmWorkspace workspace;
  bool timed = false;
  const auto product = [&](const char *name, const HostOperand &a, const HostOperand &b, const char *what,
                           Accumulation model) {
    const std::string label = std::string("gemm ") + name + ' ' + what + " [" + std::to_string(a.rows) + ", " +
                              std::to_string(b.rows) + ", " + std::to_string(a.k) + ']';
    if (label.find(match) == std::string::npos) return;
    timed = true;
    const Unit &unit = find_unit(name);
    const Resident x(a), y(b);
    const double whole = median_seconds(
        [&] { cuda::gemm(unit.rule, x.operand, y.operand, out, model, workspace, nullptr); }, {.rounds = 7});
    const double operations = 2.0 * double(a.rows) * double(b.rows) * double(a.k);
    double prepared = whole;
    if (unit.rule.family == Family::gst_fdpa)
      prepared = median_seconds(
          [&] { cuda::gemm_fp4(unit.rule, workspace.a, workspace.b, out, model, nullptr); }, {.rounds = 7});
    std::printf("time gemm %-22s [%lld, %lld, %lld] %9.3f ms %7.1f TFLOP/s; prepared operands %9.3f ms %7.1f "
                "TFLOP/s\n",
                what, static_cast<long long>(a.rows), static_cast<long long>(b.rows),
                static_cast<long long>(a.k), whole * 1e3, operations / whole * 1e-12, prepared * 1e3,
                operations / prepared * 1e-12);
    if (unit.rule.family == Family::gst_fdpa) {
      cuda::check(cudaMemset(paths.as<void>(), 0, sizeof(cuda::Fp4Paths)), "cudaMemset");
      cuda::gemm_fp4(unit.rule, workspace.a, workspace.b, out, model, nullptr, paths.as<cuda::Fp4Paths>());
      print_paths(what, paths.download<cuda::Fp4Paths>(1)[0]);
    }
    std::fflush(stdout);
  };
  const char *const nvfp4_unit = "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16";
  const UnitRule &rule = find_unit(nvfp4_unit).rule,
                 &mx = find_unit("sm_120:mma.m16n8k64.f32.mxf4.ue8m0.block32").rule;
  for (const Fp4Kind kind :
       {Fp4Kind::quantized, Fp4Kind::lognormal1, Fp4Kind::lognormal3, Fp4Kind::outliers, Fp4Kind::raw}) {
    const char *const names[] = {"nvfp4 quantized", "nvfp4 lognormal 1", "nvfp4 lognormal 3",
                                 "nvfp4 outliers", "nvfp4 raw codes"};
    const int64_t n = kind == Fp4Kind::quantized ? size : size / 2;
    product(nvfp4_unit, fp4_operand(rule, kind, n, n, 1), fp4_operand(rule, kind, n, n, 2), names[int(kind)],
            Accumulation::mmasim);
  }
  if (!recorded.empty())
    for (const RecordedProduct &r : read_products(recorded)) {
      const int64_t n = size / 2;
      product(nvfp4_unit, repeated(r.a, n, n), repeated(r.b, n, n), ("nvfp4 recorded " + r.name).c_str(),
              Accumulation::mmasim);
      // the shape it had: 16,384 tokens, 512 wide; and that of a wider model
      const bool tokens_along_k = r.name == "wgrad";
      for (const int64_t wide : {512, 1024}) {
        const int64_t rows = tokens_along_k ? wide : 16384, k = tokens_along_k ? 16384 : wide;
        product(nvfp4_unit, repeated(r.a, rows, k), repeated(r.b, wide, k), ("nvfp4 recorded " + r.name).c_str(),
                Accumulation::mmasim);
      }
    }
  // few tiles and many steps, as a gradient of weights has them
  for (const auto &[kind, what] : {std::pair{Fp4Kind::quantized, "nvfp4 quantized"}, {Fp4Kind::outliers, "nvfp4 outliers"},
                                   {Fp4Kind::lognormal1, "nvfp4 lognormal 1"}, {Fp4Kind::lognormal3, "nvfp4 lognormal 3"}})
    product(nvfp4_unit, fp4_operand(rule, kind, 512, 16384, 1), fp4_operand(rule, kind, 512, 16384, 2), what,
            Accumulation::mmasim);
  for (const int64_t n : {1024, 2048, 4096})
    product(nvfp4_unit, fp4_operand(rule, Fp4Kind::quantized, n, n, 1),
            fp4_operand(rule, Fp4Kind::quantized, n, n, 2), "nvfp4 quantized", Accumulation::mmasim);
  product(nvfp4_unit, fp4_operand(rule, Fp4Kind::quantized, size / 2, size / 2, 1),
          fp4_operand(rule, Fp4Kind::quantized, size / 2, size / 2, 2), "nvfp4 nadpe", Accumulation::nadpe);
  product("sm_120:mma.m16n8k64.f32.mxf4.ue8m0.block32",
          fp4_operand(mx, Fp4Kind::quantized, size / 2, size / 2, 1),
          fp4_operand(mx, Fp4Kind::quantized, size / 2, size / 2, 2), "mxfp4 quantized",
          Accumulation::mmasim);
  const struct {
    const char *unit;
    int kind;
  } others[] = {{"sm_90:wgmma.k16.f32.bf16", 0},
                {"sm_120:mma.m16n8k16.f16.f16", 0},
                {"sm_90:wgmma.k32.f32.e4m3", 0},
                {"sm_120:mma.m16n8k32.f32.e4m3", 0},
                {"sm_120:mma.m16n8k32.f32.e4m3", 3},
                {"sm_120:mma.m16n8k32.f32.e4m3", 1},
                {"sm_120:mma.m16n8k32.f32.e5m2", 3},
                {"sm_120:mma.m16n8k32.f32.mxf8f6f4.e4m3.ue8m0.block32", 3},
                {"sm_120:mma.m16n8k32.f32.mxf8f6f4.e4m3.ue8m0.block32", 1},
                {"sm_90:mma.m16n8k32.f32.e4m3", 0},
                {"sm_90:wgmma.k32.f16.e4m3", 0},
                {"sm_120:mma.m16n8k32.f16.e4m3", 0},
                {"sm_90:wgmma.k8.f32.tf32", 0}};
  for (const auto &[name, kind] : others) {
    const UnitRule &r = find_unit(name).rule;
    const int64_t n = 2048;
    const char *const kinds[] = {"", " spread", "", " full"};
    product(name, dense_operand(r, false, kind, n, n, 5), dense_operand(r, true, kind, n, n, 6),
            (std::string(name) + kinds[kind]).c_str(), Accumulation::mmasim);
  }

  if (!timed) throw Error("speed twin: no product's line has the text '" + match + "' of --match");
  if (!match.empty()) return tally;
  // the large product against the CPU, every word
  const Tally t = compare_product(find_unit(nvfp4_unit), fp4_operand(rule, Fp4Kind::quantized, size, size, 1),
                                  fp4_operand(rule, Fp4Kind::quantized, size, size, 2), Accumulation::mmasim,
                                  "large", workspace, nullptr);
  t.print(("gemm " + std::to_string(size) + "^3 against the CPU").c_str());
  tally.add(t);
  return tally;
}

} // namespace nvfp4::crosscheck
