// SPDX-License-Identifier: Apache-2.0
// nvfp4-gpu all: every comparison that the GPU at hand allows, in one call.
#include "nvfp4/gpu/capture/run_tiles.hpp"
#include "nvfp4/gpu/check/blackwell.hpp"
#include "nvfp4/gpu/check/hopper.hpp"
#include "nvfp4/gpu/check/training.hpp"
#include "nvfp4/gpu/models/backend.hpp"
#include "nvfp4/gpu/program/program.hpp"

#include <memory>

namespace nvfp4::crosscheck {
namespace {

/// Mismatches that a check has printed, as a tally; it counts no values.
Tally printed(const char *what, int64_t wrong) {
  Tally t;
  t.mismatches = uint64_t(wrong);
  if (wrong != 0) t.first = what;
  return t;
}

Tally everything(bool quick, int threads) {
  Tally total;
  const auto part = [&](const char *name, const Tally &t) {
    t.print((std::string("== ") + name).c_str());
    total.add(t);
  };
  if (!quick) part("elements", check_elements());
  part("mma", check_mma(quick ? 2 : 8, ""));
  part("quantize", check_quantize(quick ? 0 : 1));
  part("gemm", check_gemm(false, quick));
  part("kernels", check_kernels(""));
  part("linear", check_linear(""));
  part("units", check_units(quick ? 20000 : 1000000, 2, ""));
  if (has_hopper()) {
    part("hopper", check_hopper_gemm(quick ? 1100 : 8192));
    part("attention", check_attention(quick ? 600 : 4096));
    part("gla", check_gla(quick));
  }
  if (cuda::blackwell::native_kernel())
    part("blackwell check", printed("blackwell check", cuda::blackwell::check_all(quick ? 512 : 4096)));
  else
    part("blackwell simulate", printed("blackwell simulate", cuda::blackwell::simulate(quick ? 128 : 512)));
  part("training", check_training(default_runs(quick ? 4 : 200, quick ? 2 : 20), threads));
  part("images", check_image_training(quick ? 2 : 20, threads));
  return total;
}

} // namespace

void register_all(CLI::App &app, int &exit_code) {
  auto quick = std::make_shared<bool>(false);
  auto threads = std::make_shared<int>(2);
  CLI::App *const verb = app.add_subcommand("all", "Every comparison that this GPU allows");
  verb->add_flag("--quick", *quick, "Smaller cases and short training runs: minutes");
  verb->add_option("--threads", *threads, "CPU threads of one training run")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  verb->callback([quick, threads, &exit_code] {
    cuda::require_device();
    exit_code = finish(everything(*quick, *threads));
  });
}

} // namespace nvfp4::crosscheck
