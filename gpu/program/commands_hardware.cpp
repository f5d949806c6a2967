// SPDX-License-Identifier: Apache-2.0
// nvfp4-gpu units, hopper, attention, gla, capture, blackwell, speed: the GPU's own tensor cores.
#include "nvfp4/gpu/capture/capture.hpp"
#include "nvfp4/gpu/check/blackwell.hpp"
#include "nvfp4/gpu/check/hopper.hpp"
#include "nvfp4/gpu/models/backend.hpp"
#include "nvfp4/gpu/program/program.hpp"

#include <iostream>
#include <memory>

namespace nvfp4::crosscheck {
namespace {

struct Options {
  int64_t outputs = 1000000, largest = 0;
  uint64_t seed = 2;
  std::string match, which;
  bool quick = false;
};

CLI::Option *add_largest(CLI::App *verb, const std::shared_ptr<Options> &o, int64_t standard) {
  o->largest = standard;
  return verb->add_option("--largest", o->largest, "Only cases up to this size")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
}

/// Mismatches that have been printed, as an exit code.
int code_of(int64_t wrong) {
  std::printf("total mismatches: %lld\n", static_cast<long long>(wrong));
  return wrong == 0 ? kEqual : kMismatch;
}

} // namespace

void register_hardware(CLI::App &app, int &exit_code) {
  {
    auto o = std::make_shared<Options>();
    CLI::App *const verb =
        app.add_subcommand("units", "Every matrix instruction of this GPU against the emulator's unit");
    verb->add_option("--outputs", o->outputs, "Outputs of every unit and class of input")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    verb->add_option("--seed", o->seed, "Seed of the operands")->capture_default_str();
    verb->add_option("--match", o->match, "Only units whose name contains this");
    verb->callback([o, &exit_code] { exit_code = finish(check_units(o->outputs, o->seed, o->match)); });
  }
  {
    auto o = std::make_shared<Options>();
    CLI::App *const verb = app.add_subcommand("hopper", "GEMMs in BF16 and FP8 of Hopper's tensor cores");
    add_largest(verb, o, 8192);
    verb->callback([o, &exit_code] { exit_code = finish(check_hopper_gemm(o->largest)); });
  }
  {
    auto o = std::make_shared<Options>();
    CLI::App *const verb = app.add_subcommand("attention", "Softmax attention on Hopper's tensor cores");
    add_largest(verb, o, 4096);
    verb->callback([o, &exit_code] { exit_code = finish(check_attention(o->largest)); });
  }
  {
    auto o = std::make_shared<Options>();
    CLI::App *const verb = app.add_subcommand("gla", "Gated linear attention on Hopper's tensor cores");
    verb->add_flag("--quick", o->quick, "Without the long cases");
    verb->callback([o, &exit_code] { exit_code = finish(check_gla(o->quick)); });
  }
  {
    auto o = std::make_shared<gpu::CaptureOptions>();
    CLI::App *const verb =
        app.add_subcommand("capture", "Record golden files of this GPU (as nvfp4-capture)");
    verb->add_option("--out", o->out_dir, "Folder for the files")->capture_default_str();
    verb->add_option("--tiles", o->tiles, "Tiles a class of input, 8 outputs each")
        ->capture_default_str()
        ->check(CLI::Range(1, 1000000));
    verb->add_option("--seed", o->seed, "Seed of the operands")->capture_default_str();
    verb->add_option("--only", o->only, "Only units and conversions whose name contains this");
    verb->callback([o, &exit_code] {
      const int code = gpu::capture(*o, std::cout); // 1: failed
      exit_code = code == 1 ? int(kBadCall) : code;
    });
  }
}

void register_blackwell(CLI::App &app, int &exit_code) {
  namespace bw = cuda::blackwell;
  CLI::App *const verb = app.add_subcommand("blackwell", "The kernels for Blackwell's tensor cores");
  verb->require_subcommand(1);
  {
    auto o = std::make_shared<Options>();
    CLI::App *const check =
        verb->add_subcommand("check", "Directed vectors, rbits, quantization and products");
    add_largest(check, o, 4096);
    check->callback([o, &exit_code] { exit_code = code_of(bw::check_all(o->largest)); });
  }
  {
    auto o = std::make_shared<Options>();
    CLI::App *const simulate =
        verb->add_subcommand("simulate", "Any GPU: the same kernels, the instruction in software");
    add_largest(simulate, o, 512);
    simulate->callback([o, &exit_code] { exit_code = code_of(bw::simulate(o->largest)); });
  }
  verb->add_subcommand("directed", "Which accumulation model is right")->callback([&exit_code] {
    exit_code = code_of(bw::check_directed(bw::require_native_kernel(), bw::Engine::hardware));
  });
  verb->add_subcommand("rbits", "The order of cvt.rs's random bits")->callback([&exit_code] {
    (void)bw::require_native_kernel();
    exit_code = code_of(bw::check_rbits());
  });
  auto folder = std::make_shared<std::string>();
  CLI::App *const capture = verb->add_subcommand("capture", "Golden files, the directed vectors first");
  capture->add_option("directory", *folder, "Folder for the files")->required();
  capture->callback([folder, &exit_code] {
    const int code = bw::capture_golden(bw::require_native_kernel(), *folder); // 1: failed
    exit_code = code == 1 ? int(kBadCall) : code;
  });
}

void register_speed(CLI::App &app, int &exit_code) {
  CLI::App *const verb = app.add_subcommand("speed", "Kernels beside what the machine allows");
  verb->require_subcommand(1);
  auto size = std::make_shared<int64_t>(8192);
  CLI::App *const twin = verb->add_subcommand("twin", "Quantization and exact products");
  twin->add_option("--size", *size, "Rows and columns")->capture_default_str()->check(CLI::PositiveNumber);
  auto recorded = std::make_shared<std::string>();
  twin->add_option("--recorded", *recorded, "And a model's operands: golden/operands/gla-27m.safetensors")
      ->check(CLI::ExistingFile);
  auto match = std::make_shared<std::string>();
  twin->add_option("--match", *match,
                   "Only products of which 'gemm UNIT LABEL [M, N, K]' contains this; no quantization, no comparison");
  twin->callback([size, recorded, match, &exit_code] {
    cuda::require_device();
    const Tally tally = time_twin(*size, *recorded, *match);
    exit_code = match->empty() ? finish(tally) : kEqual; // of a choice nothing is compared
  });
  auto which = std::make_shared<std::string>();
  CLI::App *const attention = verb->add_subcommand("attention", "Softmax attention on Hopper");
  attention->add_option("pass", *which, "forward or backward; both by default")
      ->check(CLI::IsMember({"forward", "backward"}));
  attention->callback([which] { time_attention(*which); });
  auto once = std::make_shared<bool>(false);
  CLI::App *const gla = verb->add_subcommand("gla", "Gated linear attention on Hopper, by kernel");
  gla->add_flag("--once", *once, "Forward and backward once, for a profiler");
  gla->callback([once] { *once ? run_gla() : time_gla(); });
}

} // namespace nvfp4::crosscheck
